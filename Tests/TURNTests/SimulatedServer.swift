import STUN
import Wire

@testable import TURN

func address(_ ip: String, _ port: UInt16) -> SocketAddress { SocketAddress(ip: IPAddress(ip)!, port: port) }

func copied(_ span: RawSpan?) -> [UInt8]? {
    guard let span else { return nil }
    return span.copied()
}

/// Lets `body` write into a buffer.
func written(_ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: 70_000) { buffer, count in
        let bytes = UnsafeMutableRawBufferPointer(buffer)
        var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
        body(&output)
        count = output.finalize(for: bytes)
    }
}

/// A TURN server (RFC 8656) with what its side checks, and with its faults.
final class SimulatedServer {
    struct Held {
        var username: String
        var relayed: [SocketAddress]
        var expires: Instant
        var ticket: [UInt8]?
        var permissions: [IPAddress: Instant] = [:]
        var channels: [UInt16: (peer: SocketAddress, until: Instant)] = [:]
        /// RFC 8656 section 12: number and peer stay together for 5 minutes after the end.
        var rests: [UInt16: (peer: SocketAddress, until: Instant)] = [:]
    }

    let address: SocketAddress
    var realm = "example.org"
    var users = ["alice": "secret"]
    /// Users that are no more.
    var ended = Set<String>()
    var asksForCredentials = true
    /// Another nonce after so long.
    var nonceLife = Duration.seconds(3600)
    /// Every request gets 438.
    var nonceIsAlwaysStale = false
    var passwordAlgorithms: [UInt8] = []
    var nonceCookie = ""
    var hidesUsername = false
    var signsErrors = true
    var lifetime = Duration.seconds(600)
    var hasIPv4 = true
    var hasIPv6 = true
    var knowsAdditionalFamily = true
    var isMobile = false
    var allowsOtherUsers = false
    /// Answers by method, instead of what would be right.
    var refusals: [UInt16: Int] = [:]
    var unknown: [UInt16] = []
    var alternate: SocketAddress?
    var alternateDomain: String?
    var forbiddenPeers = Set<IPAddress>()
    var isSilent = false
    /// Changes what is sent.
    var tamper: (([UInt8]) -> [UInt8])?

    var held: [SocketAddress: Held] = [:]
    var requests: [(at: Instant, method: UInt16, bytes: [UInt8])] = []
    var indications = 0
    var channelData = 0
    var bindings = 0
    private var nonceMadeAt = Instant(nanoseconds: 0)
    private var nonceNumber = 0
    private var nextPort: UInt16 = 50_000
    private var tickets = 0
    private var answered: [TransactionID: [UInt8]] = [:]
    /// What the relay sends to peers.
    var toPeers: [(from: SocketAddress, to: SocketAddress, data: [UInt8])] = []

    init(_ address: SocketAddress) { self.address = address }

    func count(_ method: UInt16) -> Int { requests.filter { $0.method == method }.count }

    func forget() {
        held = [:]
        answered = [:]
    }

    private func nonce(_ now: Instant) -> String {
        if now - nonceMadeAt > nonceLife {
            nonceMadeAt = now
            nonceNumber += 1
        }
        return "\(nonceCookie)nonce-\(nonceNumber)"
    }

    /// What arrives from a client; what it is answered.
    func handle(_ bytes: [UInt8], from client: SocketAddress, now: Instant) -> [UInt8]? {
        guard !isSilent else { return nil }
        if let first = bytes.first, first >> 6 == 1 {
            channelData(bytes, client, now)
            return nil
        }
        guard let message = try? Message(bytes.span.bytes) else { return nil }
        if message.messageClass == .indication {
            if message.method == MessageType.binding { bindings += 1 } else { indication(message, client, now) }
            return nil
        }
        guard message.messageClass == .request else { return nil }
        requests.append((now, message.method, bytes))
        // A retransmission gets the same answer.
        if let before = answered[message.transactionID] { return before }
        let answer = answer(message, client, now)
        let sent = tamper?(answer) ?? answer
        if answered.count > 10_000 { answered = [:] }
        answered[message.transactionID] = answer
        return sent
    }

    private func answer(_ message: borrowing Message, _ client: SocketAddress, _ now: Instant) -> [UInt8] {
        if let alternate, message.method == MessageType.allocate {
            let domain = alternateDomain
            return error(message, 300, nil) { writer, output in
                writer.append(.alternateServer, alternate, to: &output)
                if let domain { writer.append(.alternateDomain, Array(domain.utf8), to: &output) }
            }
        }
        guard asksForCredentials else { return serve(message, client, "", nil, now) }
        let nonce = nonce(now)
        let challenge = { (writer: inout MessageWriter, output: inout OutputRawSpan) in
            writer.append(.realm, Array(self.realm.utf8), to: &output)
            writer.append(.nonce, Array(nonce.utf8), to: &output)
            if !self.passwordAlgorithms.isEmpty {
                writer.append(.passwordAlgorithms, self.passwordAlgorithms, to: &output)
            }
        }
        guard message.integrityAlgorithm != nil else { return error(message, 401, nil, challenge) }
        if nonceIsAlwaysStale || copied(message.nonce) != Array(nonce.utf8) {
            return error(message, 438, nil, challenge)
        }
        guard let user = user(message), !ended.contains(user), let password = users[user] else {
            return error(message, 401, nil, challenge)
        }
        var algorithm = IntegrityAlgorithm.sha1
        if !passwordAlgorithms.isEmpty {
            guard copied(message.value(of: .passwordAlgorithms)) == passwordAlgorithms,
                let chosen = copied(message.value(of: .passwordAlgorithm))
            else { return error(message, 400, nil) }
            algorithm = chosen == [0, 2, 0, 0] ? .sha256 : .sha1
            guard message.integrityAlgorithm == .sha256 else { return error(message, 401, nil, challenge) }
        }
        let key = IntegrityKey(username: user, realm: realm, password: password, algorithm: algorithm)
        guard message.isAuthentic(key) else { return error(message, 401, nil, challenge) }
        if let before = held[client], before.username != user, !allowsOtherUsers { return error(message, 441, key) }
        return serve(message, client, user, key, now)
    }

    private func user(_ message: borrowing Message) -> String? {
        if hidesUsername {
            let hash = copied(message.value(of: .userhash))
            return users.keys.first { userhash(username: $0, realm: realm) == hash }
        }
        return copied(message.username).map { String(decoding: $0, as: UTF8.self) }
    }

    private func serve(
        _ message: borrowing Message, _ client: SocketAddress, _ user: String, _ key: IntegrityKey?, _ now: Instant
    ) -> [UInt8] {
        if let code = refusals[message.method] {
            let unknown = unknown
            return error(message, code, signsErrors ? key : nil) { writer, output in
                guard code == 420 else { return }
                var types = UnknownAttributes()
                for type in unknown { types.append(type) }
                writer.append(unknown: types, to: &output)
            }
        }
        if let expires = held[client]?.expires, expires <= now { held[client] = nil }
        switch message.method {
        case MessageType.allocate: return allocate(message, client, user, key, now)
        case MessageType.refresh: return refresh(message, client, user, key, now)
        case MessageType.createPermission: return permit(message, client, key, now)
        case MessageType.channelBind: return bind(message, client, key, now)
        default: return error(message, 400, key)
        }
    }

    private func allocate(
        _ message: borrowing Message, _ client: SocketAddress, _ user: String, _ key: IntegrityKey?, _ now: Instant
    ) -> [UInt8] {
        guard held[client] == nil else { return error(message, 437, key) }
        guard copied(message.value(of: .requestedTransport)) == [17, 0, 0, 0] else { return error(message, 442, key) }
        let wantsIPv6 = message.value(of: .requestedAddressFamily) != nil
        let wantsBoth = message.value(of: .additionalAddressFamily) != nil && knowsAdditionalFamily
        var relayed: [SocketAddress] = []
        nextPort += 2
        if !wantsIPv6, hasIPv4 { relayed.append(TURNTests.address("203.0.113.1", nextPort)) }
        if wantsIPv6 || wantsBoth, hasIPv6 { relayed.append(TURNTests.address("2001:db8:5::1", nextPort)) }
        guard !relayed.isEmpty else { return error(message, 440, key) }
        var new = Held(username: user, relayed: relayed, expires: now + lifetime)
        if isMobile, message.value(of: .mobilityTicket) != nil { new.ticket = ticket() }
        held[client] = new
        let seconds = UInt32(lifetime.milliseconds / 1000)
        let hasNoIPv6 = !hasIPv6
        return success(message, key) { writer, output in
            for address in relayed { writer.append(.xorRelayedAddress, address, to: &output) }
            writer.append(.lifetime, seconds, to: &output)
            writer.append(.xorMappedAddress, client, to: &output)
            if let ticket = new.ticket { writer.append(.mobilityTicket, ticket, to: &output) }
            if wantsBoth, hasNoIPv6 { writer.append(.addressErrorCode, 0x0200_0428 as UInt32, to: &output) }
        }
    }

    private func ticket() -> [UInt8] {
        tickets += 1
        return Array("ticket-\(tickets)".utf8)
    }

    private func refresh(
        _ message: borrowing Message, _ client: SocketAddress, _ user: String, _ key: IntegrityKey?, _ now: Instant
    ) -> [UInt8] {
        var new: [UInt8]?
        if let ticket = copied(message.value(of: .mobilityTicket)) {
            guard let old = held.first(where: { $0.value.ticket == ticket && $0.value.expires > now }) else {
                return error(message, 437, key)
            }
            guard old.value.username == user else { return error(message, 441, key) }
            held[old.key] = nil
            held[client] = old.value
            new = self.ticket()
            held[client]?.ticket = new
        }
        guard held[client] != nil else { return error(message, 437, key) }
        let seconds = message.lifetime == 0 ? 0 : UInt32(lifetime.milliseconds / 1000)
        if seconds == 0 { held[client] = nil } else { held[client]?.expires = now + lifetime }
        return success(message, key) { writer, output in
            writer.append(.lifetime, seconds, to: &output)
            if let new { writer.append(.mobilityTicket, new, to: &output) }
        }
    }

    private func permit(
        _ message: borrowing Message, _ client: SocketAddress, _ key: IntegrityKey?, _ now: Instant
    ) -> [UInt8] {
        guard held[client] != nil else { return error(message, 437, key) }
        let peers = SimulatedServer.peers(message)
        guard !peers.isEmpty else { return error(message, 400, key) }
        guard !peers.contains(where: forbiddenPeers.contains) else { return error(message, 403, key) }
        for peer in peers { held[client]?.permissions[peer] = now + .seconds(300) }
        return success(message, key)
    }

    static func peers(_ message: borrowing Message) -> [IPAddress] {
        var peers: [IPAddress] = []
        // Read one at a time from a message of one, as the module reads only the first.
        let id = message.transactionID
        var index = 0
        while let value = copied(message.value(of: .xorPeerAddress, index)) {
            index += 1
            let one = written { output in
                var writer = MessageWriter(.indication, id: id, to: &output)
                writer.append(.xorPeerAddress, value, to: &output)
                writer.finish(nil, fingerprint: false, to: &output)
            }
            if let single = try? Message(one.span.bytes), let peer = single.xorPeerAddress { peers.append(peer.ip) }
        }
        return peers
    }

    private func bind(
        _ message: borrowing Message, _ client: SocketAddress, _ key: IntegrityKey?, _ now: Instant
    ) -> [UInt8] {
        guard let held = held[client] else { return error(message, 437, key) }
        guard let peer = message.xorPeerAddress, let value = copied(message.value(of: .channelNumber)), value.count == 4
        else { return error(message, 400, key) }
        let number = UInt16(value[0]) << 8 | UInt16(value[1])
        guard !forbiddenPeers.contains(peer.ip) else { return error(message, 403, key) }
        let isOther = held.rests.contains {
            $0.value.until > now && ($0.key == number) != ($0.value.peer == peer)
        }
        guard (0x4000...0x4FFF).contains(number), !isOther else { return error(message, 400, key) }
        self.held[client]?.channels[number] = (peer, now + .seconds(600))
        self.held[client]?.rests[number] = (peer, now + .seconds(900))
        self.held[client]?.permissions[peer.ip] = now + .seconds(300)
        return success(message, key)
    }

    private func indication(_ message: borrowing Message, _ client: SocketAddress, _ now: Instant) {
        guard message.method == MessageType.send, let peer = message.xorPeerAddress,
            let data = copied(message.value(of: .data))
        else { return }
        indications += 1
        relay(data, to: peer, client, now)
    }

    private func channelData(_ bytes: [UInt8], _ client: SocketAddress, _ now: Instant) {
        guard bytes.count >= 4 else { return }
        let number = UInt16(bytes[0]) << 8 | UInt16(bytes[1])
        let length = Int(bytes[2]) << 8 | Int(bytes[3])
        guard bytes.count >= 4 + length, let channel = held[client]?.channels[number], channel.until > now else {
            return
        }
        channelData += 1
        relay(Array(bytes[4..<(4 + length)]), to: channel.peer, client, now)
    }

    private func relay(_ data: [UInt8], to peer: SocketAddress, _ client: SocketAddress, _ now: Instant) {
        guard let held = held[client], held.expires > now, let until = held.permissions[peer.ip], until > now,
            let from = held.relayed.first(where: { $0.ip.isIPv4 == peer.ip.isIPv4 })
        else { return }
        toPeers.append((from, peer, data))
    }

    /// What a peer's datagram to a relayed address becomes, and for whom.
    func fromPeer(
        _ data: [UInt8], from peer: SocketAddress, to relayed: SocketAddress, isStream: Bool, now: Instant
    ) -> (bytes: [UInt8], to: SocketAddress)? {
        guard let (client, held) = held.first(where: { $0.value.relayed.contains(relayed) }), held.expires > now,
            let until = held.permissions[peer.ip], until > now
        else { return nil }
        if let channel = held.channels.first(where: { $0.value.peer == peer && $0.value.until > now }) {
            let padding = isStream ? -data.count & 3 : 0
            let number = channel.key
            return (
                [UInt8(number >> 8), UInt8(number & 0xFF), UInt8(data.count >> 8), UInt8(data.count & 0xFF)] + data
                    + [UInt8](repeating: 0, count: padding), client
            )
        }
        return (SimulatedServer.dataIndication(data, from: peer), client)
    }

    static func dataIndication(_ data: [UInt8], from peer: SocketAddress) -> [UInt8] {
        written { output in
            let id = TransactionID(high: 7, low: 7)
            var writer = MessageWriter(.indication, method: MessageType.data, id: id, to: &output)
            writer.append(.xorPeerAddress, peer, to: &output)
            writer.append(.data, data, to: &output)
            writer.finish(nil, fingerprint: false, to: &output)
        }
    }

    private func success(
        _ message: borrowing Message, _ key: IntegrityKey?,
        _ body: (inout MessageWriter, inout OutputRawSpan) -> Void = { _, _ in }
    ) -> [UInt8] { make(.success, message, key, body) }

    private func error(
        _ message: borrowing Message, _ code: Int, _ key: IntegrityKey?,
        _ body: (inout MessageWriter, inout OutputRawSpan) -> Void = { _, _ in }
    ) -> [UInt8] {
        make(.error, message, signsErrors ? key : nil) { writer, output in
            writer.append(errorCode: code, to: &output)
            body(&writer, &output)
        }
    }

    private func make(
        _ messageClass: MessageClass, _ message: borrowing Message, _ key: IntegrityKey?,
        _ body: (inout MessageWriter, inout OutputRawSpan) -> Void
    ) -> [UInt8] {
        let method = message.method
        let id = message.transactionID
        let algorithm = message.integrityAlgorithm ?? .sha1
        return written { output in
            var writer = MessageWriter(messageClass, method: method, id: id, to: &output)
            body(&writer, &output)
            writer.finish(key, algorithm, to: &output)
        }
    }
}
