/// An answer to a peer's offer, and what both descriptions agree on.
public struct Answer: Sendable {
    /// The answer's SDP, lines ending in CRLF.
    public var text: String
    /// The offerer's end.
    public var remote: DataTransport
    /// True if we open the DTLS association (its client).
    public var isDTLSClient: Bool
}

extension SessionDescription {
    /// Answers this offer: its first section for data channels is accepted, every other section
    /// rejected. An offer of actpass is taken up as `preferredRole` (passive saves browsers a round trip).
    public func answer(
        _ local: LocalTransport, origin: Origin, preferring preferredRole: SetupRole = .passive
    ) throws(NegotiationError) -> Answer {
        try local.validate()
        let remote = try dataTransport()
        let isClient = try Self.isDTLSClient(answering: remote.setup, preferring: preferredRole)
        var writer = DescriptionWriter(origin: origin)
        if local.isLite { writer.line("a=ice-lite") }
        // RFC 9143 section 7.3: rejected sections are not in the answer's group.
        if let mid = remote.mid, bundle(with: mid) != nil { writer.line("a=group:BUNDLE ", mid) }
        for (index, section) in media.enumerated() {
            if index == remote.mediaIndex {
                writer.dataSection(
                    like: section, local, mid: remote.mid, setup: isClient ? .active : .passive)
            } else {
                writer.rejected(section)
            }
        }
        return Answer(text: writer.text, remote: remote, isDTLSClient: isClient)
    }

    /// RFC 8842 section 5.3 with RFC 4145 section 4.1.
    private static func isDTLSClient(
        answering offered: SetupRole?, preferring preferredRole: SetupRole
    ) throws(NegotiationError) -> Bool {
        switch offered {
        // RFC 8842 section 5.2 wants actpass in offers; one that says nothing leaves the choice too.
        case .actpass, nil: preferredRole == .active
        case .active: false
        case .passive: true
        case .holdconn: throw .setup(.holdconn)
        }
    }
}
