import STUN
import Wire

/// Where messages begin and end in a stream of bytes (RFC 8656 section 12.5, RFC 8489 section 6.2.2): each says its
/// length in its first four bytes, and ChannelData is padded to a multiple of four. What is not there yet wholly is
/// kept, and never more than one message.
struct Frames {
    enum Start: Equatable {
        case incomplete
        case frame(Int)
        case garbage
    }

    /// ChannelData with as much as its length can say.
    static let longest = 4 + 65_536

    private var partial: [UInt8] = []
    /// ChannelData may come. Before there is an allocation it cannot, and what looks like it may be the letters of
    /// another protocol.
    var allowsChannelData = false

    var isEmpty: Bool { partial.isEmpty }

    /// How long the message is that `bytes` begin with.
    func start(_ bytes: RawSpan) -> Start {
        guard let header = bytes.load(bigEndianAt: 0, as: UInt32.self) else { return .incomplete }
        let length = Int(header & 0xFFFF)
        switch header >> 28 {
        case 0x4 where allowsChannelData: return .frame(4 &+ (length &+ 3) & ~3)
        case 0x0...0x3:
            guard length & 3 == 0 else { return .garbage }
            if let cookie = bytes.load(bigEndianAt: 4, as: UInt32.self), cookie != magicCookie { return .garbage }
            return .frame(headerSize &+ length)
        // RFC 8656 section 12: first bytes of 80 and above are nobody's.
        default: return .garbage
        }
    }

    mutating func removeAll() { partial = [] }

    /// Keeps the beginning of a message.
    mutating func keep(_ rest: RawSpan) { if rest.byteCount > 0 { partial = rest.copied() } }

    /// Takes from `bytes` what the kept message still needs; how much that was. Nil if it cannot be one.
    mutating func complete(_ bytes: RawSpan) -> (taken: Int, whole: [UInt8]?)? {
        var taken = 0
        while true {
            let missing: Int
            switch start(partial.span.bytes) {
            case .garbage: return nil
            case .incomplete: missing = 4 &- partial.count
            // The second word of STUN tells it from garbage before its length is believed.
            case .frame(let count): missing = (partial.count < 8 && count > 8 ? 8 : count) &- partial.count
            }
            if missing == 0 {
                defer { partial = [] }
                return (taken, partial)
            }
            let step = min(missing, bytes.byteCount &- taken)
            guard step > 0, let part = bytes.slice(at: taken, count: step) else { return (taken, nil) }
            append(part)
            taken &+= step
        }
    }

    private mutating func append(_ bytes: RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe partial.append(contentsOf: $0) }
    }
}
