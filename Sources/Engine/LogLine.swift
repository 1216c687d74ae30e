import Peer
import Wire

/// The lines of the log, one event each. Pure: what they show is what they are given, but never more of a token than
/// its first characters, and no character that could begin another line or field.
enum LogLine {
    enum ConnectResult: String {
        case success
        /// The attempt is given up and the next mode begins.
        case fallback
        case failure
    }

    enum CertificateAction {
        case create(isOnDisk: Bool)
        case load(age: Duration, previous: Int)
        case rotate(isOnDisk: Bool, previous: Int)
        case replaceExpired(isOnDisk: Bool)
        /// Previous certificates whose time is over are gone.
        case retire(previous: Int)
    }

    /// A connect of this mode ended. `session` may be the whole token; nil where there is none. `isIPv6` is nil if
    /// there was no path.
    static func connect(
        session: String?, mode: ConnectionMode, isIPv6: Bool?, duration: Duration, result: ConnectResult
    ) -> String {
        let (tag, name) =
            switch mode {
            case .normal: ("NORMAL", "normal")
            case .fast: ("FAST_RELOAD", "fast")
            case .zeroSignaling: ("FAST_RELOAD", "zero-signaling")
            }
        return "[\(tag)] Session=\(shown(session: session)) Mode=\(name) "
            + "Protocol=\(AttemptedFamily(isIPv6: isIPv6).label) Duration=\(max(0, duration.milliseconds))ms "
            + "Result=\(result.rawValue)"
    }

    /// A cache entry was looked at. `lastProtocol`: "ipv6", "ipv4" or "both".
    static func cacheLoad(age: Duration, isValid: Bool, ipv6: Int, ipv4: Int, lastProtocol: String) -> String {
        "[CACHE] Action=load Age=\(age.nanoseconds / 1_000_000_000)s Valid=\(isValid) IPv6=\(ipv6) IPv4=\(ipv4) "
            + "Protocol=\(plain(lastProtocol, limit: 8))"
    }

    /// How many candidates are offered.
    static func candidates(ipv6Host: Int, ipv6Reflexive: Int, ipv4Reflexive: Int, ipv4Relay: Int) -> String {
        "[CANDIDATE] IPv6 Host=\(ipv6Host) IPv6 srflx=\(ipv6Reflexive) IPv4 srflx=\(ipv4Reflexive) "
            + "IPv4 relay=\(ipv4Relay)"
    }

    /// The format of these lines has no brackets around IPv6 addresses.
    static func candidate(type: String, transport: String = "udp", address: SocketAddress) -> String {
        "[ICE] Candidate: Type=\(plain(type, limit: 16)), Protocol=\(plain(transport, limit: 8)), "
            + "Address=\(address.ip):\(address.port)"
    }

    static func path(_ report: Peer.PathReport) -> String {
        let roundTrip = report.roundTrip.map { "\($0.milliseconds)ms" } ?? "unknown"
        return "[ICE] Path: Reason=\(report.reason), Local=\(kind(of: report.local)), "
            + "Remote=\(kind(of: report.remote)), Protocol=\(report.path.transport), RTT=\(roundTrip), "
            + "Count=\(report.count)"
    }

    /// The candidate's type is what stands behind "typ" (RFC 8839 section 5.1).
    private static func kind(of candidate: String) -> String {
        let fields = candidate.split(separator: " ")
        guard let typ = fields.firstIndex(of: "typ"), typ + 1 < fields.count else { return "unknown" }
        return plain(fields[typ + 1], limit: 16)
    }

    static func restart(_ report: Peer.RestartReport) -> String {
        "[ICE] Restart: Stage=\(report.stage), Attempt=\(report.attempt), Duration=\(report.duration.milliseconds)ms"
    }

    static func relay(url: String, addresses: Int, duration: Duration) -> String {
        "[ICE] Relay: Server=\(plain(url, limit: 128)), Result=success, Addresses=\(addresses), "
            + "Duration=\(duration.milliseconds)ms"
    }

    static func relay(url: String, failure: Status) -> String {
        "[ICE] Relay: Server=\(plain(url, limit: 128)), Result=failure, Reason=\(failure)"
    }

    static func network(isOnline: Bool, addresses: Int) -> String {
        "[ICE] Network: Online=\(isOnline), Addresses=\(addresses)"
    }

    static func certificate(_ action: CertificateAction) -> String {
        func storage(_ isOnDisk: Bool) -> String { isOnDisk ? "file" : "memory" }
        let fields =
            switch action {
            case .create(let isOnDisk): "create Storage=\(storage(isOnDisk))"
            case .load(let age, let previous):
                "load AgeDays=\(max(0, age.nanoseconds) / 86_400_000_000_000) Previous=\(previous)"
            case .rotate(let isOnDisk, let previous): "rotate Storage=\(storage(isOnDisk)) Previous=\(previous)"
            case .replaceExpired(let isOnDisk): "replace-expired Storage=\(storage(isOnDisk))"
            case .retire(let previous): "retire Previous=\(previous)"
            }
        return "[CERTIFICATE] Action=" + fields
    }

    /// The first 8 characters of what is random in a token.
    static func shown(session token: String?) -> String {
        guard var rest = token.map({ Substring($0) }), !rest.isEmpty else { return "none" }
        if rest.hasPrefix("session-") { rest = rest.dropFirst(8) }
        return rest.isEmpty ? "none" : plain(rest, limit: 8)
    }

    private static func plain(_ text: some StringProtocol, limit: Int) -> String { LogText.plain(text, limit: limit) }
}

package enum LogText {
    /// Visible ASCII only: the texts of others cannot forge fields or lines.
    package static func plain(_ text: some StringProtocol, limit: Int = 256) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(limit) {
            shown.unicodeScalars.append(scalar.value > 0x20 && scalar.value < 0x7F ? scalar : "?")
        }
        return shown
    }
}
