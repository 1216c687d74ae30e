/// Our offer of data channels, kept until its answer comes.
public struct Offer: Sendable {
    /// The offer's SDP, lines ending in CRLF.
    public let text: String
    public let mid: String

    /// One section for data channels, bundled, actpass (RFC 8829 section 5.2.1).
    public init(_ local: LocalTransport, origin: Origin, mid: String = "0") throws(NegotiationError) {
        try local.validate()
        guard mid.isToken(maximum: Lengths.mid) else { throw .invalidLocal(.mid) }
        var writer = DescriptionWriter(origin: origin)
        if local.isLite { writer.line("a=ice-lite") }
        writer.line("a=group:BUNDLE ", mid)
        let section = MediaSection(
            line: 0, kind: "application", port: 9, protocol: "UDP/DTLS/SCTP", formats: ["webrtc-datachannel"])
        writer.dataSection(like: section, local, mid: mid, setup: .actpass)
        text = writer.text
        self.mid = mid
    }

    /// What an answer to this offer agrees to.
    public struct Accepted: Sendable {
        /// The answerer's end.
        public var remote: DataTransport
        /// True if we open the DTLS association (its client).
        public var isDTLSClient: Bool
    }

    public func accept(_ answer: SessionDescription) throws(NegotiationError) -> Accepted {
        // RFC 3264 section 6: as many m= lines as the offer had, in its order.
        guard let section = answer.media.first else { throw .noDataSection }
        guard answer.media.count == 1 else { throw .mismatch(.media, line: answer.media[1].line) }
        guard section.kind == "application" else { throw .mismatch(.media, line: section.line) }
        // RFC 9143 section 6: bundle-only has no meaning in an answer, where port zero always rejects.
        guard section.port != 0 else { throw .rejected }
        guard section.isDataChannels, section.protocol == "UDP/DTLS/SCTP" else {
            throw .mismatch(.media, line: section.line)
        }
        // RFC 5888 section 9.1: the answer repeats the offer's mid; some answerers leave it out.
        if let answered = section.mid, answered != mid { throw .mismatch(.mid, line: section.line) }
        for group in answer.bundles where group.contains(where: { $0 != mid }) {
            throw .mismatch(.group, line: section.line)
        }
        let remote = try answer.dataTransport()
        switch remote.setup {
        case .passive: return Accepted(remote: remote, isDTLSClient: true)
        // Answerers from before RFC 8842 may leave it out and take the default of RFC 4145, active.
        case .active, nil: return Accepted(remote: remote, isDTLSClient: false)
        // RFC 8842 section 5.3: an answer is active or passive.
        case .actpass: throw .setup(.actpass)
        case .holdconn: throw .setup(.holdconn)
        }
    }
}
