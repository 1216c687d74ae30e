import Testing
import Wire

@testable import STUN

private let name = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}"
private let nonce = Array("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA".utf8)

private func challenge(
    _ code: Int = 401, realm: [UInt8]? = Array("example.org".utf8), nonce: [UInt8]?, algorithms: [UInt8]? = nil,
    known: [UInt8]? = nil
) throws -> Challenge? {
    let bytes = write(.error) { writer, output in
        writer.append(errorCode: code, to: &output)
        if let realm { writer.append(.realm, realm, to: &output) }
        if let nonce { writer.append(.nonce, nonce, to: &output) }
        if let algorithms { writer.append(.passwordAlgorithms, algorithms, to: &output) }
        writer.finish(nil, fingerprint: false, to: &output)
    }
    let message = try Message(bytes.span.bytes)
    return Challenge(message, realm: known)
}

@Suite struct LongTerm {
    /// RFC 8489 appendix B.1 with the code of its verified erratum: with PASSWORD-ALGORITHM, and a key of SHA-256.
    @Test func writesTheSampleRequestWithSHA256() throws {
        let key = IntegrityKey(username: name, realm: "example.org", password: "TheMatrIX", algorithm: .sha256)
        let id = TransactionID(high: 0x78AD_3433, low: 0xC6AD_72C0_29DA_412E)
        let written = write(.request, id: id) { writer, output in
            writer.append(.userhash, userhash(username: name, realm: "example.org"), to: &output)
            writer.append(.nonce, nonce, to: &output)
            writer.append(.realm, Array("example.org".utf8), to: &output)
            writer.append(.passwordAlgorithm, 0x0002_0000 as UInt32, to: &output)
            writer.finish(key, .sha256, fingerprint: false, to: &output)
        }
        let expected = hex(
            """
            00010090 2112a442 78ad3433c6ad72c029da412e
            001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
            00150029 6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c394653547679363473 41000000
            0014000b 6578616d706c652e6f726700
            001d0004 00020000
            001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65
            """)
        #expect(written == expected)
        let reading = try read(expected, key)
        #expect(reading.isAuthentic && reading.unknown.isEmpty)
        let weaker = IntegrityKey(username: name, realm: "example.org", password: "TheMatrIX", algorithm: .sha1)
        #expect(try !read(expected, weaker).isAuthentic)
    }

    @Test func nonceSaysWhatTheServerCan() {
        func features(_ text: String) -> SecurityFeatures {
            let bytes = Array(text.utf8)
            return SecurityFeatures(nonce: bytes.span.bytes)
        }
        let sample = SecurityFeatures(nonce: nonce.span.bytes)
        #expect(sample.hasUsernameAnonymity && !sample.hasPasswordAlgorithms)
        #expect(features("obMatJos2AAAB").hasPasswordAlgorithms)
        #expect(features("obMatJos2AAAD") != features("obMatJos2AAAB"))
        for text in ["", "obMatJos2AAA", "obMatJos3AAAD", "obMatJos2AA=D", "xobMatJos2AAAD", "obMatJos2AAAAD"] {
            #expect(features(text) == SecurityFeatures(nonce: [UInt8]().span.bytes), "\(text)")
        }
    }

    @Test func challengesNeedRealmAndNonce() throws {
        #expect(try challenge(nonce: nil) == nil)
        #expect(try challenge(nonce: []) == nil)
        #expect(try challenge(realm: nil, nonce: nonce) == nil)
        #expect(try challenge(realm: nil, nonce: nonce, known: [1])?.realm == [1])
        #expect(try challenge(realm: [], nonce: nonce, known: [1]) == nil)
        #expect(try challenge(nonce: [UInt8](repeating: 1, count: 764)) == nil)
        #expect(try challenge(realm: [UInt8](repeating: 1, count: 764), nonce: nonce) == nil)
        let plain = try challenge(nonce: [1, 2])
        #expect(plain?.algorithm == nil && plain?.hidesUsername == false && plain?.nonce == [1, 2])
    }

    @Test func strongestAlgorithmIsChosen() throws {
        #expect(try challenge(nonce: [1], algorithms: [0, 1, 0, 0])?.algorithm == .sha1)
        #expect(try challenge(nonce: [1], algorithms: [0, 2, 0, 0, 0, 1, 0, 0])?.algorithm == .sha256)
        // One with parameters that nobody knows, and padding.
        #expect(try challenge(nonce: [1], algorithms: [0, 9, 0, 3, 1, 2, 3, 0, 0, 1, 0, 0])?.algorithm == .sha1)
        #expect(try challenge(nonce: [1], algorithms: [0, 9, 0, 0])?.algorithm == nil)
        #expect(try challenge(nonce: [1], algorithms: [0, 2, 255, 255])?.algorithm == nil)
        // Promised by the nonce and not there.
        let promise = Array("obMatJos2AAAB".utf8)
        #expect(try challenge(nonce: promise) == nil)
        #expect(try challenge(nonce: promise, algorithms: [0, 9, 0, 0]) == nil)
        #expect(try challenge(nonce: promise, algorithms: [0, 2, 0, 0])?.algorithm == .sha256)
    }

    @Test func weakerSignaturesAreNone() throws {
        let strong = try #require(try challenge(nonce: nonce, algorithms: [0, 2, 0, 0]))
        let credentials = LongTermCredentials(username: name, password: "TheMatrIX", challenge: strong)
        for algorithm in [IntegrityAlgorithm.sha1, .sha256] {
            let answer = write(.success) { writer, output in writer.finish(credentials.key, algorithm, to: &output) }
            let message = try Message(answer.span.bytes)
            let isSigned = credentials.signed(message)
            #expect(isSigned == (algorithm == .sha256))
        }
        let request = write(.request) { writer, output in credentials.finish(&writer, to: &output) }
        let message = try Message(request.span.bytes)
        let hash = copied(message.value(of: .userhash))
        #expect(hash == userhash(username: name, realm: "example.org") && credentials.signed(message))
        #expect(copied(message.value(of: .passwordAlgorithm)) == [0, 2, 0, 0])
        #expect(copied(message.value(of: .passwordAlgorithms)) == [0, 2, 0, 0])
    }

    /// RFC 2202 section 3 and RFC 4231 section 4.3, their second cases.
    @Test func hmacOfATextIsTheStandardsOne() {
        let key = Array("Jefe".utf8)
        let text = Array("what do ya want for nothing?".utf8)
        #expect(hmac(.sha1, key: key, text) == hex("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"))
        #expect(
            hmac(.sha256, key: key, text) == hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"))
    }

    @Test func relayedAddressesAreReadOneByOne() throws {
        let v4 = SocketAddress(ip: IPAddress("203.0.113.9")!, port: 4711)
        let v6 = SocketAddress(ip: IPAddress("2001:db8::9")!, port: 4712)
        let bytes = write(.success, method: MessageType.allocate) { writer, output in
            writer.append(.xorRelayedAddress, v6, to: &output)
            writer.append(.lifetime, 600 as UInt32, to: &output)
            writer.append(.xorRelayedAddress, v4, to: &output)
            writer.append(.xorPeerAddress, v6, to: &output)
            writer.append(.addressErrorCode, 0x0200_0428 as UInt32, to: &output)
            writer.finish(nil, to: &output)
        }
        let message = try Message(bytes.span.bytes)
        #expect(message.xorRelayedAddress(0) == v6 && message.xorRelayedAddress(1) == v4)
        #expect(message.xorRelayedAddress(2) == nil && message.xorRelayedAddress(-1) == nil)
        #expect(message.xorPeerAddress == v6 && message.lifetime == 600)
        #expect(message.addressError?.isIPv6 == true && message.addressError?.code == 440)
        // Masked on the wire.
        let plain = copied(message.value(of: .xorPeerAddress))
        #expect(plain != [0, 2, 0x12, 0x68] + v6.ip.description.utf8)
        #expect(plain?[2] != 0x12)
    }
}
