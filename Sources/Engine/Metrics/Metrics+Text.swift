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
        text.family("reconnect_ice_failure_ratio", .gauge, "Share of the peers for which no path was found.")
        text.sample(ratio(iceFailed, ended))
        text.family(
            "reconnect_connections_by_candidate_total", .counter,
            "Authenticated connections, by the type of the other side's candidate.")
        for type in CandidateType.all { text.sample(candidateTypes[type].reading, ("type", type.label)) }
        text.family("reconnect_relay_ratio", .gauge, "Share of the connections that run over a relay.")
        text.sample(ratio(candidateTypes[.relay].reading, made))
        let returned = returns.reading
        text.family("reconnect_reconnections_total", .counter, "Connections that came back to their session.")
        text.sample(returned)
        text.family("reconnect_reconnection_ratio", .gauge, "Share of the connections that came back to their session.")
        text.sample(ratio(returned, made))
    }

    private func writeSessions(_ text: inout Exposition, _ reading: EngineStatistics) {
        text.family("reconnect_sessions", .gauge, "Sessions remembered now.")
        text.sample(reading.sessions)
        text.family("reconnect_session_lookups_total", .counter, "Tokens looked up in the session store, by result.")
        for result in LookupResult.all { text.sample(lookups[result].reading, ("result", result.label)) }
        let hits = lookups[.hit].reading
        text.family("reconnect_session_hit_ratio", .gauge, "Share of the looked-up tokens that led to a session.")
        text.sample(ratio(hits, lookups.total))
        text.family("reconnect_store_up", .gauge, "1 while the session store answers, 0 while it is away.")
        text.sample(storeIsUp.reading)
    }

    private func writeTickets(_ text: inout Exposition) {
        text.family("reconnect_tickets_issued_total", .counter, "Tickets given out.")
        text.sample(ticketsIssued.reading)
        text.family("reconnect_tickets_accepted_total", .counter, "Tickets that made a peer.")
        text.sample(ticketsAccepted.reading)
        text.family(
            "reconnect_tickets_refused_total", .counter, "Tickets refused to whoever had their password, by reason.")
        for reason in TicketRefusal.all { text.sample(ticketsRefused[reason].reading, ("reason", reason.label)) }
        text.family(
            "reconnect_tickets_dropped_total", .counter,
            "Tickets dropped without an answer: damaged, not of the engine's keys, or too many.")
        text.sample(ticketsDropped.reading)
    }

    private func writeFastReload(_ text: inout Exposition) {
        text.family("reconnect_fast_reload", .gauge, "1 for the position of the kill switch, 0 for the others.")
        let setting = fastReload.reading
        for position in FastReloadSetting.all {
            text.sample(Int(position.rawValue) == setting ? 1 : 0, ("setting", position.label))
        }
        text.family("reconnect_fast_reload_tripped", .gauge, "1 while fast reload has switched itself off.")
        text.sample(isTripped.reading)
        text.family("reconnect_fast_reload_trips_total", .counter, "How often fast reload has switched itself off.")
        text.sample(trips.reading)
    }

    private func writeCertificate(_ text: inout Exposition, _ reading: EngineStatistics) {
        text.family("reconnect_certificate_age_seconds", .gauge, "Age of the certificate.")
        text.sample(Int(clamping: reading.certificateAgeSeconds))
        text.family("reconnect_certificate_age_days", .gauge, "Age of the certificate in days.")
        text.sample(Double(reading.certificateAgeSeconds) / 86_400)
        text.family("reconnect_certificate_rotations_total", .counter, "Certificates replaced, by result.")
        text.sample(rotations.reading, ("result", "success"))
        text.sample(rotationFailures.reading, ("result", "failure"))
    }

    private func writeNetwork(_ text: inout Exposition, _ reading: EngineStatistics) {
        text.family("reconnect_peers", .gauge, "Peers now.")
        text.sample(reading.peers)
        text.family("reconnect_peers_connected_total", .counter, "Peers that connected.")
        text.sample(reading.peersConnected)
        text.family("reconnect_peers_failed_total", .counter, "Peers that never connected or ended by an error.")
        text.sample(reading.peersFailed)
        text.family("reconnect_datagrams_received_total", .counter, "UDP datagrams received.")
        text.sample(reading.datagramsReceived)
        text.family("reconnect_datagrams_sent_total", .counter, "UDP datagrams sent.")
        text.sample(reading.datagramsSent)
        text.family(
            "reconnect_datagrams_dropped_total", .counter, "UDP datagrams dropped: from strangers, malformed or forged."
        )
        text.sample(reading.datagramsDropped)
        text.family("reconnect_received_bytes_total", .counter, "UDP payload received.")
        text.sample(reading.bytesReceived)
        text.family("reconnect_sent_bytes_total", .counter, "UDP payload sent.")
        text.sample(reading.bytesSent)
        text.family("reconnect_send_errors_total", .counter, "UDP datagrams that the operating system refused.")
        text.sample(reading.sendErrors)
        text.family("reconnect_events_queued", .gauge, "Events that the host has not taken yet.")
        text.sample(reading.eventsQueued)
        text.family("reconnect_mapped_addresses", .gauge, "Addresses outside that STUN servers tell now.")
        text.sample(mappedAddresses.reading)
    }
}

extension ClientMetrics {
    fileprivate func write(_ text: inout Exposition) {
        text.family("reconnect_client_cache_hits_total", .counter, "Connects that found a usable cache entry.")
        text.sample(cacheHits.reading)
        text.family("reconnect_client_cache_misses_total", .counter, "Connects that found none.")
        text.sample(cacheMisses.reading)
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
        text.family("reconnect_client_ipv6_available", .gauge, "1 if the machine has an IPv6 address to use.")
        text.sample(ipv6.reading)
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
