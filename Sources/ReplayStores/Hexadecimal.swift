/// 64 bits as 16 digits: Lua's numbers have 53.
enum Hexadecimal {
    static func text(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 &- digits.utf8.count) + digits
    }

    static func value(_ text: some Sequence<UInt8>) -> UInt64? {
        UInt64(String(decoding: Array(text), as: UTF8.self), radix: 16)
    }
}
