/// Payload protocol identifiers of SCTP messages (RFC 8831 section 8).
enum ProtocolIdentifier: UInt32 {
    case control = 50
    case text = 51
    /// Deprecated, as 54 is: pieces of a message. Nobody sends them any more; taken as whole messages.
    case partialBinary = 52
    case binary = 53
    case partialText = 54
    /// SCTP has no empty messages: RFC 8831 section 6.6 sends one zero byte in their place.
    case emptyText = 56
    case emptyBinary = 57

    init(_ kind: MessageKind, isEmpty: Bool) {
        switch kind {
        case .text: self = isEmpty ? .emptyText : .text
        case .binary: self = isEmpty ? .emptyBinary : .binary
        }
    }
}
