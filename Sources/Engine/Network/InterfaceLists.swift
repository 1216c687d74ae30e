import Wire

extension InterfacePattern {
    /// "eth0", "wlan*", "192.0.2.0/24", "2001:db8::/32"; an address alone is a network of one.
    public init(parsing text: String) throws(Failure) {
        guard let pattern = InterfacePattern(Substring(text)) else {
            let shown = text.unicodeScalars.prefix(64).map {
                $0.isASCII && $0.value >= 0x20 && $0.value != 0x7F ? $0 : "?"
            }
            throw Failure(
                .invalidArgument,
                "\"\(String(String.UnicodeScalarView(shown)))\" is no interface: a name as eth0, a beginning as wlan*, or a network as 192.0.2.0/24"
            )
        }
        self = pattern
    }

    /// IFNAMSIZ, without the zero at the end.
    private static let longestName = 15

    private init?(_ text: Substring) {
        if let ip = IPAddress(String(text)) {
            self = .network(ip, bits: ip.isIPv4 ? 32 : 128)
            return
        }
        if let slash = text.firstIndex(of: "/") {
            let digits = text[text.index(after: slash)...]
            guard let ip = IPAddress(String(text[..<slash])), digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
                digits.count == 1 || !digits.hasPrefix("0"), let bits = UInt8(digits), bits <= (ip.isIPv4 ? 32 : 128)
            else { return nil }
            self = .network(ip.prefix(bits), bits: bits)
            return
        }
        let isPrefix = text.hasSuffix("*")
        let name = isPrefix ? text.dropLast() : text
        // The system's own rule: no slash, no white space, and not one of the two folders.
        guard isPrefix || !name.isEmpty, name.utf8.count <= InterfacePattern.longestName, name != ".", name != "..",
            name.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "*") })
        else { return nil }
        self = isPrefix ? .prefix(String(name)) : .name(String(name))
    }

    /// Whether an address of an interface with that name is meant.
    func matches(_ ip: IPAddress, on name: String) -> Bool {
        switch self {
        case .name(let wanted): name == wanted
        case .prefix(let beginning): name.hasPrefix(beginning)
        case .network(let network, let bits): ip.isIPv4 == network.isIPv4 && ip.prefix(bits) == network.prefix(bits)
        }
    }
}

extension IPAddress {
    /// With all but the first `bits` cleared, which an IPv4 address counts from its own beginning.
    func prefix(_ bits: UInt8) -> IPAddress {
        let kept = isIPv4 ? 96 &+ Int(bits) : Int(bits)
        // Shifts by as much as the width or more give zero in Swift.
        return IPAddress(
            high: kept >= 64 ? high : high & ~(UInt64.max >> kept),
            low: kept >= 128 ? low : kept <= 64 ? 0 : low & ~(UInt64.max >> (kept - 64)))
    }
}

/// Which interfaces may be used: if any are allowed, only those, and never those that are denied.
struct InterfaceLists: Equatable {
    var allowed: [InterfacePattern] = []
    var denied: [InterfacePattern] = []

    init(allowed: [InterfacePattern] = [], denied: [InterfacePattern] = []) {
        self.allowed = allowed
        self.denied = denied
    }

    init(_ configuration: Configuration) {
        self.init(allowed: configuration.allowedInterfaces, denied: configuration.deniedInterfaces)
    }

    var isEmpty: Bool { allowed.isEmpty && denied.isEmpty }

    func permits(_ ip: IPAddress, on name: String) -> Bool {
        guard allowed.isEmpty || allowed.contains(where: { $0.matches(ip, on: name) }) else { return false }
        return !denied.contains { $0.matches(ip, on: name) }
    }
}

extension NetworkSnapshot {
    /// Without the addresses that may not be used, and without ways out over interfaces that have no others.
    func restricted(to lists: InterfaceLists) -> NetworkSnapshot {
        guard !lists.isEmpty else { return self }
        var result = self
        result.addresses.removeAll { address in
            !lists.permits(address.ip, on: interfaces[address.interface]?.name ?? "")
        }
        let hasAddress = { (route: Route, isIPv4: Bool) in
            result.addresses.contains { $0.interface == route.interface && $0.ip.isIPv4 == isIPv4 }
        }
        result.routeIPv4 = routeIPv4.flatMap { hasAddress($0, true) ? $0 : nil }
        result.routeIPv6 = routeIPv6.flatMap { hasAddress($0, false) ? $0 : nil }
        return result
    }
}
