import CSystem
import Wire

/// The machine's network as it is at one moment.
struct NetworkSnapshot: Equatable {
    struct Interface: Equatable {
        var index: UInt32
        var name: String
        /// "bridge", "veth", "tun" and the like; empty for hardware, and where that is not known.
        var kind = ""
        var isUp = true
        var isRunning = true
        var isLoopback = false
        /// Leads to the rest of the IPv4 world by itself, whether or not it is the best way there.
        var isExit = false
    }

    struct Address: Equatable {
        var ip: IPAddress
        /// The interface's index.
        var interface: UInt32
        /// RFC 8981.
        var isTemporary = false
        /// RFC 4862 section 5.5.4: not for new connections.
        var isDeprecated = false
        /// RFC 4862 section 5.4: not known yet to be the only one, or known not to be.
        var isTentative = false
    }

    /// The way to the rest of the world.
    struct Route: Equatable {
        var interface: UInt32
        /// Unspecified if none is needed, or not known.
        var gateway: IPAddress
    }

    var interfaces: [UInt32: Interface] = [:]
    var addresses: [Address] = []
    var routeIPv4: Route?
    var routeIPv6: Route?
    /// Whether the interfaces' numbers are the system's.
    var hasSystemIndices = true

    /// Every address that packets can come to now, offered or not.
    var usable: [Address] {
        addresses.filter { address in
            guard let interface = interfaces[address.interface], interface.isUp, interface.isRunning else {
                return false
            }
            return !address.isTentative && !address.ip.isUnspecified && !address.ip.isMulticast
        }
    }
}

extension NetworkSnapshot {
    /// Where IPv4 packets from each address leave, if there is a choice: with several ways to the world the system takes
    /// the best one, whatever address a packet is from, and what is behind the others drops or answers elsewhere.
    var exits: [IPAddress: UInt32] {
        let ways = Set(interfaces.values.filter { $0.isUp && $0.isRunning && $0.isExit }.map(\.index))
        guard ways.count > 1 else { return [:] }
        var exits: [IPAddress: UInt32] = [:]
        for address in usable where address.ip.isIPv4 && ways.contains(address.interface) {
            exits[address.ip] = address.interface
        }
        return exits
    }
}

/// Reading it.
extension NetworkSnapshot {
    /// How much of it could be read.
    enum Reading {
        case complete(NetworkSnapshot)
        /// Without what netlink alone knows: kinds of interfaces, kinds of addresses, routes.
        case partial(NetworkSnapshot)
        /// Not now (no descriptor, no memory): try again.
        case failed(Int32)
    }

    static func read() -> Reading {
        guard let table = unsafe cs_netlink_table_create() else { return .failed(Int32(CS_ENOMEM)) }
        defer { unsafe cs_netlink_table_destroy(table) }
        let result = unsafe cs_netlink_read(table)
        if result == 0 { return .complete(unsafe NetworkSnapshot(table.pointee)) }
        switch Int(-result) {
        case CS_EMFILE, CS_ENFILE, CS_ENOMEM: return .failed(-result)
        default: return fallback().map { .partial($0) } ?? .failed(-result)
        }
    }

    private init(_ table: cs_netlink_table) {
        for link in unsafe UnsafeBufferPointer(start: table.links, count: Int(table.link_count)) {
            interfaces[link.index] = Interface(
                index: link.index, name: text(link.name), kind: text(link.kind),
                isUp: link.flags & UInt32(CS_LINK_UP) != 0, isRunning: link.flags & UInt32(CS_LINK_RUNNING) != 0,
                isLoopback: link.flags & UInt32(CS_LINK_LOOPBACK) != 0,
                isExit: link.flags & UInt32(CS_LINK_EXIT) != 0)
        }
        for entry in unsafe UnsafeBufferPointer(start: table.addresses, count: Int(table.address_count)) {
            let flags = Int(entry.flags)
            addresses.append(
                Address(
                    ip: IPAddress(entry.address), interface: entry.interface,
                    isTemporary: flags & CS_ADDRESS_TEMPORARY != 0, isDeprecated: flags & CS_ADDRESS_DEPRECATED != 0,
                    isTentative: flags & (CS_ADDRESS_TENTATIVE | CS_ADDRESS_DUPLICATE) != 0))
        }
        routeIPv4 = Route(unsafe table.route4).flatMap { leadsAnywhere($0) ? $0 : nil }
        routeIPv6 = Route(unsafe table.route6).flatMap { leadsAnywhere($0) ? $0 : nil }
    }

    /// The kernel keeps routes over an interface that has lost its link.
    private func leadsAnywhere(_ route: Route) -> Bool {
        interfaces[route.interface].map { $0.isUp && $0.isRunning && !$0.isLoopback } ?? false
    }

    /// Without netlink of our own: what the C library can list, and by which address the system would reach the world.
    static func fallback() -> NetworkSnapshot? {
        var snapshot = NetworkSnapshot()
        snapshot.hasSystemIndices = false
        withUnsafeTemporaryAllocation(of: cs_interface_address.self, capacity: 256) { buffer in
            let count = unsafe cs_interface_addresses(buffer.baseAddress, 256)
            for index in 0..<max(0, Int(count)) { snapshot.add(unsafe buffer[index]) }
        }
        let isListed = !snapshot.addresses.isEmpty
        snapshot.routeIPv4 = snapshot.probe(IPAddress(v4: 0xC629_0004))
        snapshot.routeIPv6 = snapshot.probe(IPAddress(high: 0x2001_0503_BA3E_0000, low: 0x0000_0000_0002_0030))
        if !isListed {
            _ = snapshot.probe(IPAddress(high: 0, low: 1))
            _ = snapshot.probe(IPAddress(v4: 0x7F00_0001))
        }
        return snapshot.addresses.isEmpty ? nil : snapshot
    }

    private mutating func add(_ entry: cs_interface_address) {
        let name = text(entry.name)
        let index = interfaces.values.first { $0.name == name }?.index ?? UInt32(interfaces.count + 1)
        interfaces[index] = Interface(
            index: index, name: name, isRunning: entry.flags & UInt32(CS_INTERFACE_RUNNING) != 0,
            isLoopback: entry.flags & UInt32(CS_INTERFACE_LOOPBACK) != 0)
        addresses.append(Address(ip: IPAddress(entry.address), interface: index))
    }

    /// The source address towards `world` shows the interface; where not even addresses can be listed, it is the list.
    private mutating func probe(_ world: IPAddress) -> Route? {
        var to = SocketAddress(ip: world, port: 53).system
        var from = cs_address()
        guard unsafe cs_source_address(&to, &from) == 0 else { return nil }
        let source = IPAddress(from)
        guard !source.isUnspecified else { return nil }
        let interface = addresses.first { $0.ip == source }?.interface ?? UInt32(interfaces.count + 1)
        if interfaces[interface] == nil {
            interfaces[interface] = Interface(index: interface, name: "", isLoopback: source.isLoopback)
            addresses.append(Address(ip: source, interface: interface))
        }
        return Route(interface: interface, gateway: source.isIPv4 ? .anyIPv4 : .anyIPv6)
    }
}

extension NetworkSnapshot.Route {
    init?(_ route: cs_default_route) {
        guard route.interface != 0 else { return nil }
        self.init(interface: route.interface, gateway: IPAddress(route.gateway))
    }
}

/// Sixteen characters of C, the last of them a zero.
private typealias CharacterArray = (
    CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar, CChar
)

private func text(_ characters: CharacterArray) -> String {
    withUnsafeBytes(of: characters) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
