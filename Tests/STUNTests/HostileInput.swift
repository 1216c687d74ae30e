import Testing
import Wire

@testable import STUN

/// A header for `body`, which may be anything.
private func message(_ body: String, type: String = "0001") -> [UInt8] {
    let bytes = hex(body)
    return hex(type) + [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + hex("2112a442 000000010000000000000002")
        + bytes
}

@Suite struct HostileInput {
    @Test func attributesStayInsideTheMessage() {
        #expect(malformation(message("")) == nil)
        #expect(malformation(message("00060001")) == .truncatedAttribute)
        #expect(malformation(message("0006ffff 61626364")) == .truncatedAttribute)
        #expect(malformation(message("00060005 61626364")) == .truncatedAttribute)
        #expect(malformation(message("00060004 61626364 0000")) == .notSTUN)
        #expect(malformation(message("00060003 616263ff")) == nil)
        #expect(malformation(message("", type: "4001")) == .notSTUN)
    }

    @Test func thereIsALimitToAttributes() {
        func attributes(_ count: Int) -> [UInt8] { message(String(repeating: "c0570000", count: count)) }
        #expect(malformation(attributes(attributeLimit)) == nil)
        #expect(malformation(attributes(attributeLimit + 1)) == .tooManyAttributes)
        #expect(malformation(attributes(16000)) == .tooManyAttributes)
    }

    @Test func trailingAttributesHaveFixedLengths() {
        #expect(malformation(message("00080010" + String(repeating: "00", count: 16))) == .badLength)
        #expect(malformation(message("001c000c" + String(repeating: "00", count: 12))) == .badLength)
        #expect(malformation(message("001c0012" + String(repeating: "00", count: 20))) == .badLength)
        #expect(malformation(message("001c0024" + String(repeating: "00", count: 36))) == .badLength)
        #expect(malformation(message("80280000")) == .badLength)
        #expect(malformation(message("80280004 00000000")) == .badFingerprint)
    }

    @Test func fingerprintIsTheLastAttribute() {
        let bytes = write(.request) { writer, output in
            writer.append(.fingerprint, 0 as UInt32, to: &output)
            writer.append(.software, to: &output)
            writer.finish(nil, fingerprint: false, to: &output)
        }
        #expect(malformation(bytes) == .fingerprintNotLast)
    }

    /// RFC 8489 section 14.5: what follows the integrity attribute is ignored, since anybody on the
    /// way may have put it there.
    @Test func whatFollowsIntegrityIsIgnored() throws {
        let signed = write(.request) { writer, output in
            writer.append(.username, Array("a:b".utf8).span.bytes, to: &output)
            writer.finish(key, fingerprint: false, to: &output)
        }
        var added = signed + hex("00250000 00240004 7fffffff 70010000 80290008 0000000000000001")
        added[3] = UInt8(added.count - 20)
        let reading = try read(added, key)
        #expect(reading.isAuthentic && reading.username == Array("a:b".utf8))
        #expect(
            !reading.usesCandidate && reading.priority == nil && reading.controlled == nil && reading.unknown.isEmpty)
    }

    /// RFC 8489 section 9.1.3: with both, the stronger one counts; a wrong one is not made up for.
    @Test func theStrongerIntegrityCounts() throws {
        func both(_ damaged: Int?) -> [UInt8] {
            var bytes = write(.request) { writer, output in
                writer.append(.username, Array("a:b".utf8).span.bytes, to: &output)
                writer.finish(key, .sha1, fingerprint: false, to: &output)
            }
            // The second code covers the first, with the length that includes itself.
            bytes[3] = UInt8(bytes.count - 20 + 36)
            let code = key.code(.sha256, over: bytes.span.bytes, count: bytes.count, length: UInt16(bytes[3]))
            bytes += hex("001c0020")
            for index in 0..<8 {
                for shift in [24, 16, 8, 0] { bytes.append(UInt8(truncatingIfNeeded: code[index] >> shift)) }
            }
            if let damaged { bytes[damaged] ^= 1 }
            return bytes
        }
        let count = both(nil).count
        #expect(try read(both(nil), key).isAuthentic)
        #expect(try !read(both(count - 1), key).isAuthentic)
        #expect(try !read(both(count - 40), key).isAuthentic)
        let algorithm = try Message(both(nil).span.bytes).integrityAlgorithm
        #expect(algorithm == .sha256)
    }

    @Test func truncatedSHA256IsAccepted() throws {
        let whole = write(.request) { writer, output in
            writer.append(.username, Array("a:b".utf8).span.bytes, to: &output)
            writer.finish(key, .sha256, fingerprint: false, to: &output)
        }
        // 16 of 32 bytes: the length the code covers is shorter then.
        var short = Array(whole[..<(whole.count - 36)])
        short[3] = UInt8(short.count - 20 + 20)
        let code = key.code(.sha256, over: short.span.bytes, count: short.count, length: UInt16(short[3]))
        short += hex("001c0010")
        for index in 0..<4 {
            for shift in [24, 16, 8, 0] { short.append(UInt8(truncatingIfNeeded: code[index] >> shift)) }
        }
        #expect(try read(short, key).isAuthentic)
        short[short.count - 1] ^= 1
        #expect(try !read(short, key).isAuthentic)
    }

    @Test func theFirstOfDuplicatesCounts() throws {
        let bytes = write(.request) { writer, output in
            writer.append(.priority, 1 as UInt32, to: &output)
            writer.append(.priority, 2 as UInt32, to: &output)
            writer.finish(key, to: &output)
        }
        #expect(try read(bytes, key).priority == 1)
    }

    @Test func valuesOfWrongLengthAreAbsent() throws {
        let reading = try read(
            message(
                "00240003 00000000 80290004 00000000 00200004 00010000 00010014 0001000000000000000000000000000000000000 00090003 00000400"
            ),
            key)
        #expect(reading.priority == nil && reading.controlled == nil && reading.xorMapped == nil)
        #expect(reading.mapped == nil && reading.errorCode == nil)
        for code in ["00000263", "00000700", "00000464"] {
            #expect(try read(message("00090004" + code), key).errorCode == nil)
        }
        #expect(try read(message("00090004 00000457"), key).errorCode == 487)
    }

    @Test func unknownAttributesAreListedUpToALimit() throws {
        var body = "0025000000240004000000ff" + "c0570004000a0000"
        for type in 0x7000..<0x7020 { body += String(type, radix: 16) + "0000" }
        let reading = try read(message(body), key)
        #expect(reading.unknown == (0x7000..<0x7008).map { UInt16($0) })
    }

    @Test func unsignedMessagesAreNotAuthentic() throws {
        #expect(try !read(message("00060003 613a6200"), key).isAuthentic)
        #expect(try !read(message("00060003 613a6200"), IntegrityKey(password: "")).isAuthentic)
    }

    @Test func randomBytesDoNoHarm() {
        var random = SeededGenerator(seed: 5769)
        for _ in 0..<20_000 {
            var bytes = random.bytes(Int.random(in: 0...160, using: &random))
            if bytes.count >= 20, Bool.random(using: &random) {
                // Past the first look.
                bytes.replaceSubrange(0..<8, with: hex("00010000 2112a442"))
                bytes[0] = UInt8.random(in: 0...0x3F, using: &random)
                bytes = Array(bytes[..<(bytes.count & ~3)])
                bytes[3] = UInt8(bytes.count - 20)
            }
            _ = try? read(bytes, key)
            _ = peekUsername(bytes.span.bytes)?.byteCount
        }
    }

    @Test func mutatedSamplesDoNoHarm() {
        var random = SeededGenerator(seed: 8489)
        let samples = [Vectors.request, Vectors.responseIPv4, Vectors.responseIPv6, Vectors.requestLongTerm]
        for _ in 0..<20_000 {
            let sample = samples.randomElement(using: &random)!
            var bytes = sample
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let index = Int.random(in: 20..<bytes.count, using: &random)
                bytes[index] = UInt8(truncatingIfNeeded: random.next())
            }
            if bytes != sample, let reading = try? read(bytes, key) {
                #expect(!reading.isAuthentic || !reading.hasFingerprint)
            }
        }
    }
}
