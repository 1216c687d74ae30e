import SCTP
import Testing
import Wire

@testable import DataChannel

private func parse(_ bytes: [UInt8]) -> Result<ControlMessage, ControlMessage.ParseError> {
    do throws(ControlMessage.ParseError) {
        return .success(try ControlMessage(parsing: bytes.span.bytes))
    } catch {
        return .failure(error)
    }
}

@Suite struct ControlMessages {
    /// RFC 8832 section 5.1, written out by hand.
    @Test func openHasTheLayoutOfTheRFC() {
        let bytes: [UInt8] = [
            0x03, 0x81, 0x01, 0x00, 0, 0, 0, 5, 0, 4, 0, 2, 0x63, 0x68, 0x61, 0x74, 0x76, 0x31,
        ]
        let message = ControlMessage.open(
            ChannelParameters(
                label: "chat", subprotocol: "v1", ordered: false, reliability: .retransmits(5), priority: 256))
        #expect(parse(bytes) == .success(message))
        #expect(message.encoded()?.copied() == bytes)
        #expect(parse([2]) == .success(.acknowledge) && ControlMessage.acknowledge.encoded()?.copied() == [2])
    }

    @Test(arguments: [
        ChannelParameters(), ChannelParameters(label: "", subprotocol: "x", ordered: false),
        ChannelParameters(label: "日本語 \u{0}", reliability: .lifetime(.milliseconds(1500)), priority: 65535),
        ChannelParameters(ordered: false, reliability: .lifetime(.zero), priority: 0),
        ChannelParameters(reliability: .retransmits(0)), ChannelParameters(reliability: .retransmits(.max)),
        ChannelParameters(
            label: String(repeating: "a", count: 65535), subprotocol: String(repeating: "é", count: 32767)),
    ])
    func surviveWritingAndReading(parameters: ChannelParameters) throws {
        let bytes = try #require(ControlMessage.open(parameters).encoded()).copied()
        #expect(parse(bytes) == .success(.open(parameters)))
        #expect(parse(bytes + [1, 2, 3]) == .success(.open(parameters)))
    }

    @Test func tooLongTextCannotBeWritten() {
        #expect(ControlMessage.open(ChannelParameters(label: String(repeating: "a", count: 65536))).encoded() == nil)
        #expect(
            ControlMessage.open(ChannelParameters(subprotocol: String(repeating: "a", count: 65536))).encoded() == nil)
    }

    @Test func aLifetimeBeyondTheFieldIsClamped() {
        let bytes = ControlMessage.open(ChannelParameters(reliability: .lifetime(.forever))).encoded()?.copied()
        #expect(bytes?[4..<8] == [255, 255, 255, 255])
        let negative = ControlMessage.open(ChannelParameters(reliability: .lifetime(.seconds(-1)))).encoded()?.copied()
        #expect(negative?[4..<8] == [0, 0, 0, 0])
    }

    @Test func brokenOnesAreRefused() {
        let whole: [UInt8] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x61, 0x62, 0x63]
        for length in 0..<whole.count { #expect(parse(Array(whole.prefix(length))) == .failure(.truncated)) }
        for type: UInt8 in [3, 4, 0x7F, 0x83, 0xFF] {
            var changed = whole
            changed[1] = type
            #expect(parse(changed) == .failure(.unknownChannelType(type)))
        }
        for type: UInt8 in [0, 1, 4, 255] { #expect(parse([type, 0, 0]) == .failure(.unknownMessageType(type))) }
        for offset in [12, 14] {
            var changed = whole
            changed[offset] = 0xFF
            #expect(parse(changed) == .failure(.invalidText))
        }
    }

    @Test(arguments: UInt64(1)...50)
    func randomOnesDoNoHarm(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var bytes = generator.bytes(Int.random(in: 0...40, using: &generator))
            if bytes.count > 12 {
                bytes.replaceSubrange(0..<2, with: [3, [0, 1, 2, 0x80, 0x81, 0x82].randomElement(using: &generator)!])
            }
            if bytes.count > 12 {
                bytes.replaceSubrange(
                    8..<12,
                    with: [
                        0, UInt8.random(in: 0...20, using: &generator), 0, UInt8.random(in: 0...20, using: &generator),
                    ])
            }
            if case .success(let message) = parse(bytes), let again = message.encoded()?.copied() {
                #expect(parse(again) == .success(message), "seed \(seed)")
            }
        }
    }
}

@Suite struct Text {
    private func isValid(_ bytes: [UInt8]) -> Bool { bytes.span.bytes.isValidUTF8 }

    @Test func validityAgreesWithTheStandardLibrary() {
        var generator = SeededGenerator(seed: 11)
        let pieces: [[UInt8]] = [
            [0x61], [0x7F], [0xC2, 0x80], [0xDF, 0xBF], [0xE0, 0xA0, 0x80], [0xED, 0x9F, 0xBF], [0xEE, 0x80, 0x80],
            [0xF0, 0x90, 0x80, 0x80], [0xF4, 0x8F, 0xBF, 0xBF], Array("abcdefghijklm".utf8),
            // Broken: overlong, surrogate, too large, alone, cut.
            [0xC0, 0x80], [0xE0, 0x9F, 0xBF], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0x80], [0xE2, 0x82],
            [0xF5], [0xFF],
        ]
        var seen = (valid: 0, broken: 0)
        for _ in 0..<5000 {
            let bytes = (0..<Int.random(in: 0...6, using: &generator)).flatMap { _ in
                pieces.randomElement(using: &generator)!
            }
            let expected = String(validating: bytes, as: UTF8.self) != nil
            #expect(isValid(bytes) == expected, "\(bytes)")
            if expected { seen.valid += 1 } else { seen.broken += 1 }
        }
        #expect(seen.valid > 500 && seen.broken > 500)
    }
}
