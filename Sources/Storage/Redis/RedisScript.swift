import COpenSSL

/// A Lua script that runs in the server, named by its SHA-1 after the first time.
public struct RedisScript: Equatable, Sendable {
    public let source: String
    /// Lowercase hexadecimal, as EVALSHA wants it.
    public let digest: String

    public init(_ source: String) {
        self.source = source
        var hash = [UInt8](repeating: 0, count: 20)
        let bytes = Array(source.utf8)
        _ = unsafe bytes.withUnsafeBufferPointer { input in
            unsafe hash.withUnsafeMutableBufferPointer { output in
                unsafe SHA1(input.baseAddress, input.count, output.baseAddress)
            }
        }
        let digits = Array("0123456789abcdef".utf8)
        digest = String(decoding: hash.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
