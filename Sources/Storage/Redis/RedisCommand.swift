/// One word of a command: binary-safe.
public enum RedisArgument: Equatable, Sendable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
    case text(String)
    case bytes([UInt8])
    case integer(Int64)

    public init(stringLiteral value: String) { self = .text(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
}

/// Writes commands as the server reads them: an array of bulk strings.
struct RedisEncoder {
    private(set) var bytes: [UInt8] = []

    static func encode(_ command: [RedisArgument]) -> [UInt8] {
        var encoder = RedisEncoder()
        encoder.append(command)
        return encoder.bytes
    }

    mutating func append(_ command: [RedisArgument]) {
        append(0x2A, command.count)
        for argument in command {
            switch argument {
            case .text(let text): append(bulk: text.utf8)
            case .bytes(let bytes): append(bulk: bytes)
            case .integer(let number): append(bulk: String(number).utf8)
            }
        }
    }

    private mutating func append(bulk: some Collection<UInt8>) {
        append(0x24, bulk.count)
        bytes.append(contentsOf: bulk)
        bytes.append(contentsOf: [0x0D, 0x0A])
    }

    private mutating func append(_ mark: UInt8, _ count: Int) {
        bytes.append(mark)
        bytes.append(contentsOf: String(count).utf8)
        bytes.append(contentsOf: [0x0D, 0x0A])
    }
}
