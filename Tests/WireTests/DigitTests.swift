import Testing
import Wire

@Suite struct Digits {
    @Test func hexadecimalOnesHaveTheirValues() {
        for character in UInt8.min...UInt8.max {
            #expect(character.hexadecimalValue.map(Int.init) == Character(Unicode.Scalar(character)).hexDigitValue)
        }
    }

    /// RFC 4648, tables 1 and 2.
    @Test(arguments: [
        (Base64Alphabet.standard, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
        (Base64Alphabet.url, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
    ])
    func base64OnesAreTheTables(_ alphabet: Base64Alphabet, _ table: String) {
        let digits = Array(table.utf8)
        #expect((0..<64).map { alphabet.digit($0) } == digits)
        #expect(alphabet.digit(64) == digits[0] && alphabet.digit(255) == digits[63], "only six bits count")
        for character in UInt8.min...UInt8.max {
            #expect(alphabet.value(of: character).map(Int.init) == digits.firstIndex(of: character))
        }
    }
}
