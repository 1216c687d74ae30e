import CSystem
import Wire

/// One family on one interface, on which others can be asked for names.
struct MulticastLink: Hashable {
    /// 0: the system chooses.
    var interface: UInt32
    var isIPv4: Bool

    /// RFC 6762 section 3.
    var group: SocketAddress {
        let ip = isIPv4 ? IPAddress(v4: 0xE000_00FB) : IPAddress(high: 0xFF02_0000_0000_0000, low: 0xFB)
        return SocketAddress(ip: ip, port: MulticastQuestions.port)
    }
}

extension NetworkSnapshot {
    /// More are not asked on.
    static let maximumMulticastLinks = 16

    /// Interfaces with addresses, those that lead out first; loopback only where there is nothing else.
    var multicastLinks: [MulticastLink] {
        let usable = usable.filter { !$0.ip.isLoopback && interfaces[$0.interface]?.isLoopback != true }
        let addresses = usable.isEmpty ? self.usable : usable
        let leading = [routeIPv4?.interface, routeIPv6?.interface]
        let ordered =
            addresses.filter { leading.contains($0.interface) } + addresses.filter { !leading.contains($0.interface) }
        var seen = Set<MulticastLink>()
        let links = ordered.map {
            MulticastLink(interface: hasSystemIndices ? $0.interface : 0, isIPv4: $0.ip.isIPv4)
        }
        return Array(links.filter { seen.insert($0).inserted }.prefix(NetworkSnapshot.maximumMulticastLinks))
    }
}

/// Asks on the local link who has a name that ends with ".local" (RFC 6762), as browsers put into candidates instead of
/// their addresses. It never asks anyone else. It has sockets only while a name is asked for.
///
/// Belongs to the loop: keep ``nextTimeout``.
final class MulticastResolver {
    /// What became of a name that was asked for, in lower case; no addresses: nobody has it.
    var resolved: (_ name: String, _ addresses: [IPAddress], _ now: Instant) -> Void = { _, _, _ in }

    private let questions: MulticastQuestions
    private let watch: any DescriptorWatch
    private let links: () -> [MulticastLink]
    private var sockets: [Int32: Socket] = [:]
    private var isClosed = false
    private static let packetRoom = 9000

    private struct Socket {
        var link: MulticastLink
        /// It hears what is sent to the group; otherwise answers to itself only.
        var isMember: Bool
    }

    /// `links`: where to ask, each time anew. `random` must not be guessable.
    init(
        watch: any DescriptorWatch, links: @escaping () -> [MulticastLink],
        settings: MulticastQuestions.Settings = MulticastQuestions.Settings(),
        random: any RandomNumberGenerator = SystemRandomNumberGenerator()
    ) {
        self.watch = watch
        self.links = links
        questions = MulticastQuestions(settings, random: random)
    }

    deinit { closeSockets() }

    var statistics: MulticastQuestions.Statistics { questions.statistics }

    /// Asks, unless it is known or asked for already; then ``resolved`` tells.
    func resolve(_ name: String, now: Instant) -> MulticastQuestions.Reply {
        guard !isClosed else { return .refused }
        let wasIdle = questions.isIdle
        let reply = questions.ask(name, now: now)
        if reply == .asked, wasIdle, sockets.isEmpty { openSockets() }
        transmit()
        return reply
    }

    var nextTimeout: Instant? { isClosed ? nil : questions.nextTimeout }

    func handleTimeout(now: Instant) {
        guard !isClosed else { return }
        questions.handleTimeout(now: now)
        work(now)
    }

    /// Interfaces or addresses are others.
    func networkChanged(now: Instant) {
        guard !isClosed else { return }
        questions.networkChanged()
        closeSockets()
        if !questions.isIdle { openSockets() }
        work(now)
    }

    /// Ends everything; nothing is told.
    func close() {
        isClosed = true
        closeSockets()
    }

    private func work(_ now: Instant) {
        transmit()
        while let event = questions.pollEvent() { resolved(event.name, event.addresses, now) }
        if questions.isIdle { closeSockets() }
    }

    // MARK: Sockets

    private func openSockets() {
        for link in Set(links()) {
            // Answers go to the group, or where the question came from if that was not the group's port (RFC 6762 section
            // 6.7); Chromium's go to the group always. Without the group, at least others are heard.
            if !open(link, isMember: true) { _ = open(link, isMember: false) }
        }
    }

    private func open(_ link: MulticastLink, isMember: Bool) -> Bool {
        var group = link.group.system
        let descriptor = unsafe cs_multicast_open(&group, link.interface, isMember ? 1 : 0)
        guard descriptor >= 0 else { return false }
        guard watch.watch(descriptor, writable: false, by: self) else {
            cs_close(descriptor)
            return false
        }
        sockets[descriptor] = Socket(link: link, isMember: isMember)
        return true
    }

    private func closeSockets() {
        for descriptor in sockets.keys {
            watch.unwatch(descriptor)
            cs_close(descriptor)
        }
        sockets = [:]
    }

    private func transmit() {
        withUnsafeTemporaryAllocation(byteCount: 512, alignment: 16) { buffer in
            while true {
                var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
                let isThere = questions.pollTransmit(into: &output)
                let count = unsafe output.finalize(for: buffer)
                guard isThere else { return }
                for (descriptor, socket) in sockets {
                    var group = socket.link.group.system
                    _ = unsafe cs_multicast_send(
                        descriptor, &group, socket.link.interface, buffer.baseAddress, UInt32(count))
                }
            }
        }
    }
}

extension MulticastResolver: DescriptorOwner {
    func ready(_ descriptor: Int32, now: Instant) {
        guard !isClosed, let socket = sockets[descriptor] else { return }
        withUnsafeTemporaryAllocation(byteCount: MulticastResolver.packetRoom, alignment: 16) { buffer in
            for _ in 0..<32 {
                var from = cs_address()
                let count = unsafe cs_multicast_receive(descriptor, buffer.baseAddress, UInt32(buffer.count), &from)
                guard count >= 0 else { return }
                let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer[..<min(Int(count), buffer.count)])
                unsafe questions.handle(
                    bytes.bytes, from: SocketAddress(from), isToGroup: socket.isMember, now: now)
            }
        }
        work(now)
    }
}
