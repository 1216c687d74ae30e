import Reload
import Wire

/// The kill switch of fast reload: the host's, and the one that trips by itself.
extension Loop {
    /// How fast reload acts now.
    var effectiveFastReload: FastReloadSetting {
        if setting == .on, !trip.isOn { return .partial }
        return setting
    }

    func setFastReload(_ setting: FastReloadSetting) {
        self.setting = setting
        if setting == .on { trip.reset(now) }
        applySwitch(.host, "set by the host")
        // Clients that got none while it was off.
        if setting == .on { refreshAllTickets() }
    }

    /// Tells sessions and the host.
    private func applySwitch(_ thrower: SwitchThrower, _ sentence: String) {
        let effective = effectiveFastReload
        sessions.configuration.fastReload = FastReload(effective)
        var event = Event(.fastReload)
        event.number = Int64(effective.rawValue)
        event.detailKind = thrower.rawValue
        event.data = .text(sentence)
        events.append(event)
        switch thrower {
        case .host: metrics.setSwitch(setting)
        case .trip: metrics.tripped()
        case .rearm: metrics.rearmed()
        }
        let level: LogLevel = thrower == .trip ? .warning : .info
        log(level, "[FAST_RELOAD] Action=switch Setting=\(effective) Reason=\(thrower)")
    }

    func drainTrip() {
        while let change = trip.pollChange() {
            switch change {
            case .tripped(let sentence): applySwitch(.trip, sentence)
            case .rearmed: applySwitch(.rearm, "tried again")
            }
        }
    }

    // MARK: What fast connects come to

    func attempted(_ connection: Connection) {
        trip.attempt(now)
        connection.attempt = .running
        connection.fastDeadline = now + configuration.fastTimeout
    }

    /// A client that tries two ways at once leaves one of them: its session has connected since by the other.
    func isOvertaken(_ connection: Connection) -> Bool {
        guard let client = connection.session?.grant.clientID, let session = sessions.session(client) else {
            return false
        }
        return session.lastConnected >= connection.peer.created
    }

    func attemptEnded(_ connection: Connection, isFailure: Bool) {
        guard case .running = connection.attempt else { return }
        connection.fastDeadline = nil
        if isFailure {
            connection.attempt = .none
            if !isOvertaken(connection) { trip.failed(now) }
        } else {
            connection.attempt = .young(now)
            trip.succeeded(now)
        }
    }

    func attemptSucceeded(_ connection: Connection) { attemptEnded(connection, isFailure: false) }

    static let unstableAge = Duration.seconds(10)

    /// The end of a connection: an early one by an error makes the fast ones look unstable.
    func attemptClosed(_ connection: Connection, _ status: Status) {
        switch connection.attempt {
        case .none: break
        case .running where status == .ok || status == .replaced || status == .peerGone:
            // Given up by one side: says nothing about the way.
            connection.attempt = .none
            connection.fastDeadline = nil
        case .running: attemptEnded(connection, isFailure: true)
        case .young(let since):
            connection.attempt = .none
            let isError = status != .ok && status != .replaced && status != .peerGone
            // An end is noticed late: what counts is how long it was alive.
            if isError, connection.peer.lastHeard - since < Loop.unstableAge { trip.unstable(now) }
        }
    }
}

/// `RECONNECT_SWITCH_...`
private enum SwitchThrower: UInt32 {
    case host = 0
    case trip = 1
    case rearm = 2
}

extension Mode {
    /// `RECONNECT_MODE_...`
    var number: UInt32 {
        switch self {
        case .normal: 0
        case .fast: 1
        case .zeroSignaling: 2
        }
    }
}
