import Reload

extension Metrics {
    /// Everything as Prometheus' text, in an order that does not change. docs/metrics.md explains the series.
    func text(_ reading: EngineStatistics) -> String {
        var text = Exposition()
        writeRequests(&text)
        writeConnections(&text)
        writeSessions(&text, reading)
        writeTickets(&text)
        writeFastReload(&text)
        writeCertificate(&text, reading)
        writeNetwork(&text, reading)
        writePaths(&text)
        client.write(&text)
        return text.text
    }

    private func writeRequests(_ text: inout Exposition) {
        text.family("reconnect_requests_total", .counter, "Offers answered and tickets accepted, by mode.")
        for mode in ConnectionMode.all { text.sample(requests[mode].reading, ("mode", mode.label)) }
        text.family(
            "reconnect_normal_answers_total", .counter, "Answers in normal mode, by the reason they are not fast.")
        for reason in NormalReason.all { text.sample(normalAnswers[reason].reading, ("reason", reason.label)) }
    }

    private func writeConnections(_ text: inout Exposition) {
        text.family("reconnect_connections_total", .counter, "Authenticated connections, by mode and IP version.")
        for mode in ConnectionMode.all {
            for family in AddressFamily.all {
                text.sample(
                    connections[mode, family].reading.count, ("mode", mode.label), ("protocol", family.label))
            }
        }
        text.family(
            "reconnect_connection_duration_seconds", .histogram,
            "Time from the making of a peer to the authenticated connection.")
        connections.write(&text)
        text.family(
            "reconnect_connections_failed_total", .counter, "Peers that ended before they were authenticated, by cause."
        )
        for mode in ConnectionMode.all {
            for cause in ConnectFailure.all {
                text.sample(failures[mode.position][cause].reading, ("mode", mode.label), ("cause", cause.label))
            }
        }
        let made = candidateTypes.total
        let iceFailed = failures.reduce(0) { $0 &+ $1[.ice].reading }
        let ended = made &+ failures.reduce(0) { $0 &+ $1.total }
        text.single(
            "reconnect_ice_failure_ratio", .gauge, "Share of the peers for which no path was found.",
            ratio(iceFailed, ended))
        text.family(
            "reconnect_connections_by_candidate_total", .counter,
            "Authenticated connections, by the type of the other side's candidate.")
        for type in CandidateType.all { text.sample(candidateTypes[type].reading, ("type", type.label)) }
        text.single(
            "reconnect_relay_ratio", .gauge, "Share of the connections that run over a relay.",
            ratio(relayed.reading, made))
        let returned = returns.reading
        text.single("reconnect_reconnections_total", .counter, "Connections that came back to their session.", returned)
        text.single(
            "reconnect_reconnection_ratio", .gauge, "Share of the connections that came back to their session.",
            ratio(returned, made))
    }

    private func writeSessions(_ text: inout Exposition, _ reading: EngineStatistics) {
        text.single("reconnect_sessions", .gauge, "Sessions remembered now.", reading.sessions)
        text.family("reconnect_session_lookups_total", .counter, "Tokens looked up in the session store, by result.")
        for result in LookupResult.all { text.sample(lookups[result].reading, ("result", result.label)) }
        let hits = lookups[.hit].reading
        text.single(
            "reconnect_session_hit_ratio", .gauge, "Share of the looked-up tokens that led to a session.",
            ratio(hits, lookups.total))
        text.single(
            "reconnect_store_up", .gauge, "1 while the session store answers, 0 while it is away.", storeIsUp.reading)
    }

    private func writeTickets(_ text: inout Exposition) {
        text.single("reconnect_tickets_issued_total", .counter, "Tickets given out.", ticketsIssued.reading)
        text.single("reconnect_tickets_accepted_total", .counter, "Tickets that made a peer.", ticketsAccepted.reading)
        text.family(
            "reconnect_tickets_refused_total", .counter, "Tickets refused to whoever had their password, by reason.")
        for reason in TicketRefusal.all { text.sample(ticketsRefused[reason].reading, ("reason", reason.label)) }
        text.single(
            "reconnect_tickets_dropped_total", .counter,
            "Tickets dropped without an answer: damaged, not of the engine's keys, or too many.", ticketsDropped.reading
        )
    }

    private func writeFastReload(_ text: inout Exposition) {
        text.family("reconnect_fast_reload", .gauge, "1 for the position of the kill switch, 0 for the others.")
        let setting = fastReload.reading
        for position in FastReloadSetting.all {
            text.sample(Int(position.rawValue) == setting ? 1 : 0, ("setting", position.label))
        }
        text.single(
            "reconnect_fast_reload_tripped", .gauge, "1 while fast reload has switched itself off.", isTripped.reading)
        text.single(
            "reconnect_fast_reload_trips_total", .counter, "How often fast reload has switched itself off.",
            trips.reading)
    }

    private func writeCertificate(_ text: inout Exposition, _ reading: EngineStatistics) {
        text.single(
            "reconnect_certificate_age_seconds", .gauge, "Age of the certificate.",
            Int(clamping: reading.certificateAgeSeconds))
        text.single(
            "reconnect_certificate_age_days", .gauge, "Age of the certificate in days.",
            Double(reading.certificateAgeSeconds) / 86_400)
        text.family("reconnect_certificate_rotations_total", .counter, "Certificates replaced, by result.")
        text.sample(rotations.reading, ("result", "success"))
        text.sample(rotationFailures.reading, ("result", "failure"))
    }

    private func writeNetwork(_ text: inout Exposition, _ reading: EngineStatistics) {
        text.single("reconnect_peers", .gauge, "Peers now.", reading.peers)
        text.single("reconnect_peers_connected_total", .counter, "Peers that connected.", reading.peersConnected)
        text.single(
            "reconnect_peers_failed_total", .counter, "Peers that never connected or ended by an error.",
            reading.peersFailed)
        text.single(
            "reconnect_datagrams_received_total", .counter, "UDP datagrams received.", reading.datagramsReceived)
        text.single("reconnect_datagrams_sent_total", .counter, "UDP datagrams sent.", reading.datagramsSent)
        text.single(
            "reconnect_datagrams_dropped_total", .counter,
            "UDP datagrams dropped: from strangers, malformed or forged.", reading.datagramsDropped)
        text.single("reconnect_received_bytes_total", .counter, "UDP payload received.", reading.bytesReceived)
        text.single("reconnect_sent_bytes_total", .counter, "UDP payload sent.", reading.bytesSent)
        text.single(
            "reconnect_send_errors_total", .counter, "UDP datagrams that the operating system refused.",
            reading.sendErrors)
        text.single("reconnect_events_queued", .gauge, "Events that the host has not taken yet.", reading.eventsQueued)
        text.single(
            "reconnect_mapped_addresses", .gauge, "Addresses outside that STUN servers tell now.",
            mappedAddresses.reading)
    }

    private func writePaths(_ text: inout Exposition) {
        text.family("reconnect_paths_total", .counter, "Paths that peers have used, by why they came into use.")
        for change in PathChange.all { text.sample(paths[change].reading, ("reason", change.label)) }
        text.family("reconnect_ice_restarts_total", .counter, "ICE restarts, by how far they came.")
        for stage in RestartStage.all { text.sample(restarts[stage].reading, ("stage", stage.label)) }
        text.single(
            "reconnect_relay_allocations_total", .counter, "Allocations that TURN servers gave the shared port.",
            relayAllocations.reading)
        text.single(
            "reconnect_relay_failures_total", .counter, "Allocations that TURN servers refused or lost.",
            relayFailures.reading)
    }
}

extension ClientMetrics {
    fileprivate func write(_ text: inout Exposition) {
        text.single(
            "reconnect_client_cache_hits_total", .counter, "Connects that found a usable cache entry.",
            cacheHits.reading)
        text.single("reconnect_client_cache_misses_total", .counter, "Connects that found none.", cacheMisses.reading)
        text.family("reconnect_client_fast_attempts_total", .counter, "Attempts by ticket or session, by IP version.")
        for family in AddressFamily.all { text.sample(fastAttempts[family].reading, ("protocol", family.label)) }
        text.family(
            "reconnect_client_fallbacks_total", .counter,
            "Connects that went on in normal mode, by IP version and reason.")
        for family in AttemptedFamily.all {
            for reason in FallbackReason.all {
                text.sample(
                    fallbacks[family.position][reason].reading, ("protocol", family.label), ("reason", reason.label))
            }
        }
        text.family(
            "reconnect_client_connection_duration_seconds", .histogram, "Time from the call to the connected connector."
        )
        connections.write(&text)
        text.single(
            "reconnect_client_ipv6_available", .gauge, "1 if the machine has an IPv6 address to use.", ipv6.reading)
    }
}

extension ConnectionTimes {
    fileprivate func write(_ text: inout Exposition) {
        for mode in ConnectionMode.all {
            for family in AddressFamily.all {
                text.sample(self[mode, family].reading, ("mode", mode.label), ("protocol", family.label))
            }
        }
    }
}

/// NaN before there is anything to divide by: no rule about a share fires then.
private func ratio(_ part: UInt64, _ whole: UInt64) -> Double {
    whole == 0 ? .nan : Double(part) / Double(whole)
}
