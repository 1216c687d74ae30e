import STUN
import Wire

/// What an answer changes.
extension RelayClient {
    func succeeded(_ transaction: Transaction, _ message: borrowing Message, _ now: Instant) {
        switch transaction.request {
        case .allocate:
            guard case .allocating = phase, let held = read(message, now) else { return fail(.malformedAnswer) }
            hold(held, now)
            events.append(.allocated(held.allocation))
        case .refresh: refreshed(message, hasMoved: false, now)
        case .move: refreshed(message, hasMoved: true, now)
        case .deallocate: finish()
        case .reclaim: begin(.allocate, challenges: transaction.challenges, now)
        case .permit(let peers): granted(peers, now)
        case .bind(let peer):
            bound(peer, now)
            // RFC 8656 section 12.3: it also makes or refreshes the permission.
            granted([peer.ip], now)
        }
    }

    /// RFC 8656 section 7.3: what a success response to Allocate has in it.
    private func read(_ message: borrowing Message, _ now: Instant) -> Held? {
        guard let seconds = message.lifetime, seconds > 0 else { return nil }
        var relayed: [SocketAddress] = []
        for index in 0..<2 {
            guard let address = message.xorRelayedAddress(index), isUsable(address),
                !relayed.contains(where: { $0.ip.isIPv4 == address.ip.isIPv4 })
            else { continue }
            relayed.append(address)
        }
        relayed.sort { $0.ip.isIPv6 && !$1.ip.isIPv6 }
        let hasIPv6 = relayed.contains { $0.ip.isIPv6 }
        let hasIPv4 = relayed.contains { $0.ip.isIPv4 }
        var missing: Allocation.Missing?
        switch configuration.families {
        case .ipv4: guard hasIPv4 else { return nil }
        case .ipv6: guard hasIPv6 else { return nil }
        case .both:
            guard hasIPv4 || hasIPv6 else { return nil }
            if hasIPv4 != hasIPv6 {
                let error = message.addressError
                missing = Allocation.Missing(isIPv6: !hasIPv6, code: error?.isIPv6 == !hasIPv6 ? error?.code : nil)
            }
        }
        let ticket = ticket(message)
        let lifetime = Duration.seconds(Int64(seconds))
        return Held(
            allocation: Allocation(
                relayed: relayed, mapped: message.xorMappedAddress, server: server, lifetime: lifetime,
                isMobile: ticket != nil, missing: missing),
            expires: now + lifetime, ticket: ticket)
    }

    private func ticket(_ message: borrowing Message) -> [UInt8]? {
        guard usesMobility, let value = message.value(of: .mobilityTicket), (1...1024).contains(value.byteCount) else {
            return nil
        }
        return value.copied()
    }

    private func refreshed(_ message: borrowing Message, hasMoved: Bool, _ now: Instant) {
        guard var held else { return }
        guard let seconds = message.lifetime, seconds > 0 else { return fail(.allocationLost) }
        held.allocation.lifetime = .seconds(Int64(seconds))
        held.expires = now + held.allocation.lifetime
        // RFC 8016 section 3.2.2: a new ticket comes with each answer.
        if let ticket = ticket(message) { held.ticket = ticket }
        hold(held, now)
        if hasMoved { events.append(.moved) }
    }

    private func hold(_ held: Held, _ now: Instant) {
        phase = .allocated(held)
        let lifetime = held.allocation.lifetime
        // Early enough for two requests to be lost with all their retransmissions.
        let margin = min(lifetime / 4, .seconds(120))
        var due = now + max(jittered(lifetime - margin), .seconds(1))
        // While the credentials still are good, so that the allocation outlives them.
        if newest == nil, let end = credentials?.expires, end - .seconds(5) > now { due = min(due, end - .seconds(5)) }
        timers[.refresh] = due
        timers[.expiry] = held.expires
        lastSent = max(lastSent, now)
        keepAlive(now)
    }

    // MARK: Refusals

    /// A final answer that is not the one wanted.
    func refused(_ transaction: Transaction, _ code: Int, _ now: Instant) {
        if code == 401 || code == 441, case .allocate = transaction.request {
            // Others may have been given meanwhile.
            if transaction.authentication?.username != username,
                transaction.challenges < configuration.maximumChallenges,
                transaction.authentication != nil
            {
                return begin(.allocate, challenges: transaction.challenges + 1, now)
            }
            return fail(.wrongCredentials)
        }
        switch transaction.request {
        case .allocate: allocateRefused(transaction, code, now)
        case .move: moveRefused(transaction, code, now)
        case .deallocate: finish()
        // Nothing of this user's is there, or it is another one's: it ends by itself.
        case .reclaim: fail(.mismatch)
        case .refresh, .permit, .bind: requestRefused(transaction, code, now)
        }
    }

    private func allocateRefused(_ transaction: Transaction, _ code: Int, _ now: Instant) {
        switch code {
        case 405 where usesMobility:
            // RFC 8016 section 3.1.2: mobility is forbidden; without it the rest may be allowed.
            usesMobility = false
            begin(.allocate, challenges: transaction.challenges, now)
        case 437:
            mismatches += 1
            guard mismatches <= configuration.maximumMismatches else { return fail(.mismatch) }
            awaitConnection(.mismatch)
        default: fail(Failure(code: code))
        }
    }

    private func moveRefused(_ transaction: Transaction, _ code: Int, _ now: Instant) {
        // The ticket is no good, or what it stood for is gone; the 5-tuple is.
        usesMobility = usesMobility && code != 405
        allocate(now: now)
    }

    private func requestRefused(_ transaction: Transaction, _ code: Int, _ now: Instant) {
        switch code {
        case 437:
            // Where this comes from may have become another place unnoticed (a NAT): the ticket finds it.
            if transaction.request == .refresh, let held, held.ticket != nil, held.expires > now {
                phase = .moving(held)
                timers[.refresh] = nil
                begin(.move, now)
            } else {
                fail(.allocationLost)
            }
        case 401, 441: userRefused(transaction, code, now)
        default:
            switch transaction.request {
            case .permit(let peers): permitRefused(peers, code)
            case .bind(let peer): refuseChannel(peer, code)
            case .refresh:
                // Some servers say 400 of users who are no more.
                if code == 400, newest != nil { return userRefused(transaction, 401, now) }
                // It still is there, and a second try may do better.
                timers[.refresh] = now + jittered(.seconds(10))
            default: break
            }
        }
    }

    /// The allocation's user is refused. RFC 8656 section 5 has another one refused with 441, but servers differ.
    private func userRefused(_ transaction: Transaction, _ code: Int, _ now: Instant) {
        guard transaction.authentication?.username == username else {
            // The user has changed since.
            return begin(transaction.request, challenges: transaction.challenges + 1, now)
        }
        if let newest, newest != credentials, transaction.challenges < configuration.maximumChallenges {
            takeNewest()
            return begin(transaction.request, challenges: transaction.challenges + 1, now)
        }
        // The allocation is another user's, whom the server has refused before.
        guard code != 441, newest == nil else { return fail(.wrongCredentials) }
        release(transaction.request)
        guard !isAwaitingCredentials, let held else { return }
        isAwaitingCredentials = true
        timers[.refresh] = nil
        events.append(.credentialsNeeded(by: held.expires))
    }

    /// The next requests are made with what was given last.
    func takeNewest() {
        guard let newest else { return }
        credentials = newest
        self.newest = nil
        isAwaitingCredentials = false
        if let challenge = authentication?.challenge {
            authentication = LongTermCredentials(
                username: newest.username, password: newest.password, challenge: challenge)
        }
    }

    func tooManyChallenges(_ transaction: Transaction, _ now: Instant) {
        switch transaction.request {
        case .allocate, .reclaim: fail(.challenges)
        case .move: allocate(now: now)
        case .deallocate: finish()
        case .refresh: timers[.refresh] = now + jittered(.seconds(10))
        case .permit(let peers): for peer in peers { permitRefused([peer], 438) }
        case .bind(let peer): refuseChannel(peer, 438)
        }
    }

    /// RFC 8489 section 6.3.4: what the server does not know is left out, if it can be. True if that was done.
    func leaveOut(_ types: UnknownAttributes, _ transaction: Transaction, _ now: Instant) -> Bool {
        guard case .allocate = transaction.request else { return false }
        var hasLess = false
        for index in 0..<types.count {
            switch AttributeType(rawValue: types[index]) {
            case .mobilityTicket where usesMobility:
                usesMobility = false
                hasLess = true
            case .additionalAddressFamily where namesFamily && configuration.families == .both,
                .draftAdditionalAddressFamily where namesFamily && configuration.families == .both:
                namesFamily = false
                hasLess = true
            default: return false
            }
        }
        guard hasLess else { return false }
        begin(.allocate, challenges: transaction.challenges, now)
        return true
    }

    func broken(_ transaction: Transaction, _ now: Instant) {
        switch transaction.request {
        case .allocate, .reclaim: fail(.malformedAnswer)
        case .move: allocate(now: now)
        case .deallocate: finish()
        case .refresh: timers[.refresh] = now + jittered(.seconds(10))
        case .permit(let peers): for peer in peers { permitRefused([peer], nil) }
        case .bind(let peer): refuseChannel(peer, nil)
        }
    }

    func expired(_ transaction: Transaction, _ now: Instant) {
        switch transaction.request {
        case .allocate, .reclaim: fail(.timeout)
        // On the new 5-tuple something else may get through; if not, that times out too.
        case .move: allocate(now: now)
        case .deallocate: finish()
        // As long as the allocation may be there.
        case .refresh: timers[.refresh] = now + jittered(.seconds(1))
        case .permit, .bind: unanswered(transaction.request, sentAt: transaction.sentAt, now)
        }
    }

    // MARK: Elsewhere

    private func awaitConnection(_ reason: ConnectionReason) {
        phase = .awaitingConnection
        timers.removeAll()
        removeTransactions()
        events.append(.connectionNeeded(reason))
    }

    func noteVisit(_ now: Instant) {
        visited.removeAll { $0.server == server || now - $0.at > .seconds(300) }
        if visited.count >= 16 { visited.removeFirst() }
        visited.append((server, now))
    }

    func redirected(to other: SocketAddress, domain: String?, _ now: Instant) {
        redirections += 1
        // RFC 8489 section 10: not to a server that was asked within the last five minutes.
        let isCircle = visited.contains { $0.server == other && now - $0.at <= .seconds(300) }
        guard redirections <= configuration.maximumRedirections, !isCircle, isUsable(other),
            other.ip.isIPv4 == server.ip.isIPv4,
            // A server elsewhere has nothing to send the client to on the client's own machine or link.
            server.ip.isLoopback || !other.ip.isLoopback, server.ip.isLinkLocal || !other.ip.isLinkLocal
        else { return fail(.badRedirection) }
        guard !transport.isStream else { return awaitConnection(.redirected(to: other, domain: domain)) }
        server = other
        // Realm and nonce were the other one's.
        authentication = nil
        noteVisit(now)
        events.append(.redirected(to: other))
        begin(.allocate, now)
    }

    private func isUsable(_ address: SocketAddress) -> Bool {
        address.port != 0 && !address.ip.isUnspecified && !address.ip.isMulticast
            && !(address.ip.isIPv4 && address.ip.v4Bits == .max)
    }
}
