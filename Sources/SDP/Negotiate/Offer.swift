/// The sections of the descriptions that were exchanged before. They keep their places and their names in every later
/// offer, whoever makes it (RFC 3264 section 8, RFC 8829 section 5.2.2).
public struct Layout: Hashable, Sendable {
    var sections: [MediaSection]
    var dataIndex: Int

    /// One section, for data channels.
    public init(mid: String = "0") {
        var section = MediaSection(
            line: 0, kind: "application", port: 9, protocol: "UDP/DTLS/SCTP", formats: ["webrtc-datachannel"])
        section.mid = mid
        sections = [section]
        dataIndex = 0
    }

    /// That of an offer of the other side; `data` is what its data section says.
    public init(_ offer: SessionDescription, data: DataTransport) {
        sections = offer.media.map { section in
            var kept = MediaSection(
                line: 0, kind: section.kind, port: 9, protocol: section.protocol, formats: section.formats)
            kept.mid = section.mid
            kept.sctpmapPort = section.sctpmapPort
            return kept
        }
        dataIndex = data.mediaIndex
    }

    var dataSection: MediaSection? { sections.indices.contains(dataIndex) ? sections[dataIndex] : nil }
    /// Of the data section; nil: it has no name.
    public var mid: String? { dataSection?.mid }
    /// Which one it is, for RTCIceCandidateInit.sdpMLineIndex.
    public var mediaIndex: Int { dataIndex }
}

/// Our offer of data channels, kept until its answer comes.
public struct Offer: Sendable {
    /// The offer's SDP, lines ending in CRLF.
    public let text: String
    let layout: Layout

    public var mid: String { layout.mid ?? "" }

    /// One section for data channels, bundled, actpass (RFC 8829 section 5.2.1).
    public init(_ local: LocalTransport, origin: Origin, mid: String = "0") throws(NegotiationError) {
        guard mid.isToken(maximum: Lengths.mid) else { throw .invalidLocal(.mid) }
        try self.init(local, origin: origin, layout: Layout(mid: mid))
    }

    /// A later offer: the sections as they were, actpass again (RFC 8829 section 5.2.2).
    public init(_ local: LocalTransport, origin: Origin, layout: Layout) throws(NegotiationError) {
        try local.validate()
        var writer = DescriptionWriter(origin: origin)
        if local.isLite { writer.line("a=ice-lite") }
        if let mid = layout.mid { writer.line("a=group:BUNDLE ", mid) }
        for (index, section) in layout.sections.enumerated() {
            if index == layout.dataIndex {
                writer.dataSection(like: section, local, mid: section.mid, setup: .actpass)
            } else {
                writer.rejected(section)
            }
        }
        text = writer.text
        self.layout = layout
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
        guard let own = layout.dataSection, let last = answer.media.last else { throw .noDataSection }
        guard answer.media.count == layout.sections.count else {
            let surplus = answer.media.dropFirst(layout.sections.count).first ?? last
            throw .mismatch(.media, line: surplus.line)
        }
        let section = answer.media[layout.dataIndex]
        guard section.kind == "application" else { throw .mismatch(.media, line: section.line) }
        // RFC 9143 section 6: bundle-only has no meaning in an answer, where port zero always rejects.
        guard section.port != 0 else { throw .rejected }
        guard section.isDataChannels, section.protocol == own.protocol else {
            throw .mismatch(.media, line: section.line)
        }
        // RFC 5888 section 9.1: the answer repeats the offer's mid; some answerers leave it out.
        if let answered = section.mid, answered != own.mid { throw .mismatch(.mid, line: section.line) }
        for group in answer.bundles where group.contains(where: { $0 != own.mid }) {
            throw .mismatch(.group, line: section.line)
        }
        let remote = try answer.dataTransport()
        guard remote.mediaIndex == layout.dataIndex else { throw .mismatch(.media, line: section.line) }
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
