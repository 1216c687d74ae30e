import STUN
import Wire

/// What the server is asked.
enum Request: Equatable {
    case allocate
    case refresh
    /// A Refresh from another address, with the ticket (RFC 8016 section 3.2).
    case move
    case deallocate
    /// The same, for what somebody else has left on this 5-tuple.
    case reclaim
    case permit([IPAddress])
    case bind(SocketAddress)

    var method: UInt16 {
        switch self {
        case .allocate: MessageType.allocate
        case .refresh, .move, .deallocate, .reclaim: MessageType.refresh
        case .permit: MessageType.createPermission
        case .bind: MessageType.channelBind
        }
    }
}

/// A request that may still be answered.
struct Transaction {
    let id: TransactionID
    let request: Request
    /// As it was made: RFC 8489 section 6.2.1 has a retransmission be the same.
    let bytes: [UInt8]
    let authentication: LongTermCredentials?
    /// Challenges that led to it.
    let challenges: Int
    var transmissions = 0
    var isToBeSent = true
    var sentAt: Instant?
    var interval: Duration
    /// When to send again or, after the last transmission, when to give up.
    var deadline: Instant
    /// The code of an error that was not signed: what is believed if nothing better comes.
    var refusal: Int?
}

extension RelayClient {
    /// More than any request has.
    private static let longestRequest = 6144

    func begin(_ request: Request, challenges: Int = 0, _ now: Instant) {
        let id = TransactionID(using: &random)
        var fits = false
        let bytes = [UInt8](unsafeUninitializedCapacity: RelayClient.longestRequest) { buffer, count in
            let buffer = UnsafeMutableRawBufferPointer(buffer)
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            fits = write(request, id, &output)
            count = unsafe output.finalize(for: buffer)
        }
        // Only with a name beyond all limits.
        guard fits else { return fail(.wrongCredentials) }
        let isStream = transport.isStream
        let interval = isStream ? configuration.streamTimeout : retransmission
        transactions.append(
            Transaction(
                id: id, request: request, bytes: bytes, authentication: authentication, challenges: challenges,
                interval: interval, deadline: now + lastWait(after: interval, transmissions: 1)))
        hasToSend = true
    }

    /// RFC 8489 section 6.2.1: the first interval is an estimate of the round trip, if there is one.
    private var retransmission: Duration {
        guard let roundTrip else { return configuration.retransmission }
        return max(configuration.retransmission, min(roundTrip * 2, .seconds(3)))
    }

    private func lastWait(after interval: Duration, transmissions: Int) -> Duration {
        transport.isStream || transmissions < configuration.transmissions
            ? interval : configuration.retransmission * configuration.lastWait
    }

    private func write(_ request: Request, _ id: TransactionID, _ output: inout OutputRawSpan) -> Bool {
        var writer = MessageWriter(.request, method: request.method, id: id, to: &output)
        let seconds = UInt32(clamping: configuration.lifetime.milliseconds / 1000)
        switch request {
        case .allocate:
            // RFC 8656 section 18.7: 17 is UDP.
            writer.append(.requestedTransport, 17 << 24 as UInt32, to: &output)
            writer.append(.lifetime, seconds, to: &output)
            switch configuration.families {
            case .ipv4: break
            case .ipv6: writer.append(.requestedAddressFamily, 2 << 24 as UInt32, to: &output)
            case .both:
                guard namesFamily else { break }
                writer.append(.additionalAddressFamily, 2 << 24 as UInt32, to: &output)
                writer.append(.draftAdditionalAddressFamily, 2 << 24 as UInt32, to: &output)
            }
            // RFC 8016 section 3.1: an empty one asks for a ticket.
            if usesMobility { writer.append(.mobilityTicket, to: &output) }
        case .refresh: writer.append(.lifetime, seconds, to: &output)
        case .move:
            writer.append(.lifetime, seconds, to: &output)
            writer.append(.mobilityTicket, held?.ticket ?? [], to: &output)
        case .deallocate, .reclaim: writer.append(.lifetime, 0 as UInt32, to: &output)
        case .permit(let peers):
            // RFC 8656 section 10.1: the port is ignored.
            for peer in peers { writer.append(.xorPeerAddress, SocketAddress(ip: peer, port: 0), to: &output) }
        case .bind(let peer):
            writer.append(.channelNumber, UInt32(channels[peer]?.number ?? 0) << 16, to: &output)
            writer.append(.xorPeerAddress, peer, to: &output)
        }
        guard let authentication else { return writer.finish(nil, fingerprint: false, to: &output) }
        return authentication.finish(&writer, to: &output)
    }

    func sendAgain(_ index: Int, _ now: Instant) {
        transactions[index].isToBeSent = true
        transactions[index].interval = transactions[index].interval * 2
        // The one to come is not counted yet.
        let wait = lastWait(after: transactions[index].interval, transmissions: transactions[index].transmissions + 1)
        transactions[index].deadline = now + wait
        hasToSend = true
    }

    func measure(_ transaction: Transaction, _ now: Instant) {
        // Which of several transmissions was answered is not known.
        guard transaction.transmissions == 1, let sentAt = transaction.sentAt, now > sentAt else { return }
        let sample = now - sentAt
        // RFC 6298 section 2.3.
        roundTrip = roundTrip.map { $0 - $0 / 8 + sample / 8 } ?? sample
    }
}
