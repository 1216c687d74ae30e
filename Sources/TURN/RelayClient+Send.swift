import STUN
public import Wire

/// A peer's datagram that waits for the request of its permission to be sent.
struct Waiting {
    let peer: SocketAddress
    let bytes: [UInt8]
}

extension RelayClient {
    /// Writes the next message for the server; where to send it, or nil if there is none. On a stream what is written
    /// follows what was written before.
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? {
        ask(now)
        if hasToSend {
            for index in transactions.indices where transactions[index].isToBeSent {
                transactions[index].isToBeSent = false
                guard output.write(transactions[index].bytes) else {
                    statistics.transmitsDropped &+= 1
                    continue
                }
                if transactions[index].transmissions == 0 {
                    transactions[index].sentAt = now
                    statistics.requestsSent &+= 1
                    noteSent(transactions[index].request)
                } else {
                    statistics.requestsRetransmitted &+= 1
                }
                transactions[index].transmissions += 1
                return sent(now)
            }
            hasToSend = false
        }
        while let next = waiting.first {
            guard isAllocated, let permission = permissions[next.peer.ip] else {
                _ = popWaiting()
                statistics.waitingDropped &+= 1
                continue
            }
            guard permission.isUsable(now) else { break }
            _ = popWaiting()
            let bytes = next.bytes
            if write(bytes.span.bytes, to: next.peer, into: &output, now: now) { return sent(now) }
            statistics.transmitsDropped &+= 1
        }
        if isKeepaliveDue {
            isKeepaliveDue = false
            var writer = MessageWriter(.indication, id: TransactionID(using: &random), to: &output)
            if writer.finish(nil, fingerprint: false, to: &output) { return sent(now) }
        }
        return nil
    }

    /// Writes a datagram for a peer as the server wants it, over the peer's channel if it has one. Take
    /// ``pollTransmit(into:now:)`` until it is nil first.
    public func send(_ data: RawSpan, to peer: SocketAddress, into output: inout OutputRawSpan, now: Instant) -> Outcome
    {
        guard isAllocated else { return .noAllocation }
        guard let permission = permissions[peer.ip] else { return .notPermitted }
        guard permission.isUsable(now) else { return keep(data, for: peer) }
        guard write(data, to: peer, into: &output, now: now) else { return .noRoom }
        _ = sent(now)
        return .written
    }

    /// Bytes that ``send(_:to:into:now:)`` adds to a datagram for this peer.
    public func overhead(to peer: SocketAddress, now: Instant) -> Int {
        if let channel = channels[peer], channel.isBound(now) { return transport.isStream ? 7 : 4 }
        return headerSize + (peer.ip.isIPv4 ? 12 : 24) + 4 + 3
    }

    private func write(_ data: RawSpan, to peer: SocketAddress, into output: inout OutputRawSpan, now: Instant) -> Bool
    {
        guard data.byteCount <= 65_000 else { return false }
        if let channel = channels[peer], channel.isBound(now) {
            // RFC 8656 section 12.5: padded on a stream; in a datagram need not be.
            let padding = transport.isStream ? -data.byteCount & 3 : 0
            guard output.freeCapacity >= 4 &+ data.byteCount &+ padding else { return false }
            output.write(channel.number)
            output.write(UInt16(truncatingIfNeeded: data.byteCount))
            output.write(data)
            output.writeZeros(padding)
        } else {
            let id = TransactionID(using: &random)
            var writer = MessageWriter(.indication, method: MessageType.send, id: id, to: &output)
            writer.append(.xorPeerAddress, peer, to: &output)
            writer.append(.data, data, to: &output)
            guard writer.finish(nil, fingerprint: false, to: &output) else { return false }
        }
        statistics.sent &+= 1
        statistics.sentBytes &+= UInt64(data.byteCount)
        return true
    }

    private func sent(_ now: Instant) -> SocketAddress {
        lastSent = now
        return server
    }

    private func keep(_ data: RawSpan, for peer: SocketAddress) -> Outcome {
        guard waiting.count < configuration.maximumWaiting,
            data.byteCount <= configuration.maximumWaitingBytes &- waitingBytes
        else {
            statistics.waitingDropped &+= 1
            return .noRoom
        }
        waiting.append(Waiting(peer: peer, bytes: data.copied()))
        waitingBytes &+= data.byteCount
        return .waiting
    }

    private func popWaiting() -> Waiting? {
        guard let next = waiting.popFirst() else { return nil }
        waitingBytes &-= next.bytes.count
        return next
    }

    func dropWaiting() {
        statistics.waitingDropped &+= UInt64(waiting.count)
        waiting.removeAll()
        waitingBytes = 0
    }

    var isAllocated: Bool { if case .allocated = phase { true } else { false } }

    func keepAlive(_ now: Instant) {
        guard isAllocated, !transport.isStream, configuration.keepalive > .zero else { return }
        let due = lastSent + configuration.keepalive
        if due <= now { isKeepaliveDue = true }
        timers[.keepalive] = due <= now ? now + configuration.keepalive : due
    }
}
