import CReconnect
import Reload
import Testing

@testable import Engine

/// The numbers in Swift are those of the header.
@Suite struct Contract {
    @Test func statusNumbers() {
        let header: [Status: Int] = [
            .ok: RECONNECT_OK, .invalidArgument: RECONNECT_INVALID_ARGUMENT, .invalidHandle: RECONNECT_INVALID_HANDLE,
            .tooSmall: RECONNECT_TOO_SMALL, .wouldBlock: RECONNECT_WOULD_BLOCK, .closed: RECONNECT_CLOSED,
            .tooLarge: RECONNECT_TOO_LARGE, .limit: RECONNECT_LIMIT, .malformedJSON: RECONNECT_MALFORMED_JSON,
            .malformedSDP: RECONNECT_MALFORMED_SDP, .unacceptable: RECONNECT_UNACCEPTABLE,
            .wrongState: RECONNECT_WRONG_STATE, .portInUse: RECONNECT_PORT_IN_USE,
            .noPermission: RECONNECT_NO_PERMISSION, .noDescriptors: RECONNECT_NO_DESCRIPTORS,
            .noMemory: RECONNECT_NO_MEMORY, .noAddress: RECONNECT_NO_ADDRESS,
            .certificateUnusable: RECONNECT_CERTIFICATE_UNUSABLE, .storage: RECONNECT_STORAGE,
            .forked: RECONNECT_FORKED, .system: RECONNECT_SYSTEM, .internalDefect: RECONNECT_INTERNAL,
            .peerGone: RECONNECT_PEER_GONE, .replaced: RECONNECT_REPLACED, .iceFailed: RECONNECT_ICE_FAILED,
            .consentExpired: RECONNECT_CONSENT_EXPIRED, .dtlsFailed: RECONNECT_DTLS_FAILED,
            .fingerprintMismatch: RECONNECT_FINGERPRINT_MISMATCH, .sctpFailed: RECONNECT_SCTP_FAILED,
            .timeout: RECONNECT_TIMEOUT, .notCached: RECONNECT_NOT_CACHED, .cacheStale: RECONNECT_CACHE_STALE,
            .sessionUnknown: RECONNECT_SESSION_UNKNOWN, .fastDisabled: RECONNECT_FAST_DISABLED,
            .networkChanged: RECONNECT_NETWORK_CHANGED, .overtaken: RECONNECT_OVERTAKEN,
            .signalingFailed: RECONNECT_SIGNALING_FAILED, .ticketRefused: RECONNECT_TICKET_REFUSED,
            .channelRefused: RECONNECT_CHANNEL_REFUSED, .unknownRoom: RECONNECT_UNKNOWN_ROOM,
            .unknownUser: RECONNECT_UNKNOWN_USER, .unknownRecipient: RECONNECT_UNKNOWN_RECIPIENT,
            .stale: RECONNECT_STALE, .throttled: RECONNECT_THROTTLED, .unavailable: RECONNECT_UNAVAILABLE,
            .turnUnreachable: RECONNECT_TURN_UNREACHABLE, .turnUnauthorized: RECONNECT_TURN_UNAUTHORIZED,
            .turnForbidden: RECONNECT_TURN_FORBIDDEN, .turnQuota: RECONNECT_TURN_QUOTA,
            .turnTLSFailed: RECONNECT_TURN_TLS_FAILED, .turnLost: RECONNECT_TURN_LOST,
            .turnMalformed: RECONNECT_TURN_MALFORMED, .turnRefused: RECONNECT_TURN_REFUSED,
        ]
        for status in Status.allCases { #expect(Int(status.rawValue) == header[status]) }
        #expect(header.count == Status.allCases.count)
    }

    @Test func eventNumbers() {
        let header: [(Event.Kind, Int)] = [
            (.log, RECONNECT_EVENT_LOG), (.answer, RECONNECT_EVENT_ANSWER), (.offer, RECONNECT_EVENT_OFFER),
            (.result, RECONNECT_EVENT_RESULT), (.peerState, RECONNECT_EVENT_PEER_STATE),
            (.session, RECONNECT_EVENT_SESSION), (.channelOpen, RECONNECT_EVENT_CHANNEL_OPEN),
            (.message, RECONNECT_EVENT_MESSAGE), (.bufferedLow, RECONNECT_EVENT_BUFFERED_LOW),
            (.channelClosed, RECONNECT_EVENT_CHANNEL_CLOSED), (.statistics, RECONNECT_EVENT_STATISTICS),
            (.addresses, RECONNECT_EVENT_ADDRESSES), (.signal, RECONNECT_EVENT_SIGNAL),
            (.attempt, RECONNECT_EVENT_ATTEMPT), (.connector, RECONNECT_EVENT_CONNECTOR),
            (.fastReload, RECONNECT_EVENT_FAST_RELOAD), (.certificate, RECONNECT_EVENT_CERTIFICATE),
            (.store, RECONNECT_EVENT_STORE), (.peerSignal, RECONNECT_EVENT_PEER_SIGNAL),
            (.network, RECONNECT_EVENT_NETWORK), (.turn, RECONNECT_EVENT_TURN), (.path, RECONNECT_EVENT_PATH),
            (.restart, RECONNECT_EVENT_RESTART),
        ]
        for (kind, number) in header { #expect(Int(kind.rawValue) == number) }
        #expect(Int(Event.returned) == Int(RECONNECT_FLAG_RETURNED) && Int(Event.remote) == Int(RECONNECT_FLAG_REMOTE))
        #expect(
            Int(Event.unordered) == Int(RECONNECT_FLAG_UNORDERED) && Int(Event.partial) == Int(RECONNECT_FLAG_PARTIAL))
        #expect(Int(Event.ticket) == Int(RECONNECT_FLAG_TICKET))
        #expect(Mode.normal.number == UInt32(RECONNECT_MODE_NORMAL) && Mode.fast.number == UInt32(RECONNECT_MODE_FAST))
        #expect(Mode.zeroSignaling.number == UInt32(RECONNECT_MODE_ZERO_SIGNALING))
        #expect(Int(FastReloadSetting.off.rawValue) == Int(RECONNECT_FAST_RELOAD_OFF))
        #expect(Int(FastReloadSetting.on.rawValue) == Int(RECONNECT_FAST_RELOAD_ON))
        #expect(Int(FastReloadSetting.partial.rawValue) == Int(RECONNECT_FAST_RELOAD_PARTIAL))
        #expect(Int(PeerState.connecting.rawValue) == Int(RECONNECT_PEER_CONNECTING))
        #expect(Int(PeerState.connected.rawValue) == Int(RECONNECT_PEER_CONNECTED))
        #expect(Int(PeerState.disconnected.rawValue) == Int(RECONNECT_PEER_DISCONNECTED))
        #expect(Int(PeerState.closed.rawValue) == Int(RECONNECT_PEER_CLOSED))
    }

    @Test func levelNumbersAndSizes() {
        #expect(Int(LogLevel.error.rawValue) == Int(RECONNECT_LOG_ERROR))
        #expect(Int(LogLevel.warning.rawValue) == Int(RECONNECT_LOG_WARNING))
        #expect(Int(LogLevel.info.rawValue) == Int(RECONNECT_LOG_INFO))
        #expect(Int(LogLevel.debug.rawValue) == Int(RECONNECT_LOG_DEBUG))
        #expect(MemoryLayout<reconnect_event_t>.size == 128)
    }

    @Test func connectivityNumbers() {
        #expect(Int(ICEPolicy.all.rawValue) == Int(RECONNECT_ICE_POLICY_ALL))
        #expect(Int(ICEPolicy.relay.rawValue) == Int(RECONNECT_ICE_POLICY_RELAY))
        #expect(ICEPolicy(rawValue: UInt32(RECONNECT_ICE_POLICY_DEFAULT)) == nil)
        #expect(Int(NegotiationStyle.manual.rawValue) == Int(RECONNECT_NEGOTIATION_MANUAL))
        #expect(Int(NegotiationStyle.polite.rawValue) == Int(RECONNECT_NEGOTIATION_POLITE))
        #expect(Int(NegotiationStyle.impolite.rawValue) == Int(RECONNECT_NEGOTIATION_IMPOLITE))
        #expect(NegotiationStyle(rawValue: 3) == nil && ICEPolicy(rawValue: 3) == nil)
        #expect(RECONNECT_VERSION_MAJOR == 1 && RECONNECT_VERSION_MINOR == 3)
    }

    /// Structs only grow at their ends: a host that was compiled for an older header knows what comes before.
    @Test func placesOfMembers() {
        typealias Engine = reconnect_engine_config_t
        #expect(MemoryLayout<Engine>.offset(of: \.session_store) == 104)
        #expect(MemoryLayout<Engine>.offset(of: \.disable_trip) == 232)
        #expect(MemoryLayout<Engine>.offset(of: \.turn_servers) == 240)
        #expect(MemoryLayout<Engine>.offset(of: \.ice_policy) == 296)
        #expect(MemoryLayout<Engine>.offset(of: \.tcp_port) == 304)
        #expect(MemoryLayout<Engine>.offset(of: \.timers) == 312 && MemoryLayout<Engine>.size == 320)
        typealias Peer = reconnect_peer_config_t
        #expect(MemoryLayout<Peer>.offset(of: \.channel_count) == 24)
        #expect(MemoryLayout<Peer>.offset(of: \.ice_policy) == 32)
        #expect(MemoryLayout<Peer>.offset(of: \.negotiation) == 36 && MemoryLayout<Peer>.size == 40)
        typealias Statistics = reconnect_peer_statistics_t
        #expect(MemoryLayout<Statistics>.offset(of: \.local_address) == 96)
        #expect(MemoryLayout<Statistics>.offset(of: \.local_type) == 224)
        #expect(MemoryLayout<Statistics>.offset(of: \.packets_sent) == 320)
        #expect(MemoryLayout<Statistics>.offset(of: \.candidates_refused) == 376)
        #expect(MemoryLayout<Statistics>.size == 384)
        #expect(MemoryLayout<reconnect_turn_server_t>.offset(of: \.secret) == 32)
        #expect(MemoryLayout<reconnect_turn_server_t>.size == 40)
        #expect(MemoryLayout<reconnect_timers_t>.offset(of: \.patience_ms) == 52)
        #expect(MemoryLayout<reconnect_timers_t>.size == 56)
    }
}
