import Testing
import Wire

@testable import STUN

/// What the tests look at, out of the reach of the span it came from.
struct Reading: Equatable {
    var messageClass: MessageClass
    var method: UInt16
    var username: [UInt8]?
    var software: String?
    var realm: String?
    var nonce: String?
    var priority: UInt32?
    var usesCandidate = false
    var controlled: UInt64?
    var controlling: UInt64?
    var mapped: SocketAddress?
    var xorMapped: SocketAddress?
    var errorCode: Int?
    var unknown: [UInt16]
    var isAuthentic: Bool
    var hasFingerprint: Bool
}

func text(_ value: RawSpan?) -> String? {
    guard let bytes = copied(value) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
}

func copied(_ value: RawSpan?) -> [UInt8]? {
    guard let value else { return nil }
    return value.copied()
}

func read(_ bytes: [UInt8], _ key: IntegrityKey) throws(Malformation) -> Reading {
    let message = try Message(bytes.span.bytes)
    return Reading(
        messageClass: message.messageClass, method: message.method, username: copied(message.username),
        software: text(message.software), realm: text(message.realm), nonce: text(message.nonce),
        priority: message.priority, usesCandidate: message.usesCandidate, controlled: message.iceControlled,
        controlling: message.iceControlling, mapped: message.mappedAddress, xorMapped: message.xorMappedAddress,
        errorCode: message.errorCode,
        unknown: (0..<message.unknownAttributes.count).map { message.unknownAttributes[$0] },
        isAuthentic: message.isAuthentic(key), hasFingerprint: message.hasFingerprint)
}

func malformation(_ bytes: [UInt8]) -> Malformation? {
    do throws(Malformation) {
        _ = try read(bytes, IntegrityKey(password: ""))
        return nil
    } catch {
        return error
    }
}

/// Builds a message with a writer.
func write(
    _ messageClass: MessageClass, method: UInt16 = MessageType.binding,
    id: TransactionID = TransactionID(high: 1, low: 2), capacity: Int = 2048,
    _ body: (inout MessageWriter, inout OutputRawSpan) -> Void
) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
        var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
        var writer = MessageWriter(messageClass, method: method, id: id, to: &output)
        body(&writer, &output)
        count = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
    }
}

var key: IntegrityKey { IntegrityKey(password: Vectors.password) }
let sampleID = TransactionID(high: 0xB7E7_A701, low: 0xBC34_D686_FA87_DFAE)

@Suite struct RFC5769 {
    @Test func readsTheSampleRequest() throws {
        let reading = try read(Vectors.request, key)
        #expect(reading.messageClass == .request && reading.method == 1)
        #expect(reading.username == Array("evtj:h6vY".utf8) && reading.software == "STUN test client")
        #expect(reading.priority == 0x6E00_01FF && reading.controlled == 0x932F_F9B1_5126_3B36)
        #expect(reading.isAuthentic && reading.hasFingerprint && reading.unknown.isEmpty)
        #expect(try !read(Vectors.request, IntegrityKey(password: "VOkJxbRl1RmTxUk/WvJxBu")).isAuthentic)
    }

    @Test func readsTheSampleResponses() throws {
        let v4 = try read(Vectors.responseIPv4, key)
        #expect(v4.messageClass == .success && v4.isAuthentic && v4.software == "test vector")
        #expect(v4.xorMapped == SocketAddress(ip: IPAddress("192.0.2.1")!, port: 32853))
        let v6 = try read(Vectors.responseIPv6, key)
        #expect(v6.isAuthentic)
        #expect(v6.xorMapped == SocketAddress(ip: IPAddress("2001:db8:1234:5678:11:2233:4455:6677")!, port: 32853))
    }

    @Test func readsTheSampleRequestWithLongTermCredentials() throws {
        let name = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}"
        let key = IntegrityKey(username: name, realm: "example.org", password: "TheMatrIX", algorithm: .sha1)
        let reading = try read(Vectors.requestLongTerm, key)
        #expect(reading.isAuthentic && !reading.hasFingerprint)
        #expect(reading.username == Array(name.utf8) && reading.realm == "example.org")
        #expect(reading.nonce == "f//499k954d6OL34oL9FSTvy64sA")
        // RFC 8489 appendix B.1 hashes the same name.
        #expect(
            userhash(username: name, realm: "example.org")
                == hex("4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704"))
    }

    /// The one sample whose padding is zero, as this writer's is.
    @Test func writesTheSampleRequestByteForByte() {
        let name = Array("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".utf8)
        let key = IntegrityKey(
            username: "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}", realm: "example.org", password: "TheMatrIX",
            algorithm: .sha1)
        let id = TransactionID(high: 0x78AD_3433, low: 0xC6AD_72C0_29DA_412E)
        let written = write(.request, id: id) { writer, output in
            writer.append(.username, name.span.bytes, to: &output)
            writer.append(.nonce, Array("f//499k954d6OL34oL9FSTvy64sA".utf8).span.bytes, to: &output)
            writer.append(.realm, Array("example.org".utf8).span.bytes, to: &output)
            writer.finish(key, fingerprint: false, to: &output)
        }
        #expect(written == Vectors.requestLongTerm)
    }

    @Test func anyChangedByteIsNoticed() {
        for sample in [Vectors.request, Vectors.responseIPv4, Vectors.responseIPv6] {
            for index in sample.indices {
                for bit in 0..<8 {
                    var changed = sample
                    changed[index] ^= 1 << UInt8(bit)
                    // A changed type or length can hide FINGERPRINT, and then it is not there.
                    let reading = try? read(changed, key)
                    #expect(reading.map { $0.isAuthentic && $0.hasFingerprint } != true, "byte \(index), bit \(bit)")
                }
            }
        }
    }
}

@Suite struct Writing {
    @Test func whatIsWrittenIsReadBack() throws {
        let v6 = SocketAddress(ip: IPAddress("2001:db8::1")!, port: 4711)
        let v4 = SocketAddress(ip: IPAddress("203.0.113.9")!, port: 1)
        for algorithm in [IntegrityAlgorithm.sha1, .sha256] {
            let written = write(.success, method: 0xABC, id: sampleID) { writer, output in
                writer.append(.xorMappedAddress, v6, to: &output)
                writer.append(.mappedAddress, v4, to: &output)
                writer.append(.username, Array("a:b".utf8).span.bytes, to: &output)
                writer.append(.priority, 0xFFFF_FFFF as UInt32, to: &output)
                writer.append(.useCandidate, to: &output)
                writer.append(.iceControlling, 77 as UInt64, to: &output)
                writer.finish(key, algorithm, to: &output)
            }
            let reading = try read(written, key)
            #expect(reading.method == 0xABC && reading.messageClass == .success)
            #expect(reading.xorMapped == v6 && reading.mapped == v4)
            #expect(reading.priority == 0xFFFF_FFFF && reading.usesCandidate && reading.controlling == 77)
            #expect(reading.isAuthentic && reading.hasFingerprint && reading.username == Array("a:b".utf8))
        }
    }

    @Test func errorsNameTheAttributesTheyComplainOf() throws {
        let request = write(.request) { writer, output in
            writer.append(AttributeType(rawValue: 0x7001), 1 as UInt32, to: &output)
            writer.append(AttributeType(rawValue: 0x7002), to: &output)
            writer.append(AttributeType(rawValue: 0xC057), 1 as UInt32, to: &output)
            writer.finish(key, .sha256, to: &output)
        }
        let parsed = try Message(request.span.bytes)
        var storage = [UInt8](repeating: 0, count: 200)
        let count = storage.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            writeErrorResponse(code: 420, to: parsed, key: key, into: &output)
            return output.finalize(for: buffer)
        }
        let bytes = Array(storage[..<count])
        let reading = try read(bytes, key)
        #expect(reading.messageClass == .error && reading.errorCode == 420 && reading.isAuthentic)
        let refused = try Message(bytes.span.bytes).refusedAttributes
        #expect(refused.count == 2 && refused[0] == 0x7001 && refused[1] == 0x7002)
    }

    @Test func whatDoesNotFitIsTakenBack() {
        let whole = write(.request) { writer, output in
            writer.append(.username, Array("abcd:efgh".utf8).span.bytes, to: &output)
            writer.finish(key, to: &output)
        }
        for capacity in 0...whole.count {
            let written = write(.request, capacity: capacity) { writer, output in
                writer.append(.username, Array("abcd:efgh".utf8).span.bytes, to: &output)
                let fits = writer.finish(key, to: &output)
                #expect(fits == (capacity == whole.count))
            }
            #expect(written == (capacity == whole.count ? whole : []))
        }
    }

    @Test func aSecondMessageGoesBehindTheFirst() throws {
        var storage = [UInt8](repeating: 0, count: 400)
        let (first, both) = storage.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            var writer = MessageWriter(.request, id: sampleID, to: &output)
            writer.finish(key, to: &output)
            let first = output.byteCount
            writer = MessageWriter(.success, id: sampleID, to: &output)
            writer.append(.xorMappedAddress, SocketAddress(ip: .anyIPv4, port: 5), to: &output)
            writer.finish(key, .sha256, to: &output)
            return (first, output.finalize(for: buffer))
        }
        #expect(try read(Array(storage[..<first]), key).isAuthentic)
        #expect(try read(Array(storage[first..<both]), key).isAuthentic)
    }

    @Test func typesHoldMethodAndClass() {
        for method in 0..<UInt16(0x1000) {
            for messageClass in [MessageClass.request, .indication, .success, .error] {
                let type = MessageType(messageClass, method: method)
                #expect(type.method == method && type.messageClass == messageClass && type.rawValue < 0x4000)
            }
        }
        #expect(MessageType(.success).rawValue == 0x0101 && MessageType(.error).rawValue == 0x0111)
    }

    @Test func hashesMatchTheStandardCheckValues() {
        #expect(crc32(Array("123456789".utf8).span.bytes) == 0xCBF4_3926)
        for (flight, crc) in [
            ("16fefd0000000000000001000c0e0000001234000000000000", 0x6C76_0ACE as UInt32),
            ("16fefd0000000000000002000c0e0000004321000000000000", 0xD161_2086),
        ] { #expect(crc32(hex(flight).span.bytes) == crc) }
        let split = Array("1234567".utf8)
        #expect(crc32(Array("89".utf8).span.bytes, initial: crc32(split.span.bytes)) == 0xCBF4_3926)
    }
}

@Suite struct Demultiplexing {
    func name(_ bytes: [UInt8]) -> String? {
        text(peekUsername(bytes.span.bytes))
    }

    func isSTUN(_ bytes: [UInt8]) -> Bool { isMessage(bytes.span.bytes) }

    @Test func looksAtTheReceiversUfragOnly() {
        #expect(name(Vectors.request) == "evtj")
        #expect(name(Vectors.responseIPv4) == nil)
        // A long-term name has no colon, and is no ufrag.
        #expect(name(Vectors.requestLongTerm) == nil)
        let two = write(.request) { writer, output in
            writer.append(.software, Array("x".utf8).span.bytes, to: &output)
            writer.append(.username, Array(":a:b".utf8).span.bytes, to: &output)
            writer.append(.username, Array("late:x".utf8).span.bytes, to: &output)
            writer.finish(nil, to: &output)
        }
        #expect(name(two) == "")
    }

    @Test func otherProtocolsAreNotSTUN() {
        #expect(isSTUN(Vectors.request))
        #expect(!isSTUN([]) && !isSTUN([0, 1]) && !isSTUN(Array(Vectors.request.dropLast())))
        #expect(!isSTUN(Vectors.request + [0, 0, 0, 0]) && !isSTUN(Array(repeating: 0, count: 20)))
        // DTLS, RTP and TURN channels by their first byte (RFC 9443).
        for first in [20, 22, 63, 64, 79, 128, 191, 255] as [UInt8] {
            var other = Vectors.request
            other[0] = first
            #expect(isSTUN(other) == (first < 64))
        }
        var cookie = Vectors.request
        cookie[5] ^= 1
        #expect(!isSTUN(cookie))
    }
}
