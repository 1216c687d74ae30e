import Wire

@testable import ICE

/// A network address translator, by what it lets in (RFC 3489 section 5, in the words everybody still uses).
final class NAT {
    enum Kind: CaseIterable {
        case none
        case fullCone
        case addressRestricted
        case portRestricted
        /// Another outside port for each destination.
        case symmetric
    }

    private struct Key: Hashable {
        var inside: SocketAddress
        var destination: SocketAddress?
    }

    let kind: Kind
    private var ip: IPAddress
    private var nextPort: UInt16
    private var outside: [Key: SocketAddress] = [:]
    private var inside: [SocketAddress: SocketAddress] = [:]
    private var sentTo: [SocketAddress: Set<SocketAddress>] = [:]

    init(_ kind: Kind, _ ip: String, firstPort: UInt16 = 20_000) {
        self.kind = kind
        self.ip = IPAddress(ip)!
        nextPort = firstPort
    }

    /// The outside address of what goes from `address` to `destination`.
    func map(_ address: SocketAddress, to destination: SocketAddress) -> SocketAddress {
        let key = Key(inside: address, destination: kind == .symmetric ? destination : nil)
        let mapped = outside[key] ?? SocketAddress(ip: ip, port: nextPort)
        if outside[key] == nil {
            nextPort &+= 1
            outside[key] = mapped
            inside[mapped] = address
        }
        sentTo[mapped, default: []].insert(destination)
        return mapped
    }

    /// Where a datagram that came to an outside address goes; nil: nowhere.
    func admit(from source: SocketAddress, to address: SocketAddress) -> SocketAddress? {
        guard let target = inside[address], let known = sentTo[address] else { return nil }
        switch kind {
        case .none, .fullCone: return target
        case .addressRestricted: return known.contains { $0.ip == source.ip } ? target : nil
        case .portRestricted, .symmetric: return known.contains(source) ? target : nil
        }
    }

    /// All mappings are lost, and the outside address is another one: a reboot, a new provider.
    func renew(_ ip: String? = nil) {
        if let ip { self.ip = IPAddress(ip)! }
        outside = [:]
        inside = [:]
        sentTo = [:]
    }
}

/// What a relay does for its client: an address of its own whose traffic is handed on, from those only that the
/// client has sent to (RFC 8656 section 9).
final class Relay {
    let address: SocketAddress
    var isDead = false
    private var permitted: Set<IPAddress> = []

    init(_ address: SocketAddress) { self.address = address }

    func permit(_ ip: IPAddress) { permitted.insert(ip) }
    func admits(_ ip: IPAddress) -> Bool { permitted.contains(ip) && !isDead }
}
