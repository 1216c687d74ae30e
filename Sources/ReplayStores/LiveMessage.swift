public import Replay

/// A message on its way to the other servers of a service, at the moment when it was numbered.
///
/// A line of text (epoch, sequence, kind, flags, negotiation, lengths of the names of sender and recipient), then the
/// two names, then the bytes. Without a name: the server, everybody.
public struct LiveMessage: Equatable, Sendable {
    public var position: Position
    public var from: UserName?
    public var to: UserName?
    public var kind: MessageKind
    public var isText: Bool
    public var isPriority: Bool
    public var negotiation: UInt64
    public var payload: [UInt8]

    private static let longestLine = 160

    /// nil if it is not one.
    public init?(decoding bytes: [UInt8]) {
        guard let end = bytes.prefix(Self.longestLine).firstIndex(of: 0x0A) else { return nil }
        let words = bytes[..<end].split(separator: 0x20)
        guard words.count == 7, let epoch = Hexadecimal.value(words[0]), let sequence = Self.number(words[1]),
            let raw = Self.number(words[2]).flatMap({ UInt8(exactly: $0) }), let kind = MessageKind(rawValue: raw),
            let flags = Self.number(words[3]), let negotiation = Hexadecimal.value(words[4]),
            let from = Self.number(words[5]).flatMap({ Int(exactly: $0) }),
            let to = Self.number(words[6]).flatMap({ Int(exactly: $0) }),
            from <= NameRules.maximumLength, to <= NameRules.maximumLength, bytes.count - end - 1 >= from + to
        else { return nil }
        let start = end + 1
        do throws(NameError) {
            self.from = from == 0 ? nil : try UserName(Array(bytes[start..<start + from]))
            self.to = to == 0 ? nil : try UserName(Array(bytes[start + from..<start + from + to]))
        } catch { return nil }
        position = Position(epoch: epoch, sequence: sequence)
        self.kind = kind
        isText = flags & 1 != 0
        isPriority = flags & 2 != 0
        self.negotiation = negotiation
        payload = Array(bytes[(start + from + to)...])
    }

    private static func number(_ word: ArraySlice<UInt8>) -> UInt64? { UInt64(String(decoding: word, as: UTF8.self)) }
}
