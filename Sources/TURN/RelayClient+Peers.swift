import STUN
public import Wire

/// RFC 8656 section 12: channels have these numbers.
let firstChannel: UInt16 = 0x4000
let lastChannel: UInt16 = 0x4FFF

/// Whether a peer's address may send and be sent to (RFC 8656 section 9).
struct Permission {
    /// In the queue or in a request.
    var isAsked = false
    /// The request has been sent once: what follows it finds the permission there.
    var wasSent = false
    var until: Instant?
    var refreshAt: Instant?
    /// A request with others was refused: who of them it was shows only alone.
    var isAlone = false
    var silences = 0

    func isUsable(_ now: Instant) -> Bool { wasSent || until.map { $0 > now } ?? false }
}

/// A number for a peer (RFC 8656 section 12).
struct Channel {
    let number: UInt16
    var isWanted = true
    var isAsked = false
    var until: Instant?
    var refreshAt: Instant?
    /// The server may hold it until then; RFC 8656 section 12: number and peer stay together for 5 minutes more.
    var lingersUntil: Instant?
    var silences = 0

    func isBound(_ now: Instant) -> Bool { until.map { $0 > now } ?? false }
}

extension RelayClient {
    /// RFC 8656 section 12.
    private static let channelRest = Duration.seconds(300)
    /// Refreshes that are due within this go together.
    private static let together = Duration.seconds(15)
    /// Requests for one peer that may stay unanswered.
    private static let maximumSilences = 3

    /// Lets this address's datagrams through, and keeps that up. Before there is an allocation too: it is asked for
    /// then. Those that are wanted before ``pollTransmit(into:now:)`` is called go in one request.
    public func permit(_ peer: IPAddress, now: Instant) -> Acceptance {
        if permissions[peer] != nil { return .present }
        guard !peer.isUnspecified, !peer.isMulticast, hasFamily(of: peer), !isDone else { return .unusable }
        guard permissions.count < configuration.maximumPermissions else { return .tooMany }
        var permission = Permission()
        permission.isAsked = true
        permissions[peer] = permission
        wantedPermissions.append(peer)
        if wantedPermissions.count > 2 * configuration.maximumPermissions + 16 { compactWanted() }
        return .accepted
    }

    /// What was forbidden again before it was asked for.
    private func compactWanted() {
        var seen = Set<IPAddress>()
        wantedPermissions = Queue(
            wantedPermissions.filter { permissions[$0]?.isAsked == true && seen.insert($0).inserted })
    }

    /// Whether datagrams go both ways between this address and the relay.
    public func isPermitted(_ peer: IPAddress, now: Instant) -> Bool {
        permissions[peer]?.until.map { $0 > now } ?? false
    }

    /// Asks for this permission no more: it ends by itself (RFC 8656 section 9), and so do its channels.
    public func forbid(_ peer: IPAddress) {
        permissions[peer] = nil
        for (address, channel) in channels where address.ip == peer && channel.isWanted { releaseChannel(address) }
    }

    /// Saves 32 bytes and more with each datagram. Implies ``permit(_:now:)``.
    public func bindChannel(_ peer: SocketAddress, now: Instant) -> Acceptance {
        if channels[peer]?.isWanted == true { return .present }
        guard peer.port != 0, hasFamily(of: peer.ip) else { return .unusable }
        guard activeChannels < configuration.maximumChannels else { return .tooMany }
        switch permit(peer.ip, now: now) {
        case .accepted, .present: break
        case let refusal: return refusal
        }
        if var channel = channels[peer] {
            // Number and peer are still together.
            channel.isWanted = true
            channel.silences = 0
            if !channel.isAsked { channel.refreshAt = nil }
            channels[peer] = channel
        } else {
            guard let number = freeChannel() else { return .tooMany }
            channels[peer] = Channel(number: number)
            channelPeers[number] = peer
        }
        activeChannels += 1
        wantChannel(peer)
        return .accepted
    }

    /// Whether datagrams for this peer go over a channel.
    public func isChannelBound(_ peer: SocketAddress, now: Instant) -> Bool { channels[peer]?.isBound(now) ?? false }

    /// Binds it no more. Until it has ended it still is used.
    public func releaseChannel(_ peer: SocketAddress) {
        guard var channel = channels[peer], channel.isWanted else { return }
        activeChannels -= 1
        channel.isWanted = false
        channel.refreshAt = nil
        channels[peer] = channel
        if channel.lingersUntil == nil, !channel.isAsked { removeChannel(peer) } else { armChannels() }
    }

    private var isDone: Bool {
        switch phase {
        case .closing, .closed: true
        default: false
        }
    }

    private func hasFamily(of peer: IPAddress) -> Bool {
        guard let allocation = held?.allocation else { return true }
        return allocation.relayed.contains { $0.ip.isIPv4 == peer.isIPv4 }
    }

    private func freeChannel() -> UInt16? {
        guard channelPeers.count < Int(lastChannel - firstChannel) + 1 else { return nil }
        while channelPeers[nextChannel] != nil { advanceChannel() }
        defer { advanceChannel() }
        return nextChannel
    }

    private func advanceChannel() { nextChannel = nextChannel == lastChannel ? firstChannel : nextChannel &+ 1 }

    private func removeChannel(_ peer: SocketAddress) {
        guard let channel = channels.removeValue(forKey: peer) else { return }
        channelPeers[channel.number] = nil
        if channel.isWanted { activeChannels -= 1 }
    }

    private func wantChannel(_ peer: SocketAddress) {
        guard channels[peer]?.isAsked == false else { return }
        channels[peer]?.isAsked = true
        wantedChannels.append(peer)
    }

    private func wantPermission(_ peer: IPAddress) {
        guard permissions[peer] != nil else { return }
        permissions[peer]?.isAsked = true
        wantedPermissions.append(peer)
    }

    // MARK: Asking

    /// Begins the requests that are due, as many as may be under way.
    func ask(_ now: Instant) {
        guard !wantedPermissions.isEmpty || !wantedChannels.isEmpty, isAllocated, !isAwaitingCredentials else { return }
        var permits = 0
        var binds = 0
        for transaction in transactions {
            switch transaction.request {
            case .permit: permits += 1
            case .bind: binds += 1
            default: break
            }
        }
        while permits < configuration.maximumRequests, !wantedPermissions.isEmpty, isAllocated {
            let peers = nextPermissions()
            guard !peers.isEmpty else { break }
            begin(.permit(peers), now)
            permits += 1
        }
        while binds < configuration.maximumRequests, isAllocated, let peer = wantedChannels.popFirst() {
            guard let channel = channels[peer], channel.isAsked else { continue }
            guard channel.isWanted, hasFamily(of: peer.ip) else {
                channels[peer]?.isAsked = false
                if channel.isWanted {
                    refuseChannel(peer, 443)
                } else if channel.lingersUntil == nil {
                    removeChannel(peer)
                }
                continue
            }
            begin(.bind(peer), now)
            binds += 1
        }
    }

    private func nextPermissions() -> [IPAddress] {
        var peers: [IPAddress] = []
        while peers.count < min(max(1, configuration.permissionsPerRequest), 64), let peer = wantedPermissions.first {
            guard let permission = permissions[peer], permission.isAsked, !peers.contains(peer) else {
                _ = wantedPermissions.popFirst()
                continue
            }
            guard hasFamily(of: peer) else {
                _ = wantedPermissions.popFirst()
                deny(peer, 443)
                continue
            }
            if permission.isAlone, !peers.isEmpty { break }
            _ = wantedPermissions.popFirst()
            peers.append(peer)
            if permission.isAlone { break }
        }
        return peers
    }

    func noteSent(_ request: Request) {
        guard case .permit(let peers) = request else { return }
        for peer in peers { permissions[peer]?.wasSent = true }
    }

    /// A request that will not be answered any more: what it asked for is asked again.
    func release(_ request: Request) {
        switch request {
        case .permit(let peers): for peer in peers where permissions[peer]?.isAsked == true { wantPermission(peer) }
        case .bind(let peer):
            guard channels[peer]?.isAsked == true else { return }
            channels[peer]?.isAsked = false
            wantChannel(peer)
        case .allocate, .refresh, .move, .deallocate, .reclaim: break
        }
    }

    // MARK: Answers

    func granted(_ peers: [IPAddress], _ now: Instant) {
        for peer in peers {
            guard var permission = permissions[peer] else { continue }
            let isNew = permission.until == nil
            permission.isAsked = false
            permission.isAlone = false
            permission.silences = 0
            permission.until = now + configuration.permissionLifetime
            permission.refreshAt =
                now + jittered(configuration.permissionLifetime - refreshMargin(configuration.permissionLifetime))
            permissions[peer] = permission
            if isNew { events.append(.permitted(peer)) }
        }
        armPermissions()
    }

    func bound(_ peer: SocketAddress, _ now: Instant) {
        guard var channel = channels[peer] else { return }
        let isNew = !channel.isBound(now)
        let lifetime = configuration.channelLifetime
        channel.isAsked = false
        channel.silences = 0
        channel.until = now + lifetime
        channel.lingersUntil = now + lifetime + RelayClient.channelRest
        channel.refreshAt = channel.isWanted ? now + jittered(lifetime - refreshMargin(lifetime)) : nil
        channels[peer] = channel
        if isNew, channel.isWanted { events.append(.channelBound(peer)) }
        armChannels()
    }

    private func refreshMargin(_ lifetime: Duration) -> Duration { min(configuration.refreshMargin, lifetime / 2) }

    func permitRefused(_ peers: [IPAddress], _ code: Int?) {
        guard peers.count > 1, code != nil else {
            for peer in peers { deny(peer, code) }
            return
        }
        // RFC 8656 section 10.2: one of them is enough for the whole request to be refused.
        for peer in peers where permissions[peer] != nil {
            permissions[peer]?.isAlone = true
            wantPermission(peer)
        }
    }

    private func deny(_ peer: IPAddress, _ code: Int?) {
        guard permissions.removeValue(forKey: peer) != nil else { return }
        events.append(.denied(peer, code: code))
    }

    func refuseChannel(_ peer: SocketAddress, _ code: Int?) {
        guard var channel = channels[peer] else { return }
        if channel.isWanted {
            activeChannels -= 1
            events.append(.channelRefused(peer, code: code))
        }
        channel.isAsked = false
        channel.isWanted = false
        channel.refreshAt = nil
        channels[peer] = channel
        if channel.lingersUntil == nil { removeChannel(peer) } else { armChannels() }
    }

    /// No answer.
    func unanswered(_ request: Request, sentAt: Instant?, _ now: Instant) {
        switch request {
        case .permit(let peers):
            for peer in peers {
                guard let permission = permissions[peer] else { continue }
                permissions[peer]?.silences += 1
                permissions[peer]?.isAlone = true
                // One that was there may be used to its end, and asked for as long.
                let isThere = permission.until.map { $0 > now } ?? false
                if permission.silences + 1 < RelayClient.maximumSilences || isThere {
                    wantPermission(peer)
                } else {
                    deny(peer, nil)
                }
            }
        case .bind(let peer):
            guard var channel = channels[peer] else { return }
            channel.silences += 1
            channel.isAsked = false
            // The request may have arrived, and only the answer not.
            if channel.lingersUntil == nil || !channel.isBound(now) {
                channel.lingersUntil = now + configuration.channelLifetime + RelayClient.channelRest
            }
            channels[peer] = channel
            if !channel.isWanted { return armChannels() }
            if channel.silences < RelayClient.maximumSilences || channel.isBound(now) {
                wantChannel(peer)
            } else {
                refuseChannel(peer, nil)
            }
        case .allocate, .refresh, .move, .deallocate, .reclaim: break
        }
    }

    // MARK: Time

    private func armPermissions() {
        var next: Instant?
        for permission in permissions.values {
            if let due = permission.refreshAt, !permission.isAsked { next = min(next ?? due, due) }
        }
        timers[.permissions] = next
    }

    func refreshPermissions(_ now: Instant) {
        for (peer, permission) in permissions {
            guard !permission.isAsked, let due = permission.refreshAt, due <= now + RelayClient.together else {
                continue
            }
            permissions[peer]?.refreshAt = nil
            wantPermission(peer)
        }
        armPermissions()
    }

    private func armChannels() {
        var next: Instant?
        for channel in channels.values {
            guard let due = channel.isWanted ? channel.refreshAt : channel.lingersUntil, !channel.isAsked else {
                continue
            }
            next = min(next ?? due, due)
        }
        timers[.channels] = next
    }

    func refreshChannels(_ now: Instant) {
        for (peer, channel) in channels where !channel.isAsked {
            if channel.isWanted {
                guard let due = channel.refreshAt, due <= now else { continue }
                channels[peer]?.refreshAt = nil
                wantChannel(peer)
            } else if let end = channel.lingersUntil, end <= now {
                removeChannel(peer)
            }
        }
        armChannels()
    }

    /// The next allocation knows nothing of these, and all are asked for again.
    func forgetGrants() {
        wantedPermissions.removeAll()
        wantedChannels.removeAll()
        dropWaiting()
        for peer in permissions.keys {
            permissions[peer] = Permission()
            wantPermission(peer)
        }
        let before = channels
        channels.removeAll()
        channelPeers.removeAll()
        for (peer, channel) in before where channel.isWanted {
            channels[peer] = Channel(number: channel.number)
            channelPeers[channel.number] = peer
            wantChannel(peer)
        }
    }

    func forgetPeers() {
        wantedPermissions.removeAll()
        wantedChannels.removeAll()
        dropWaiting()
        permissions.removeAll()
        channels.removeAll()
        channelPeers.removeAll()
        activeChannels = 0
    }
}
