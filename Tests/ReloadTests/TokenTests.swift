import Testing
import Wire

@testable import Reload

@Suite struct Tokens {
    @Test func haveTheFormOfTheFormat() {
        var random = SeededGenerator(seed: 1)
        let token = SessionToken(using: &random)
        #expect(token.text.hasPrefix("session-"))
        #expect(token.text.utf8.count == 40)
        #expect(token.text.dropFirst(8).hasPrefix(token.displayPrefix))
        #expect(token.displayPrefix.utf8.count == 8)
    }

    @Test func writeKnownBits() {
        #expect(SessionToken(words: (0, 0, 0)).text == "session-" + String(repeating: "A", count: 32))
        #expect(SessionToken(words: (.max, .max, .max)).text == "session-" + String(repeating: "_", count: 32))
        #expect(SessionToken(words: (0, 0, 1)).text.hasSuffix("AB"))
        #expect(SessionToken(words: (1 << 63, 0, 0)).text.hasPrefix("session-gA"))
        #expect(SessionToken(words: (0, 1 << 63, 0)).text == "session-AAAAAAAAAACAAAAAAAAAAAAAAAAAAAAA")
    }

    @Test func parseWhatTheyWrite() {
        for seed in 0..<1000 {
            var random = SeededGenerator(seed: UInt64(seed))
            let token = SessionToken(using: &random)
            #expect(SessionToken(parsing: token.text) == token, "seed \(seed)")
        }
    }

    @Test(arguments: [
        "", "session-", "session-AAAA", String(repeating: "A", count: 40),
        "Session-" + String(repeating: "A", count: 32),
        "session-" + String(repeating: "A", count: 31), "session-" + String(repeating: "A", count: 33),
        "session-" + String(repeating: "A", count: 31) + "=", "session-" + String(repeating: "A", count: 31) + "+",
        "session-" + String(repeating: "A", count: 31) + "/", "session-" + String(repeating: "A", count: 30) + "ä",
        " session-" + String(repeating: "A", count: 31), "session-" + String(repeating: "A", count: 31) + "\0",
    ])
    func refuseOtherTexts(text: String) {
        #expect(SessionToken(parsing: text) == nil)
    }

    @Test func differInEveryBit() {
        let token = SessionToken(words: (1, 2, 3))
        for bit in 0..<192 {
            var words = token.words
            switch bit / 64 {
            case 0: words.0 ^= 1 << UInt64(bit % 64)
            case 1: words.1 ^= 1 << UInt64(bit % 64)
            default: words.2 ^= 1 << UInt64(bit % 64)
            }
            let other = SessionToken(words: words)
            #expect(other != token)
            #expect(other.text != token.text)
        }
    }

    @Test func printOnlyTheirBeginning() {
        var random = SeededGenerator(seed: 3)
        let token = SessionToken(using: &random)
        var dumped = ""
        dump(token, to: &dumped)
        for shown in ["\(token)", String(reflecting: token), dumped, "\(Optional(token) as Any)"] {
            #expect(!shown.contains(token.text.dropFirst(17)))
        }
    }
}

@Suite struct Digests {
    /// `head -c 24 /dev/zero | sha256sum`, in base64url.
    @Test func areOfTheBytes() {
        let digest = TokenDigest(SessionToken(words: (0, 0, 0)))
        #expect(digest.key == "nZCOz7ayVt74tJp8UE5siJxLDkH-bOPgGGPde2GiCqA")
    }
}
