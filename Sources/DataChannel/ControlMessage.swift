import SCTP
public import Wire

/// A message of the Data Channel Establishment Protocol (RFC 8832 section 5).
public enum ControlMessage: Hashable, Sendable {
    case open(ChannelParameters)
    case acknowledge

    public enum ParseError: Error, Hashable, Sendable {
        case truncated
        case unknownMessageType(UInt8)
        case unknownChannelType(UInt8)
        /// The label or the protocol is not UTF-8.
        case invalidText
    }

    /// RFC 8832 section 8.2.1.
    private enum MessageType {
        static let acknowledge: UInt8 = 0x02
        static let open: UInt8 = 0x03
    }

    /// RFC 8832 section 5.1: the most significant bit of the channel type says unordered.
    private static let unordered: UInt8 = 0x80
    private static let fixedLength = 12

    public init(parsing bytes: RawSpan) throws(ParseError) {
        var reader = ByteReader(bytes)
        guard let type = reader.read(UInt8.self) else { throw .truncated }
        switch type {
        case MessageType.acknowledge: self = .acknowledge
        case MessageType.open: self = .open(try ControlMessage.parseOpen(&reader))
        default: throw .unknownMessageType(type)
        }
    }

    private static func parseOpen(_ reader: inout ByteReader) throws(ParseError) -> ChannelParameters {
        guard let channelType = reader.read(UInt8.self), let priority = reader.read(UInt16.self),
            let reliability = reader.read(UInt32.self), let labelLength = reader.read(UInt16.self),
            let protocolLength = reader.read(UInt16.self), let label = reader.read(count: Int(labelLength)),
            let subprotocol = reader.read(count: Int(protocolLength))
        else { throw .truncated }
        guard label.isValidUTF8, subprotocol.isValidUTF8 else { throw .invalidText }
        var parameters = ChannelParameters(
            label: text(label), subprotocol: text(subprotocol), ordered: channelType & unordered == 0,
            priority: priority)
        switch channelType & ~unordered {
        case 0: break  // RFC 8832 section 5.1: the reliability parameter of a reliable channel is ignored.
        case 1: parameters.reliability = .retransmits(reliability)
        case 2: parameters.reliability = .lifetime(.milliseconds(Int64(reliability)))
        default: throw .unknownChannelType(channelType)
        }
        return parameters
    }

    private static func text(_ bytes: RawSpan) -> String { String(decoding: bytes.copied(), as: UTF8.self) }

    /// The message as bytes. Nil if the label or the protocol is longer than 65535 bytes.
    public func encoded() -> Payload? {
        guard case .open(let parameters) = self else {
            return Payload.copying([MessageType.acknowledge].span.bytes)
        }
        let label = Array(parameters.label.utf8)
        let subprotocol = Array(parameters.subprotocol.utf8)
        guard let labelLength = UInt16(exactly: label.count), let protocolLength = UInt16(exactly: subprotocol.count)
        else { return nil }
        let (type, value): (UInt8, UInt32) =
            switch parameters.reliability {
            case .reliable: (0, 0)
            case .retransmits(let count): (1, count)
            case .lifetime(let duration): (2, UInt32(clamping: duration.milliseconds))
            }
        var bytes = [MessageType.open, parameters.ordered ? type : type | ControlMessage.unordered]
        bytes.reserveCapacity(ControlMessage.fixedLength + label.count + subprotocol.count)
        bytes.append(bigEndian: parameters.priority)
        bytes.append(bigEndian: value)
        bytes.append(bigEndian: labelLength)
        bytes.append(bigEndian: protocolLength)
        bytes += label
        bytes += subprotocol
        return Payload.copying(bytes.span.bytes)
    }
}

extension [UInt8] {
    fileprivate mutating func append<Value: FixedWidthInteger>(bigEndian value: Value) {
        for shift in stride(from: Value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}
