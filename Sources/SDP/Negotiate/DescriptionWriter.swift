/// Writes descriptions. Its callers pass only values that were checked against their grammars.
struct DescriptionWriter {
    private(set) var text = ""

    init(origin: Origin) {
        text.reserveCapacity(1500)
        line("v=0")
        // RFC 8829 section 5.2.1: "-", the numbers, and an address that gives nothing away.
        line("o=- ", String(origin.id), " ", String(origin.version), " IN IP4 127.0.0.1")
        line("s=-")
        line("t=0 0")
    }

    mutating func line(_ parts: String...) {
        for part in parts { text += part }
        text += "\r\n"
    }

    /// RFC 3264 section 6, RFC 8829 section 5.3.1: the section stays, with port zero.
    mutating func rejected(_ section: MediaSection) {
        line("m=", section.kind, " 0 ", section.protocol, " ", section.formats.joined(separator: " "))
        line("c=IN IP4 0.0.0.0")
        if let mid = section.mid { line("a=mid:", mid) }
        if section.kind == "audio" || section.kind == "video" { line("a=inactive") }
    }

    mutating func dataSection(like section: MediaSection, _ local: LocalTransport, mid: String?, setup: SetupRole) {
        // RFC 8829 section 5.3.1: protocol and format as offered; port 9 and no address, since candidates follow.
        // In the form before RFC 8841 the format is our own SCTP port.
        let hasSCTPPort = section.formats.first == "webrtc-datachannel"
        let port = String(local.sctpPort)
        line("m=application 9 ", section.protocol, " ", hasSCTPPort ? "webrtc-datachannel" : port)
        line("c=IN IP4 0.0.0.0")
        if let mid { line("a=mid:", mid) }
        line("a=ice-ufrag:", local.iceUfrag)
        line("a=ice-pwd:", local.icePwd)
        if !local.iceOptions.isEmpty { line("a=ice-options:", local.iceOptions.joined(separator: " ")) }
        for fingerprint in local.fingerprints { line("a=fingerprint:", fingerprint.description) }
        line("a=setup:", setup.rawValue)
        if hasSCTPPort {
            line("a=sctp-port:", port)
        } else {
            line("a=sctpmap:", port, " webrtc-datachannel 1024")
        }
        line("a=max-message-size:", String(local.maxMessageSize))
        if let sctpInit = local.sctpInit { line("a=sctp-init:", sctpInit) }
        for candidate in local.candidates { line("a=", candidate) }
        if local.hasEndOfCandidates { line("a=end-of-candidates") }
    }
}
