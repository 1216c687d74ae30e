import CSystem
import Reload
import Wire

/// What the loop hears from outside the peers: the network and the session store.
extension Loop {
    // MARK: Network

    func drainNetwork() {
        guard isNetworkDirty else { return }
        isNetworkDirty = false
        pump(through: port) { network.pollTransmit(into: &$0, now: now) }
        tellServers()
        while let change = network.pollChange() {
            tellNetwork(change)
            guard change.contains(.candidates) else { continue }
            var event = Event(.addresses)
            var seen = Set<IPAddress>()
            let addresses = network.candidates.map(\.address.ip).filter { seen.insert($0).inserted }
            event.data = .text(addresses.map(\.description).joined(separator: " "))
            events.append(event)
            logCandidates()
            metrics.setMappedAddresses(network.candidates.count { $0.kind == .serverReflexive })
            refreshAllTickets()
        }
        flush()
    }

    // MARK: Session store

    static func cachingStore(
        _ configuration: Configuration, now: Instant, using random: inout some RandomNumberGenerator
    ) -> CachingStore {
        var settings = CachingStore.Configuration()
        settings.capacity = configuration.maximumSessions
        settings.lifetime = configuration.sessionLifetime
        settings.lookupTimeout = configuration.storeTimeout
        return CachingStore(
            configuration: settings, unixOffset: .nanoseconds(cs_unix_ns() &- now.nanoseconds), using: &random)
    }

    static func openBackend(_ place: String, _ engine: Engine) throws(Failure) -> SessionBackend {
        let inbox = engine.inbox
        return try SessionBackend.open(
            place, prefix: engine.configuration.sessionPrefix, timeout: engine.configuration.storeTimeout,
            onCompletion: { inbox.push(.storeAnswered($0)) }, onState: { inbox.push(.storeChanged($0)) })
    }

    func pumpSessions() {
        guard let backend else { return }
        // The wall clock may have been set since.
        let offset = Duration.nanoseconds(cs_unix_ns() &- now.nanoseconds)
        if abs((offset - backend.store.unixOffset).milliseconds) > 1000 { backend.store.unixOffset = offset }
        backend.database.pump(backend.store, now: now)
    }

    func storeChanged(_ state: SessionBackend.State) {
        var event = Event(.store)
        switch state {
        case .up:
            backend?.store.isAvailable = true
            event.number = 1
            metrics.store(isUp: true)
            event.data = .text("the session store answers")
            log(.info, "[STORE] State=up")
        case .down(let reason):
            backend?.store.isAvailable = false
            metrics.store(isUp: false)
            event.data = .text(reason)
            log(.warning, "[STORE] State=down Reason=\(reason)")
        case .notice(let sentence): return log(.warning, "[STORE] \(sentence)")
        }
        events.append(event)
        // What was asked of a store that is away now is answered.
        drainDecisions()
        drainWelcomes()
    }
}
