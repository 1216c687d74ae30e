import CSystem
import Coturn
import Glibc
import ICE
import TURN
import Testing
import Wire

@testable import Engine

func turnServer(_ url: String, user: String = "alice", password: String = "secret") throws -> TURNServer {
    try TURNServer(url: url, credentials: .password(username: user, password: password, expires: nil))
}

extension RealServer {
    /// Its URL, by the name or address given.
    func url(_ transport: RelayTransport = .udp, _ host: String = "127.0.0.1") -> String {
        switch transport {
        case .udp: "turn:\(host):\(port)"
        case .tcp: "turn:\(host):\(port)?transport=tcp"
        case .tls: "turns:\(host):\(tlsPort)"
        }
    }
}

/// What the system says of ways.
final class Ways {
    /// Instead of its answer, and where datagrams come from then.
    var other: IPAddress?

    func source(_ address: SocketAddress) -> IPAddress? { other ?? RelayEnvironment.systemSource(address) }
}

/// What the loop is to relays: one port, its environment, its groups, and what they tell.
final class RelayHost: DescriptorWatch {
    private(set) var environment: RelayEnvironment! = nil
    private(set) var group: RelayGroup! = nil
    let port: Port
    private let ways: Ways
    private(set) var events: [RelayEvent] = []
    private(set) var delivered: [(peer: SocketAddress, relayed: SocketAddress, data: [UInt8])] = []
    /// Datagrams on the port that were no server's.
    private(set) var others: [[UInt8]] = []
    private var watched: [Int32: (writable: Bool, owner: any DescriptorOwner)] = [:]
    private let receiver = cs_receiver_create()
    private var storage = [UInt8](repeating: 0, count: 70_000)

    /// `names`: what they resolve to; others have no address.
    init(
        _ servers: [TURNServer] = [], names: [String: [String]] = [:], bind: String = "::",
        ways: Ways = Ways(),
        _ adjust: (inout RelayEnvironment.Settings) -> Void = { _ in }
    ) throws {
        self.ways = ways
        port = try Port.open(SocketAddress(ip: IPAddress(bind)!, port: 0))
        var settings = RelayEnvironment.Settings()
        settings.families = .ipv4
        adjust(&settings)
        let found: @Sendable (String) -> [IPAddress] = { name in (names[name] ?? []).compactMap { IPAddress($0) } }
        environment = RelayEnvironment(settings, watch: self, source: ways.source, lookUp: found)
        startGroup()
        environment.setServers(servers, now: monotonicTime())
    }

    /// Another one on the same port; the one before, if any, is forgotten as in a crash.
    func startGroup() {
        group = RelayGroup(environment, port: port, now: monotonicTime())
        group.deliver = { [unowned self] in delivered.append(($0, $1, $2.copied())) }
    }

    func setServers(_ servers: [TURNServer]) { environment.setServers(servers, now: monotonicTime()) }

    deinit { cs_receiver_destroy(receiver) }

    func watch(_ descriptor: Int32, writable: Bool, by owner: any DescriptorOwner) -> Bool {
        watched[descriptor] = (writable, owner)
        return true
    }

    func unwatch(_ descriptor: Int32) { watched[descriptor] = nil }

    var watchedCount: Int { watched.count }

    func flush() {
        while true {
            var to: SocketAddress?
            let count = storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                to = group.pollTransmit(into: &output, now: monotonicTime())
                return output.finalize(for: buffer)
            }
            guard let to else { break }
            put(Array(storage[..<count]), to: to)
        }
        while let event = group.pollEvent() { events.append(event) }
    }

    /// From the port, whoever it is for.
    func put(_ bytes: [UInt8], to: SocketAddress) {
        let sender = cs_sender_create()
        defer { cs_sender_destroy(sender) }
        guard let room = cs_sender_next(sender), bytes.count <= CS_PACKET_ROOM else { return }
        for (index, byte) in bytes.enumerated() { room[index] = byte }
        var to = to.system
        var from = SocketAddress(ip: ways.other ?? .anyIPv6, port: 0).system
        cs_sender_commit(sender, port.descriptor, port.isIPv4 ? 1 : 0, UInt32(bytes.count), &to, &from)
        var sent: UInt64 = 0
        var refused: UInt64 = 0
        cs_sender_flush(sender, &sent, &refused)
    }

    /// One turn of the loop.
    func turn(_ limit: Wire.Duration = .milliseconds(20)) {
        flush()
        let now = monotonicTime()
        let due = [group.nextTimeout, environment.nextTimeout].compactMap { $0 }.min()
        let left = max(.zero, min(limit, due.map { $0 - now } ?? limit))
        var entries = [pollfd(fd: port.descriptor, events: Int16(POLLIN), revents: 0)]
        for (descriptor, entry) in watched {
            entries.append(
                pollfd(fd: descriptor, events: Int16(entry.writable ? POLLIN | POLLOUT : POLLIN), revents: 0))
        }
        _ = poll(&entries, nfds_t(entries.count), Int32((left.nanoseconds + 999_999) / 1_000_000))
        if entries[0].revents != 0 { receive() }
        for entry in entries.dropFirst() where entry.revents != 0 {
            watched[entry.fd]?.owner.ready(entry.fd, now: monotonicTime())
        }
        if let due = group.nextTimeout, due <= monotonicTime() { group.handleTimeout(now: monotonicTime()) }
        if let due = environment.nextTimeout, due <= monotonicTime() { environment.handleTimeout(now: monotonicTime()) }
        flush()
    }

    private func receive() {
        var datagrams: UnsafePointer<cs_datagram>?
        let count = cs_receive(receiver, port.descriptor, &datagrams)
        guard count > 0, let datagrams else { return }
        for index in 0..<Int(count) {
            let datagram = datagrams[index]
            var offset = 0
            while offset < Int(datagram.size) {
                let size = min(Int(max(datagram.segment, 1)), Int(datagram.size) - offset)
                let bytes = Array(UnsafeRawBufferPointer(start: datagram.data + offset, count: size))
                offset += size
                let isOurs = group.handle(bytes.span.bytes, from: SocketAddress(datagram.from), now: monotonicTime()) {
                    delivered.append(($0, $1, $2.copied()))
                }
                if !isOurs { others.append(bytes) }
            }
        }
    }

    /// Runs until it is as wanted.
    func run(
        _ what: String, with other: RelayHost? = nil, until isDone: (RelayHost) -> Bool
    ) throws {
        let limit = monotonicTime() + patience
        while !isDone(self) {
            guard monotonicTime() < limit else {
                throw Overdue(what: "\(what); events \(events), \(environment.statistics())")
            }
            turn(other == nil ? .milliseconds(20) : .milliseconds(2))
            other?.turn(.milliseconds(2))
        }
    }

    /// Its first relayed address.
    @discardableResult
    func relayed(_ count: Int = 1) throws -> SocketAddress {
        try run("\(count) candidates") { $0.group.candidates.count >= count }
        return group.candidates[0].address
    }

    func send(_ data: [UInt8], from relayed: SocketAddress, to peer: SocketAddress) {
        _ = sends(data, from: relayed, to: peer)
        flush()
    }

    func sends(_ data: [UInt8], from relayed: SocketAddress, to peer: SocketAddress) -> Bool {
        group.send(data.span.bytes, from: relayed, to: peer, now: monotonicTime())
    }

    var failures: [(url: String, status: Status)] {
        events.compactMap { if case .failed(let url, let status, _) = $0 { (url, status) } else { nil } }
    }

    var losses: [SocketAddress] {
        events.compactMap { if case .lost(let relayed) = $0 { relayed } else { nil } }
    }

    var allocations: [String] {
        events.compactMap { if case .allocated(let url, _, _) = $0 { url } else { nil } }
    }

    func forgetDelivered() { delivered = [] }

    /// Data both ways between two relays, until channels are used.
    func exchange(with other: RelayHost, rounds: Int = 20) throws {
        let (mine, theirs) = (try relayed(), try other.relayed())
        for round in 0..<rounds {
            let data = [UInt8](repeating: UInt8(round), count: 1 + round * 57)
            func isHere() -> Bool {
                delivered.contains { $0.peer == theirs && $0.relayed == mine && $0.data == data }
            }
            func isThere() -> Bool {
                other.delivered.contains { $0.peer == mine && $0.relayed == theirs && $0.data == data }
            }
            // What comes before the other side's permission is lost, as on any network.
            let limit = monotonicTime() + patience
            while !isHere() || !isThere() {
                guard monotonicTime() < limit else {
                    throw Overdue(
                        what:
                            "data of round \(round), \(mine) \(theirs) \(group.dropped) \(environment.statistics()) \(group.legs.map(\.client.statistics)) \(other.environment.statistics()) \(other.group.legs.map(\.client.statistics))"
                    )
                }
                if !isThere() { send(data, from: mine, to: theirs) }
                if !isHere() { other.send(data, from: theirs, to: mine) }
                turn(.milliseconds(5))
                other.turn(.milliseconds(5))
            }
        }
    }
}
