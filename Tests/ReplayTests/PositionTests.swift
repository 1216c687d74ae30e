import Testing
import Wire

@testable import Replay

@Suite struct Positions {
    private let key: PositionKey = {
        var random = SeededGenerator(seed: 1)
        return PositionKey(using: &random)
    }()

    @Test func comeBackAsTheyWere() throws {
        var random = SeededGenerator(seed: 2)
        for _ in 0..<200 {
            let position = Position(epoch: random.next(), sequence: random.next() >> 20)
            let text = key.text(position)
            #expect(text.utf8.count == PositionKey.textLength)
            #expect(try key.position(text) == position)
        }
    }

    @Test func sameTextIntoABuffer() {
        let position = Position(epoch: 0xFEDC_BA98_7654_3210, sequence: 42)
        let buffer = PacketBuffer(capacity: 40)
        #expect(buffer.fill { key.write(position, into: &$0) })
        #expect(buffer.withBytes { String(decoding: $0.copied(), as: UTF8.self) } == key.text(position))
        let small = PacketBuffer(capacity: 31)
        #expect(!small.fill { key.write(position, into: &$0) })
    }

    @Test func anyChangedCharacterIsNoticed() {
        let text = Array(key.text(Position(epoch: 0x1234_5678_9ABC_DEF0, sequence: 7)).utf8)
        for index in text.indices {
            for replacement in Array("Az09-_".utf8) where replacement != text[index] {
                var changed = text
                changed[index] = replacement
                #expect(throws: PositionError.forged) { try key.position(String(decoding: changed, as: UTF8.self)) }
            }
        }
    }

    @Test(arguments: ["", "A", String(repeating: "A", count: 31), String(repeating: "A", count: 33), "*", "é"])
    func othersAreMalformed(_ text: String) {
        #expect(throws: PositionError.malformed) { try key.position(text) }
        #expect(throws: PositionError.malformed) { try key.position(String(repeating: "A", count: 31) + "=") }
    }

    @Test func anotherSecretsAreForged() throws {
        let text = PositionKey(secret: bytes("one")).text(Position(epoch: 2, sequence: 3))
        #expect(throws: PositionError.forged) { try PositionKey(secret: bytes("two")).position(text) }
        #expect(try PositionKey(secret: bytes("one")).position(text) == Position(epoch: 2, sequence: 3))
    }

    @Test func tokensComeBackAndShowLittle() {
        var random = SeededGenerator(seed: 3)
        for _ in 0..<100 {
            let token = ResumeToken(using: &random)
            #expect(token.text.utf8.count == ResumeToken.textLength)
            #expect(ResumeToken(parsing: token.text) == token)
            #expect("\(token)".count == 8)
            #expect(ResumeToken(parsing: token.text + "A") == nil)
            #expect(ResumeToken(parsing: String(token.text.dropLast())) == nil)
            #expect(ResumeToken(parsing: String(token.text.dropLast()) + "B") == nil, "bits past the end")
        }
    }
}

@Suite struct Names {
    @Test(arguments: ["a", "user@example.com", "räume", "a b", String(repeating: "x", count: 256), "日本"])
    func ordinaryOnesAreTaken(_ name: String) throws {
        #expect(try RoomName(name).text == name)
        #expect(try UserName(name).text == name)
    }

    @Test(arguments: [
        ("", NameError.empty), (String(repeating: "x", count: 257), .tooLong), ("a\nb", .controlCharacter),
        ("a\u{0}", .controlCharacter), ("\u{7F}", .controlCharacter), ("a\u{85}", .controlCharacter),
    ])
    func othersAreNot(_ name: String, _ error: NameError) {
        #expect(throws: error) { try RoomName(name) }
        #expect(throws: error) { try UserName(name) }
    }

    @Test func bracesAreForUsersOnly() throws {
        #expect(throws: NameError.brace) { try RoomName("a{b") }
        #expect(throws: NameError.brace) { try RoomName("}") }
        #expect(try UserName("{a}").text == "{a}")
        #expect(throws: NameError.notUTF8) { try RoomName([0x61, 0xFF]) }
        #expect(throws: NameError.tooLong) { try UserName([UInt8](repeating: 0x61, count: 3_000_000)) }
    }
}
