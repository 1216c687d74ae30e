import Foundation
import Reload
import Testing
import Wire

@testable import Engine

@Suite struct MetricsText {
    private let metrics = Metrics()

    private func parsed(_ reading: EngineStatistics = EngineStatistics()) throws -> Prometheus {
        try Prometheus(metrics.text(reading))
    }

    @Test func hasEverySeriesFromTheStart() throws {
        let text = try parsed()
        let needed = [
            "reconnect_requests_total", "reconnect_normal_answers_total", "reconnect_connections_total",
            "reconnect_connection_duration_seconds", "reconnect_session_hit_ratio", "reconnect_session_lookups_total",
            "reconnect_certificate_age_days", "reconnect_relay_ratio", "reconnect_ice_failure_ratio",
            "reconnect_reconnection_ratio", "reconnect_client_cache_hits_total", "reconnect_client_cache_misses_total",
            "reconnect_client_fast_attempts_total", "reconnect_client_fallbacks_total",
            "reconnect_client_connection_duration_seconds", "reconnect_client_ipv6_available",
        ]
        for name in needed { #expect(text.families[name] != nil, "\(name)") }
        #expect(text.names.allSatisfy { $0.hasPrefix("reconnect_") })
        // A share of nothing is not 0: an alarm below a bound would go off.
        for name in text.names where name.hasSuffix("_ratio") { #expect(text.value(name)?.isNaN == true, "\(name)") }
        #expect(text.families["reconnect_normal_answers_total"]?.samples.count == NormalReason.allCases.count)
        #expect(text.value("reconnect_normal_answers_total", ["reason": "other_fingerprint"]) == 0)
        #expect(text.value("reconnect_fast_reload", ["setting": "on"]) == 1)
        #expect(text.value("reconnect_store_up") == 1)
    }

    @Test func doesNotChangeItsOrder() throws {
        let before = try parsed()
        metrics.answered(mode: .fast)
        metrics.connected(mode: .fast, isIPv6: true, candidateType: .host, isRelayed: false, duration: .milliseconds(1))
        let after = try parsed()
        #expect(before.names == after.names)
        for name in before.names {
            let labels = { (text: Prometheus) in
                text.families[name]?.samples.map { $0.name + "\($0.labels.sorted { $0.key < $1.key })" }
            }
            #expect(labels(before) == labels(after))
        }
    }

    @Test func countsRequestsAndConnections() throws {
        metrics.answered(mode: .fast)
        metrics.answered(mode: .fast)
        metrics.answered(mode: .normal, reason: .otherFingerprint)
        metrics.answered(mode: .zeroSignaling)
        metrics.connected(
            mode: .fast, isIPv6: true, candidateType: .host, isRelayed: false, duration: .milliseconds(287))
        metrics.connected(
            mode: .fast, isIPv6: true, candidateType: .relay, isRelayed: true, duration: .milliseconds(300))
        metrics.connected(
            mode: .normal, isIPv6: false, candidateType: .peerReflexive, isRelayed: false, duration: .seconds(100))
        metrics.returned()
        metrics.failed(mode: .normal, iceFailure: true)
        metrics.failed(mode: .fast, iceFailure: false)
        let text = try parsed()
        #expect(text.value("reconnect_requests_total", ["mode": "fast"]) == 2)
        #expect(text.value("reconnect_requests_total", ["mode": "normal"]) == 1)
        #expect(text.value("reconnect_requests_total", ["mode": "zero_signaling"]) == 1)
        #expect(text.value("reconnect_normal_answers_total", ["reason": "other_fingerprint"]) == 1)
        #expect(text.value("reconnect_normal_answers_total", ["reason": "unknown"]) == 0)
        let fast6 = ["mode": "fast", "protocol": "ipv6"]
        #expect(text.value("reconnect_connections_total", fast6) == 2)
        let duration = "reconnect_connection_duration_seconds"
        #expect(text.value(duration + "_count", fast6) == 2)
        #expect(text.value(duration + "_sum", fast6) == 0.587)
        // A bound belongs to its bucket.
        #expect(text.value(duration + "_bucket", fast6.merging(["le": "0.3"]) { $1 }) == 2)
        #expect(text.value(duration + "_bucket", fast6.merging(["le": "0.2"]) { $1 }) == 0)
        let normal4 = ["mode": "normal", "protocol": "ipv4"]
        #expect(text.value(duration + "_bucket", normal4.merging(["le": "30"]) { $1 }) == 0)
        #expect(text.value(duration + "_bucket", normal4.merging(["le": "+Inf"]) { $1 }) == 1)
        #expect(text.value("reconnect_connections_by_candidate_total", ["type": "prflx"]) == 1)
        #expect(text.value("reconnect_relay_ratio") == 1.0 / 3)
        #expect(text.value("reconnect_reconnection_ratio") == 1.0 / 3)
        #expect(text.value("reconnect_ice_failure_ratio") == 0.2)
        #expect(text.value("reconnect_connections_failed_total", ["mode": "normal", "cause": "ice"]) == 1)
        #expect(text.value("reconnect_connections_failed_total", ["mode": "fast", "cause": "other"]) == 1)
    }

    @Test func countsSessionsAndTickets() throws {
        for hit in [true, true, false] { metrics.lookup(hit: hit) }
        metrics.lookupUnavailable()
        metrics.store(isUp: false)
        metrics.ticket(.issued)
        metrics.ticket(.issued)
        metrics.ticket(.accepted)
        metrics.ticket(.refused(.expired))
        metrics.ticket(.dropped)
        let text = try parsed()
        #expect(text.value("reconnect_session_lookups_total", ["result": "hit"]) == 2)
        #expect(text.value("reconnect_session_lookups_total", ["result": "unavailable"]) == 1)
        #expect(text.value("reconnect_session_hit_ratio") == 0.5)
        #expect(text.value("reconnect_store_up") == 0)
        #expect(text.value("reconnect_tickets_issued_total") == 2)
        #expect(text.value("reconnect_tickets_accepted_total") == 1)
        #expect(text.value("reconnect_tickets_refused_total", ["reason": "expired"]) == 1)
        #expect(text.value("reconnect_tickets_refused_total", ["reason": "disabled"]) == 0)
        #expect(text.value("reconnect_tickets_dropped_total") == 1)
    }

    @Test func showsTheSwitch() throws {
        metrics.tripped()
        #expect(try parsed().value("reconnect_fast_reload_tripped") == 1)
        metrics.rearmed()
        #expect(try parsed().value("reconnect_fast_reload_tripped") == 0)
        metrics.tripped()
        metrics.setSwitch(.off)
        var text = try parsed()
        #expect(text.value("reconnect_fast_reload", ["setting": "off"]) == 1)
        #expect(text.value("reconnect_fast_reload", ["setting": "on"]) == 0)
        #expect(text.value("reconnect_fast_reload_tripped") == 1)
        metrics.setSwitch(.on)
        text = try parsed()
        #expect(text.value("reconnect_fast_reload_tripped") == 0)
        #expect(text.value("reconnect_fast_reload_trips_total") == 2)
    }

    @Test func showsTheEngine() throws {
        var reading = EngineStatistics()
        reading.peers = 3
        reading.sessions = 7
        reading.datagramsDropped = .max
        reading.bytesReceived = 123_456
        reading.certificateAgeSeconds = 129_600
        reading.eventsQueued = 5
        metrics.setMappedAddresses(2)
        metrics.rotated(succeeded: false)
        let text = try parsed(reading)
        #expect(text.value("reconnect_peers") == 3)
        #expect(text.value("reconnect_sessions") == 7)
        #expect(text.value("reconnect_datagrams_dropped_total") == Double(UInt64.max))
        #expect(text.value("reconnect_received_bytes_total") == 123_456)
        #expect(text.value("reconnect_certificate_age_seconds") == 129_600)
        #expect(text.value("reconnect_certificate_age_days") == 1.5)
        #expect(text.value("reconnect_events_queued") == 5)
        #expect(text.value("reconnect_mapped_addresses") == 2)
        #expect(text.value("reconnect_certificate_rotations_total", ["result": "failure"]) == 1)
    }

    @Test func countsWhatConnectorsDo() throws {
        let client = metrics.client
        client.cacheHit()
        client.cacheMiss()
        client.cacheMiss()
        client.fastAttempt(isIPv6: true)
        client.fallback(isIPv6: true, reason: .timeout)
        client.fallback(isIPv6: nil, reason: .notCached)
        client.fallback(isIPv6: false, reason: .fingerprintMismatch)
        client.fallback(isIPv6: false, reason: .internalDefect)
        client.connected(mode: .zeroSignaling, isIPv6: true, duration: .milliseconds(40))
        client.ipv6Available(true)
        let text = try parsed()
        #expect(text.value("reconnect_client_cache_hits_total") == 1)
        #expect(text.value("reconnect_client_cache_misses_total") == 2)
        #expect(text.value("reconnect_client_fast_attempts_total", ["protocol": "ipv6"]) == 1)
        let fallbacks = "reconnect_client_fallbacks_total"
        #expect(text.value(fallbacks, ["protocol": "ipv6", "reason": "timeout"]) == 1)
        #expect(text.value(fallbacks, ["protocol": "none", "reason": "not_cached"]) == 1)
        #expect(text.value(fallbacks, ["protocol": "ipv4", "reason": "dtls_failed"]) == 1)
        #expect(text.value(fallbacks, ["protocol": "ipv4", "reason": "other"]) == 1)
        let connection = ["mode": "zero_signaling", "protocol": "ipv6"]
        #expect(text.value("reconnect_client_connection_duration_seconds_sum", connection) == 0.04)
        #expect(text.value("reconnect_client_ipv6_available") == 1)
    }

    @Test func escapesWhatLabelsAndHelpCannotHold() throws {
        let hostile = "a\\b\"c\nd\\n}, x=\"é"
        var text = Exposition()
        text.family("odd", .gauge, "one\ntwo \\ \"three\"")
        text.sample(1, ("name", hostile), ("other", ""))
        #expect(
            text.text.hasPrefix("# HELP odd one\\ntwo \\\\ \"three\"\n# TYPE odd gauge\nodd{name=\"a\\\\b\\\"c\\nd"))
        #expect(try Prometheus(text.text).value("odd", ["name": hostile, "other": ""]) == 1)
    }

    @Test func writesNumbersThatPrometheusReads() {
        #expect(Exposition.number(0) == "0")
        #expect(Exposition.number(0.005) == "0.005")
        #expect(Exposition.number(30) == "30")
        #expect(Exposition.number(.nan) == "NaN")
        #expect(Exposition.number(-.infinity) == "-Inf")
        #expect(Exposition.number(1e300) == "1e+300")
    }

    @Test func survivesOddDurations() throws {
        for duration in [Duration(nanoseconds: .min), .zero, .forever, .nanoseconds(-1)] {
            metrics.connected(mode: .fast, isIPv6: true, candidateType: .host, isRelayed: false, duration: duration)
        }
        metrics.connected(mode: .fast, isIPv6: true, candidateType: .host, isRelayed: false, duration: .forever)
        metrics.connected(mode: .fast, isIPv6: true, candidateType: .host, isRelayed: false, duration: .forever)
        #expect(try parsed().value("reconnect_connections_total", ["mode": "fast", "protocol": "ipv6"]) == 6)
    }

    @Test func losesNothingBetweenThreads() throws {
        let metrics = metrics
        concurrently(4) { index in
            for round in 0..<2000 {
                metrics.answered(mode: .normal, reason: .unknown)
                metrics.connected(
                    mode: .normal, isIPv6: index % 2 == 0, candidateType: .host, isRelayed: false,
                    duration: .milliseconds(Int64(round)))
                metrics.client.fallback(isIPv6: true, reason: .timeout)
                // A reading in between fits itself.
                if round % 500 == 0 { #expect(throws: Never.self) { try Prometheus(metrics.text(EngineStatistics())) } }
            }
        }
        let text = try parsed()
        #expect(text.value("reconnect_normal_answers_total", ["reason": "unknown"]) == 8000)
        #expect(text.value("reconnect_connections_total", ["mode": "normal", "protocol": "ipv6"]) == 4000)
        let sum = text.value("reconnect_connection_duration_seconds_sum", ["mode": "normal", "protocol": "ipv4"])
        #expect(sum == 3998)
        #expect(
            text.value("reconnect_client_fallbacks_total", ["protocol": "ipv6", "reason": "timeout"]) == 8000)
    }

    /// docs/metrics.md lists each series as `| name | type | labels | meaning |`.
    @Test func isDocumented() throws {
        let page = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../docs/metrics.md")
        var documented: [String: String] = [:]
        for line in try String(contentsOf: page, encoding: .utf8).split(separator: "\n") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 4, cells[0].hasPrefix("`reconnect_"),
                !cells[0].hasPrefix("`reconnect_replay_")
            else { continue }
            let name = cells[0].trimmingCharacters(in: ["`"])
            #expect(documented[name] == nil, "\(name) twice")
            documented[name] = cells[1] + " " + cells[2].replacing("`", with: "")
        }
        let written = try parsed().families.mapValues { family in
            family.type + " " + family.labelNames.sorted().joined(separator: ", ")
        }
        #expect(
            documented.mapValues { $0.trimmingCharacters(in: .whitespaces) }
                == written.mapValues { $0.trimmingCharacters(in: .whitespaces) })
    }
}

@Suite struct EngineMetrics {
    @Test func followAClient() throws {
        let (client, server) = (try Host(), try Host())
        let first = try Link.connected(client, server)
        let second = try Link.connected(client, server, Link.Signaling(token: first.token))
        #expect(second.isFast)
        _ = try server.state(.closed, of: first.answering)
        // A third does not connect: its certificate is not the announced one.
        let forged = "a=fingerprint:sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":")
        let own = "a=fingerprint:" + client.engine.fingerprint(.sha256)
        var third = Link(client, server)
        try third.negotiate(Link.Signaling(token: second.token, offer: { $0.replacing(own, with: forged) }))
        _ = try server.state(.closed, of: third.answering)
        let text = try Prometheus(try server.engine.metrics())
        #expect(text.value("reconnect_requests_total", ["mode": "normal"]) == 2)
        #expect(text.value("reconnect_requests_total", ["mode": "fast"]) == 1)
        #expect(text.value("reconnect_normal_answers_total", ["reason": "no_token"]) == 1)
        #expect(text.value("reconnect_normal_answers_total", ["reason": "other_fingerprint"]) == 1)
        #expect(text.value("reconnect_session_lookups_total", ["result": "hit"]) == 1)
        #expect(text.value("reconnect_session_lookups_total", ["result": "miss"]) == 1)
        #expect(text.value("reconnect_session_hit_ratio") == 0.5)
        for mode in ["normal", "fast"] {
            let labels = ["mode": mode, "protocol": "ipv4"]
            #expect(text.value("reconnect_connections_total", labels) == 1)
            #expect(text.value("reconnect_connection_duration_seconds_sum", labels).map { $0 > 0 && $0 < 30 } == true)
        }
        #expect(text.value("reconnect_connections_failed_total", ["mode": "normal", "cause": "other"]) == 1)
        #expect(text.value("reconnect_connections_failed_total", ["mode": "normal", "cause": "ice"]) == 0)
        #expect(text.value("reconnect_ice_failure_ratio") == 0)
        #expect(text.value("reconnect_reconnections_total") == 1)
        #expect(text.value("reconnect_reconnection_ratio") == 0.5)
        #expect(text.value("reconnect_peers_connected_total") == 2)
        #expect(text.value("reconnect_sessions") == 1)
        #expect(text.value("reconnect_received_bytes_total").map { $0 > 1000 } == true)
    }

    @Test func comeFromOneCall() throws {
        let host = try Host { $0.fastReload = .partial }
        let text = try Prometheus(try host.engine.metrics())
        #expect(text.value("reconnect_fast_reload", ["setting": "partial"]) == 1)
        #expect(text.value("reconnect_certificate_age_seconds").map { $0 < 3600 } == true)
        #expect(text.value("reconnect_peers") == 0)
    }
}
