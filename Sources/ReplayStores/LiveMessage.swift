import Replay

/// What is published on a room's channel.
///
/// A message is a line of text (epoch, sequence, kind, flags, negotiation, lengths of the names of sender and
/// recipient), then the two names, then the bytes. Without a name: the server, everybody.
///
/// A position is a line of four words: `at`, epoch or `-`, sequence, and the name of whoever asked for it.
enum LiveLine: Equatable {
    case message(LiveMessage)
    case position(Position?, asked: String)

    /// nil if it is neither.
    init?(decoding bytes: [UInt8], room: RoomName) {
        if let message = LiveMessage(decoding: bytes, room: room) {
            self = .message(message)
            return
        }
        guard bytes.count <= LiveMessage.longestLine, bytes.last == 0x0A else { return nil }
        let words = bytes.dropLast().split(separator: 0x20, omittingEmptySubsequences: false)
        guard words.count == 4, words[0].elementsEqual("at".utf8) else { return nil }
        let asked = String(decoding: words[3], as: UTF8.self)
        if words[1].elementsEqual("-".utf8) {
            self = .position(nil, asked: asked)
        } else {
            guard let epoch = Hexadecimal.value(words[1]),
                let sequence = UInt64(String(decoding: words[2], as: UTF8.self))
            else { return nil }
            self = .position(Position(epoch: epoch, sequence: sequence), asked: asked)
        }
    }
}

extension LiveMessage {
    fileprivate static let longestLine = 160

    /// nil if it is not one.
    init?(decoding bytes: [UInt8], room: RoomName) {
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
        var sender: UserName?
        var recipient: UserName?
        do throws(NameError) {
            if from > 0 { sender = try UserName(Array(bytes[start..<start + from])) }
            if to > 0 { recipient = try UserName(Array(bytes[start + from..<start + from + to])) }
        } catch { return nil }
        self.init(
            room: room, position: Position(epoch: epoch, sequence: sequence), from: sender, to: recipient,
            MessageProperties(kind, flags: UInt8(truncatingIfNeeded: flags), negotiation: negotiation),
            payload: Array(bytes[(start + from + to)...]))
    }

    private static func number(_ word: ArraySlice<UInt8>) -> UInt64? { UInt64(String(decoding: word, as: UTF8.self)) }
}
