import Wire

extension Timers {
    /// Throws a failure that names the first member that cannot be so in an engine of this configuration.
    public func check(in configuration: Configuration) throws(Failure) {
        // RFC 8445 section 14.2: Ta must not be below 5 ms.
        guard checkInterval >= .milliseconds(5) else {
            throw Failure(
                .invalidArgument, "check_interval_ms is \(checkInterval.inMilliseconds): at least 5 are needed")
        }
        let disconnect = disconnectTimeout ?? configuration.silenceBeforeDisconnect
        let failed = failedTimeout ?? configuration.failedTimeout
        // What is left at its default follows the others by itself.
        if let heartbeat, heartbeat >= disconnect {
            throw Failure(
                .invalidArgument,
                "heartbeat_ms is \(heartbeat.inMilliseconds), and a peer counts as disconnected after "
                    + "\(disconnect.inMilliseconds) ms of silence: it must be less")
        }
        if consentInterval != Timers().consentInterval, consentInterval >= failed {
            throw Failure(
                .invalidArgument,
                "consent_interval_ms is \(consentInterval.inMilliseconds), and a peer is given up after "
                    + "\(failed.inMilliseconds) ms of silence: it must be less")
        }
        if disconnectTimeout != nil || failedTimeout != nil, disconnect > failed {
            throw Failure(
                .invalidArgument,
                "disconnect_timeout_ms is \(disconnect.inMilliseconds), more than the \(failed.inMilliseconds) ms of "
                    + "failed_timeout_ms")
        }
    }
}

extension Configuration {
    /// A lite agent only hears the other side's checks, which may be further apart.
    var silenceBeforeDisconnect: Duration { disconnectTimeout ?? .seconds(isLite ? 8 : 5) }
}

extension Duration {
    fileprivate var inMilliseconds: Int64 { nanoseconds / 1_000_000 }
}
