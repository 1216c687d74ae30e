import Reload
import Signaling
import Synchronization
import Wire

/// A connector as host threads address it.
public struct ConnectorReference {
    let entry: ConnectorEntry

    public init?(_ handle: UInt64) {
        guard case .connector(let entry) = HandleTable.shared.find(handle), !entry.isClosed.load(ordering: .relaxed)
        else { return nil }
        self.entry = entry
    }

    public func connect() throws(Failure) {
        guard !entry.isConnecting.exchange(true, ordering: .sequentiallyConsistent) else {
            throw Failure(.wrongState, "a connect is under way")
        }
        try entry.ask(.connect)
    }

    /// The answer to the offer of this exchange, or a candidate.
    public func message(_ json: RawSpan, exchange: Int64) throws(Failure) {
        switch try Describing.message(json) {
        case .answer(let answer): try entry.ask(.answer(exchange, try ConnectorReference.received(answer)))
        case .candidate(let candidate):
            try entry.ask(.candidate(exchange, candidate?.candidate.isEmpty == false ? candidate : nil))
        case .offer: throw Failure(.malformedJSON, "neither an answer nor a candidate")
        }
    }

    private static func received(_ answer: AnswerMessage) throws(Failure) -> ReceivedAnswer {
        var found = CacheEntry(lastSuccessfulProtocol: .both, timestamp: 0, sessionID: "")
        found.addCandidates(ofSDP: answer.sdp)
        return ReceivedAnswer(
            description: try Describing.description(answer.sdp),
            contents: Connector.Answer(
                mode: answer.connectionMode, token: answer.sessionToken, ticket: answer.ticket,
                candidates: found.injectionOrder(hasIPv6: true)))
    }

    public func signalingFailed(exchange: Int64) throws(Failure) { try entry.ask(.signalingFailed(exchange)) }

    /// What is kept, as JSON; empty if nothing is.
    public func cacheEntry() throws(Failure) -> String {
        guard let kept = entry.cache.entries[entry.key] else { return "" }
        do throws(SignalingError) {
            return String(decoding: try encode(kept), as: UTF8.self)
        } catch {
            throw Failure(.internalDefect, "cannot write the cache entry as JSON: \(error)")
        }
    }

    public func forget() throws(Failure) {
        entry.drop()
        // Once more where connects end, in case one of them has just kept something.
        try entry.ask(.forget)
    }

    public func close() throws(Failure) {
        guard !entry.isClosed.exchange(true, ordering: .sequentiallyConsistent) else {
            throw Failure(.invalidHandle, "the connector is closed")
        }
        try entry.ask(.close)
    }
}

extension ConnectorEntry {
    /// Drops what is kept under the key.
    func drop() {
        let hasEntry = cache.entries.remove(key)
        let hasTicket = cache.tickets.remove(key)
        if hasEntry || hasTicket { files.changed() }
    }
}

extension Engine {
    public func createConnector(_ configuration: ConnectorConfiguration) throws(Failure) -> UInt64 {
        guard KeyedRecords<CacheEntry>.isKey(configuration.key) else {
            throw Failure(.invalidArgument, "key must have 1 to 256 bytes")
        }
        guard configuration.peer.channels.count <= self.configuration.maximumChannels else {
            throw Failure(.limit, "more channels than max_channels allows: \(self.configuration.maximumChannels)")
        }
        if configuration.usesTickets,
            configuration.peer.channels.contains(where: { $0.negotiatedID == ControlMessage.stream })
        {
            throw Failure(.invalidArgument, "channel id \(ControlMessage.stream) is the control channel's")
        }
        // Each of them is there for a peer.
        guard counters.connectors.wrappingAdd(1, ordering: .relaxed).newValue <= self.configuration.maximumPeers else {
            counters.connectors.wrappingSubtract(1, ordering: .relaxed)
            throw Failure(
                .limit, "there are as many connectors as max_peers allows: \(self.configuration.maximumPeers)")
        }
        do throws(Failure) {
            return try makeConnector(configuration)
        } catch {
            counters.connectors.wrappingSubtract(1, ordering: .relaxed)
            throw error
        }
    }

    private func makeConnector(_ configuration: ConnectorConfiguration) throws(Failure) -> UInt64 {
        let cache = caches.open(configuration.cachePath, self)
        let made = HandleTable.shared.insert { number in
            let entry = ConnectorEntry(handle: number, configuration: configuration, cache: cache, engine: self)
            return (entry, .connector(entry))
        }
        guard let entry = made else { throw Failure(.limit, "too many handles are in use") }
        do throws(Failure) {
            try entry.ask(.create)
        } catch {
            HandleTable.shared.remove(entry.handle)
            throw error
        }
        return entry.handle
    }
}
