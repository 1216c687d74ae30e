import STUN
public import Wire

extension RelayClient {
    /// Takes one datagram that arrived at the client's port (UDP).
    ///
    /// - Parameter deliver: gets a peer's datagram and who sent it, if that is what it is.
    @discardableResult
    public func handle(
        datagram: RawSpan, from source: SocketAddress, now: Instant,
        deliver: (_ peer: SocketAddress, _ data: RawSpan) -> Void
    ) -> Disposition {
        let disposition: Disposition =
            source == server && !transport.isStream
            ? handle(message: datagram, now, deliver) : .ignored(.otherSource)
        if case .ignored(let reason) = disposition { statistics.count(reason) }
        return disposition
    }

    /// Takes the next bytes of the stream (TCP, or TLS when it is decrypted), as many as there are.
    public func handle(
        stream bytes: RawSpan, now: Instant, deliver: (_ peer: SocketAddress, _ data: RawSpan) -> Void
    ) {
        guard transport.isStream, isListening else { return }
        let before = connection
        var offset = 0
        frames.allowsChannelData = !isAllocating
        if !frames.isEmpty {
            guard let (taken, whole) = frames.complete(bytes) else { return streamFailed() }
            offset = taken
            guard let whole else { return }
            handle(frame: whole.span.bytes, now, deliver)
        }
        // An answer may have ended this stream's time.
        while isListening, connection == before,
            let rest = bytes.slice(at: offset, count: bytes.byteCount &- offset)
        {
            frames.allowsChannelData = !isAllocating
            switch frames.start(rest) {
            case .garbage: return streamFailed()
            case .incomplete: return frames.keep(rest)
            case .frame(let count):
                guard let frame = rest.slice(at: 0, count: count) else { return frames.keep(rest) }
                handle(frame: frame, now, deliver)
                offset &+= count
            }
        }
    }

    private var isListening: Bool {
        switch phase {
        case .allocating, .allocated, .moving, .closing: true
        case .idle, .awaitingConnection, .closed, .failed: false
        }
    }

    private var isAllocating: Bool { if case .allocating = phase { true } else { false } }

    private func streamFailed() {
        frames.removeAll()
        statistics.count(.notTURN)
        if case .closing = phase { finish() } else { fail(.malformedStream) }
    }

    private func handle(frame: RawSpan, _ now: Instant, _ deliver: (SocketAddress, RawSpan) -> Void) {
        if case .ignored(let reason) = handle(message: frame, now, deliver) { statistics.count(reason) }
    }

    private func handle(
        message bytes: RawSpan, _ now: Instant, _ deliver: (SocketAddress, RawSpan) -> Void
    ) -> Disposition {
        // RFC 8656 section 12: the first two bits tell ChannelData from STUN.
        if bytes.byte(0) >> 6 == 1 { return handle(channelData: bytes, now, deliver) }
        guard isMessage(bytes) else { return .ignored(.notTURN) }
        guard let message = try? Message(bytes) else { return .ignored(.malformed) }
        switch message.messageClass {
        case .request: return .ignored(.unexpected)
        case .indication:
            guard message.method == MessageType.data else { return .ignored(.unexpected) }
            return handle(dataIndication: message, now, deliver)
        case .success, .error: return handle(response: message, now)
        }
    }

    // MARK: Data

    private func handle(
        channelData bytes: RawSpan, _ now: Instant, _ deliver: (SocketAddress, RawSpan) -> Void
    ) -> Disposition {
        guard let number = bytes.load(bigEndianAt: 0, as: UInt16.self), number <= lastChannel,
            let length = bytes.load(bigEndianAt: 2, as: UInt16.self)
        else { return .ignored(.notTURN) }
        // RFC 8656 section 12.6: longer than the rest of the datagram is discarded; shorter is padding.
        guard let data = bytes.slice(at: 4, count: Int(length)) else { return .ignored(.malformed) }
        guard isAllocated else { return .ignored(.noAllocation) }
        // While its answer is under way the server uses it already.
        guard let peer = channelPeers[number], let channel = channels[peer],
            channel.isAsked || channel.isBound(now)
        else { return .ignored(.unknownPeer) }
        return hand(data, of: peer, deliver)
    }

    private func handle(
        dataIndication message: borrowing Message, _ now: Instant, _ deliver: (SocketAddress, RawSpan) -> Void
    ) -> Disposition {
        guard understands(message), let peer = message.xorPeerAddress else { return .ignored(.malformed) }
        // RFC 8656 section 11.4: without DATA it is discarded (with ICMP it tells of an error at the peer).
        guard let data = message.value(of: .data) else { return .ignored(.unexpected) }
        guard isAllocated else { return .ignored(.noAllocation) }
        // RFC 8656 section 11.4: the client checks that there is a permission.
        guard let permission = permissions[peer.ip], permission.isUsable(now) else { return .ignored(.unknownPeer) }
        return hand(data, of: peer, deliver)
    }

    private func hand(
        _ data: RawSpan, of peer: SocketAddress, _ deliver: (SocketAddress, RawSpan) -> Void
    ) -> Disposition {
        statistics.received &+= 1
        statistics.receivedBytes &+= UInt64(data.byteCount)
        deliver(peer, data)
        return .delivered
    }

    /// RFC 8489 section 6.3: attributes that must be understood and are not end it. TURN's own are known here.
    private func understands(_ message: borrowing Message) -> Bool {
        for index in 0..<message.unknownAttributes.count {
            switch AttributeType(rawValue: message.unknownAttributes[index]) {
            case .channelNumber, .lifetime, .xorPeerAddress, .data, .xorRelayedAddress, .requestedAddressFamily,
                .evenPort, .requestedTransport, .dontFragment, .reservationToken:
                continue
            default: return false
            }
        }
        return true
    }

    // MARK: Responses

    private func handle(response message: borrowing Message, _ now: Instant) -> Disposition {
        let id = message.transactionID
        guard
            let index = transactions.firstIndex(where: {
                $0.id == id && $0.transmissions > 0 && $0.request.method == message.method
            })
        else { return .ignored(.unmatched) }
        let transaction = transactions[index]
        let isSigned = transaction.authentication.map { $0.signed(message) } ?? false
        if message.messageClass == .success {
            // Without credentials there is nothing to check; with them a server that asks for none is none.
            guard isSigned || transaction.authentication == nil && credentials == nil else {
                return .ignored(.badIntegrity)
            }
            transactions.remove(at: index)
            statistics.responsesReceived &+= 1
            measure(transaction, now)
            if understands(message) { succeeded(transaction, message, now) } else { broken(transaction, now) }
            return .consumed
        }
        guard let code = message.errorCode else { return .ignored(.malformed) }
        statistics.errorsReceived &+= 1
        switch code {
        case 401, 438:
            // RFC 8489 section 9.2.4: these are not signed, since the server does not know by what.
            guard isChallenge(message, to: transaction) else { return disbelieve(index, code, now) }
            measure(transaction, now)
            transactions.remove(at: index)
            challenged(transaction, code, message, now)
        case 300:
            // RFC 8489 section 10: may be signed or not. Nothing but an allocation is sent on.
            guard transaction.request == .allocate, let other = message.alternateServer else {
                return disbelieve(index, code, now)
            }
            transactions.remove(at: index)
            redirected(to: other, domain: domain(message), now)
        default:
            guard isSigned || transaction.authentication == nil else { return disbelieve(index, code, now) }
            transactions.remove(at: index)
            if code == 420, leaveOut(message.refusedAttributes, transaction, now) { break }
            refused(transaction, code, now)
        }
        return .consumed
    }

    /// RFC 8489 section 9.2.5: an error that is not signed as it should be is discarded. But some servers sign none, so
    /// it is remembered, and believed if the right answer does not come soon.
    private func disbelieve(_ index: Int, _ code: Int, _ now: Instant) -> Disposition {
        statistics.unsignedErrors &+= 1
        if transactions[index].refusal == nil {
            transactions[index].refusal = code
            transactions[index].deadline = now + configuration.unsignedErrorWait
        }
        return .ignored(.badIntegrity)
    }

    /// Whether it can be answered, and is not weaker than what this server asked for before.
    private func isChallenge(_ message: borrowing Message, to transaction: Transaction) -> Bool {
        let before = transaction.authentication?.challenge
        guard let challenge = Challenge(message, realm: before?.realm) else { return false }
        guard let before, before.realm == challenge.realm, before.algorithm == .sha256 else { return true }
        return challenge.algorithm == .sha256
    }

    private func domain(_ message: borrowing Message) -> String? {
        guard let bytes = message.value(of: .alternateDomain), (1...255).contains(bytes.byteCount) else { return nil }
        let text = bytes.copied()
        // RFC 8489 section 14.16: a domain name in its ASCII form.
        guard text.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        return String(decoding: text, as: UTF8.self)
    }

    private func challenged(_ transaction: Transaction, _ code: Int, _ message: borrowing Message, _ now: Instant) {
        let before = transaction.authentication
        guard let credentials, let challenge = Challenge(message, realm: before?.challenge.realm) else {
            return refused(transaction, 401, now)
        }
        if code == 438 { statistics.staleNonces &+= 1 }
        // RFC 8489 section 9.2.5: after 401 the same user is not tried again in the same realm.
        if code == 401, let before, before.challenge.realm == challenge.realm, before.username == username,
            before === authentication || authentication == nil
        {
            return refused(transaction, 401, now)
        }
        guard transaction.challenges < configuration.maximumChallenges else {
            return tooManyChallenges(transaction, now)
        }
        if authentication?.challenge != challenge || authentication?.username != credentials.username {
            authentication = LongTermCredentials(
                username: credentials.username, password: credentials.password, challenge: challenge)
        }
        begin(transaction.request, challenges: transaction.challenges + 1, now)
    }
}
