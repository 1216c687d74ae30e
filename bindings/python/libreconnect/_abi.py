"""The structs, constants and signatures of reconnect.h, for ctypes."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

ABI_MAJOR = 1

ICE_FULL, ICE_LITE = 0, 1
RELIABLE, MAX_RETRANSMITS, MAX_LIFETIME = 0, 1, 2
TEXT, BINARY = 1, 2
FLAG_RETURNED, FLAG_REMOTE, FLAG_UNORDERED, FLAG_PARTIAL, FLAG_TICKET = 1, 2, 4, 8, 16
ICE_POLICY_DEFAULT, ICE_POLICY_ALL, ICE_POLICY_RELAY = 0, 1, 2
TCP_ACTIVE, TCP_PASSIVE = 1, 2
NEGOTIATION_MANUAL, NEGOTIATION_POLITE, NEGOTIATION_IMPOLITE = 0, 1, 2
NETWORK_ADDRESSES, NETWORK_ROUTE, NETWORK_ONLINE = 1, 2, 4
INTERFACES_TEMPORARY, INTERFACES_DEPRECATED, INTERFACES_BRIDGES, INTERFACES_LOOPBACK = 1, 2, 4, 8

(
    EVENT_LOG,
    EVENT_ANSWER,
    EVENT_OFFER,
    EVENT_RESULT,
    EVENT_PEER_STATE,
    EVENT_SESSION,
    EVENT_CHANNEL_OPEN,
    EVENT_MESSAGE,
    EVENT_BUFFERED_LOW,
    EVENT_CHANNEL_CLOSED,
    EVENT_STATISTICS,
    EVENT_ADDRESSES,
    EVENT_SIGNAL,
    EVENT_ATTEMPT,
    EVENT_CONNECTOR,
    EVENT_FAST_RELOAD,
    EVENT_CERTIFICATE,
    EVENT_STORE,
    EVENT_PEER_SIGNAL,
    EVENT_NETWORK,
    EVENT_TURN,
    EVENT_PATH,
    EVENT_RESTART,
) = range(1, 24)

(
    REPLAY_PUBLISH,
    REPLAY_JOIN,
    REPLAY_RECOVER,
    REPLAY_ACKNOWLEDGE,
    REPLAY_DROP,
    REPLAY_LEAVE,
    REPLAY_STATE_OF,
    REPLAY_QUALITY,
    REPLAY_SUBSCRIBE,
    REPLAY_UNSUBSCRIBE,
) = range(1, 11)
(
    REPLAY_EVENT_MESSAGE,
    REPLAY_EVENT_GAP,
    REPLAY_EVENT_STORE,
    REPLAY_EVENT_RETURNED,
    REPLAY_EVENT_LOG,
) = range(32, 37)
REPLAY_RESUME, REPLAY_PRIORITY, REPLAY_DUPLICATE, REPLAY_RECONNECTION, REPLAY_CONNECTED, REPLAY_DEGRADED = (
    1,
    2,
    4,
    8,
    16,
    32,
)


class EngineHandle(ctypes.Structure):
    _fields_ = [("id", c_uint64)]


class PeerHandle(ctypes.Structure):
    _fields_ = [("id", c_uint64)]


class ChannelHandle(ctypes.Structure):
    _fields_ = [("id", c_uint64)]


class ConnectorHandle(ctypes.Structure):
    _fields_ = [("id", c_uint64)]


class ChannelConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("unordered", c_uint32),
        ("label", c_char_p),
        ("protocol", c_char_p),
        ("reliability", c_uint32),
        ("reliability_value", c_uint32),
        ("negotiated", c_uint32),
        ("id", c_uint32),
        ("low_water", c_uint64),
        ("tag", c_uint64),
    ]


class PeerConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("dtls_active", c_uint32),
        ("tag", c_uint64),
        ("channels", POINTER(ChannelConfig)),
        ("channel_count", c_size_t),
        ("ice_policy", c_uint32),
        ("negotiation", c_uint32),
    ]


class TURNServer(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("lifetime_ms", c_uint32),
        ("url", c_char_p),
        ("username", c_char_p),
        ("password", c_char_p),
        ("secret", c_char_p),
    ]


class Timers(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("check_interval_ms", c_uint32),
        ("consent_interval_ms", c_uint32),
        ("heartbeat_ms", c_uint32),
        ("suspect_ms", c_uint32),
        ("disconnect_timeout_ms", c_uint32),
        ("failed_timeout_ms", c_uint32),
        ("connect_timeout_ms", c_uint32),
        ("standby_interval_ms", c_uint32),
        ("restart_timeout_ms", c_uint32),
        ("restart_attempts", c_uint32),
        ("restart_min_ms", c_uint32),
        ("restart_max_ms", c_uint32),
        ("patience_ms", c_uint32),
    ]


class EngineConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("ice_mode", c_uint32),
        ("bind_address", c_char_p),
        ("addresses", POINTER(c_char_p)),
        ("address_count", c_size_t),
        ("certificate_path", c_char_p),
        ("port", c_uint16),
        ("reserved0", c_uint16),
        ("log_level", c_uint32),
        ("max_peers", c_uint32),
        ("max_channels", c_uint32),
        ("max_message_size", c_uint64),
        ("send_high_water", c_uint64),
        ("receive_window", c_uint64),
        ("connect_timeout_ms", c_uint32),
        ("disconnect_timeout_ms", c_uint32),
        ("failed_timeout_ms", c_uint32),
        ("session_ttl_ms", c_uint32),
        ("max_sessions", c_uint32),
        ("disable_fast_reload", c_uint32),
        ("session_store", c_char_p),
        ("session_prefix", c_char_p),
        ("store_timeout_ms", c_uint32),
        ("disable_tickets", c_uint32),
        ("ticket_secret", c_char_p),
        ("ticket_secret_size", c_size_t),
        ("old_ticket_secret", c_char_p),
        ("old_ticket_secret_size", c_size_t),
        ("returning_peer", POINTER(PeerConfig)),
        ("stun_servers", POINTER(c_char_p)),
        ("stun_server_count", c_size_t),
        ("public_addresses", POINTER(c_char_p)),
        ("public_address_count", c_size_t),
        ("interfaces", c_uint32),
        ("certificate_days", c_uint32),
        ("fast_timeout_ms", c_uint32),
        ("trip_window_ms", c_uint32),
        ("trip_failure_percent", c_uint32),
        ("trip_unstable_percent", c_uint32),
        ("trip_min_attempts", c_uint32),
        ("trip_rearm_ms", c_uint32),
        ("disable_trip", c_uint32),
        ("reserved1", c_uint32),
        ("turn_servers", POINTER(TURNServer)),
        ("turn_server_count", c_size_t),
        ("turn_ca_path", c_char_p),
        ("allowed_interfaces", POINTER(c_char_p)),
        ("allowed_interface_count", c_size_t),
        ("denied_interfaces", POINTER(c_char_p)),
        ("denied_interface_count", c_size_t),
        ("ice_policy", c_uint32),
        ("tcp", c_uint32),
        ("tcp_port", c_uint16),
        ("reserved2", c_uint16),
        ("disable_mdns", c_uint32),
        ("timers", POINTER(Timers)),
    ]


class EngineStatistics(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("peers", c_uint32),
        ("sessions", c_uint64),
        ("answers_fast", c_uint64),
        ("answers_normal", c_uint64),
        ("peers_connected", c_uint64),
        ("peers_failed", c_uint64),
        ("sessions_returned", c_uint64),
        ("datagrams_received", c_uint64),
        ("datagrams_sent", c_uint64),
        ("bytes_received", c_uint64),
        ("bytes_sent", c_uint64),
        ("datagrams_dropped", c_uint64),
        ("send_errors", c_uint64),
        ("certificate_age_seconds", c_uint64),
        ("events_queued", c_uint64),
    ]


class Event(ctypes.Structure):
    _fields_ = [
        ("type", c_uint32),
        ("status", c_int32),
        ("tag", c_uint64),
        ("peer", PeerHandle),
        ("channel", ChannelHandle),
        ("data", c_void_p),
        ("size", c_size_t),
        ("extra", c_void_p),
        ("extra_size", c_size_t),
        ("number", c_int64),
        ("duration_ns", c_int64),
        ("kind", c_uint32),
        ("flags", c_uint32),
        ("batch", c_uint64),
        ("connector", ConnectorHandle),
        ("reserved", c_uint64 * 3),
    ]


class ConnectorConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("policy", c_uint32),
        ("key", c_char_p),
        ("cache_path", c_char_p),
        ("fast_timeout_ms", c_uint32),
        ("normal_timeout_ms", c_uint32),
        ("max_cache_age_ms", c_uint32),
        ("disable_tickets", c_uint32),
        ("peer", POINTER(PeerConfig)),
        ("tag", c_uint64),
    ]


class PeerStatistics(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("channels", c_uint32),
        ("ice_ns", c_uint64),
        ("dtls_ns", c_uint64),
        ("sctp_ns", c_uint64),
        ("round_trip_ns", c_uint64),
        ("bytes_sent", c_uint64),
        ("bytes_received", c_uint64),
        ("messages_sent", c_uint64),
        ("messages_received", c_uint64),
        ("retransmissions", c_uint64),
        ("congestion_window", c_uint64),
        ("buffered", c_uint64),
        ("local_address", c_char * 64),
        ("remote_address", c_char * 64),
        ("local_type", c_char * 8),
        ("remote_type", c_char * 8),
        ("transport", c_char * 8),
        ("relay_transport", c_char * 8),
        ("relay_address", c_char * 64),
        ("packets_sent", c_uint64),
        ("packets_received", c_uint64),
        ("checks_sent", c_uint64),
        ("checks_received", c_uint64),
        ("path_changes", c_uint64),
        ("restarts", c_uint64),
        ("generation", c_uint32),
        ("standby", c_uint32),
        ("candidates_refused", c_uint64),
    ]


class ReplayHandle(ctypes.Structure):
    _fields_ = [("id", c_uint64)]


class ReplayConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("window", c_uint32),
        ("max_window", c_uint32),
        ("message_ttl_ms", c_uint32),
        ("state_ttl_ms", c_uint32),
        ("max_message_size", c_uint32),
        ("max_room_bytes", c_uint64),
        ("max_bytes", c_uint64),
        ("max_rooms", c_uint32),
        ("max_members", c_uint32),
        ("max_members_per_room", c_uint32),
        ("max_kept", c_uint32),
        ("max_batch", c_uint32),
        ("max_batch_bytes", c_uint32),
        ("recoveries_per_second", c_uint32),
        ("recovery_burst", c_uint32),
        ("trust_users", c_uint32),
        ("replay_kept_on_loss", c_uint32),
        ("max_keys", c_uint32),
        ("key_ttl_ms", c_uint32),
        ("store", c_char_p),
        ("prefix", c_char_p),
        ("store_timeout_ms", c_uint32),
        ("durability", c_uint32),
        ("breaker_window_ms", c_uint32),
        ("breaker_operations", c_uint32),
        ("breaker_percent", c_uint32),
        ("breaker_open_ms", c_uint32),
        ("secret", c_char_p),
        ("secret_size", c_size_t),
        ("compression", c_uint32),
        ("max_pending", c_uint32),
        ("latency_ms", c_double * 2),
        ("loss_percent", c_double * 2),
        ("jitter_ms", c_double * 2),
        ("bandwidth_kbps", c_double * 2),
        ("hysteresis", c_double),
    ]


class ReplayStatistics(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("store", c_uint32),
        ("rooms", c_uint64),
        ("members", c_uint64),
        ("bytes_held", c_uint64),
        ("published", c_uint64),
        ("duplicates", c_uint64),
        ("joins", c_uint64),
        ("fresh", c_uint64),
        ("recovered", c_uint64),
        ("recovered_empty", c_uint64),
        ("lost", c_uint64 * 7),
        ("messages_replayed", c_uint64),
        ("messages_live", c_uint64),
        ("gaps", c_uint64),
        ("throttled", c_uint64),
        ("store_operations", c_uint64),
        ("store_failures", c_uint64),
        ("without_store", c_uint64),
        ("events_queued", c_uint64),
    ]


# Operations and events of replay buffers come and go by the thousand: these are packed and unpacked whole, which costs
# a tenth of going through a ctypes.Structure member by member. "@" aligns as C does.
#
# type, flags, tag, seven pointers with their sizes (room, user, to, data, position, token, key), generation,
# negotiation, format, kind, lifetime_ms, reserved0, latency_ms, loss_percent, jitter_ms, bandwidth_kbps, reserved
REPLAY_OPERATION = struct.Struct("@IIQPNPNPNPNPNPNPNQQIIIIdddd64x")
# type, status, tag, batch, sequence, generation, replaced, flags, verdict, reason, problem, messages, message_count,
# skipped, six pointers with their sizes (position, token, data, room, user, to), state, disconnect_ms, retry_after_ms,
# format, kind, quality, negotiation, number, reserved
REPLAY_EVENT = struct.Struct("@IiQQQQQIIIIPNQPNPNPNPNPNPNPqIIIIQq24x")
# sequence, data, size, negotiation, format, kind, reserved
REPLAY_MESSAGE = struct.Struct("@QPNQII40x")
# last_sequence, last_seen_ms, disconnect_ms, connected, quality, connections, reserved
REPLAY_STATE = struct.Struct("@QqqIII4x")

_detail = (c_char_p, c_size_t)

# Name: parameters, result.
SIGNATURES: dict[str, tuple[Sequence[Any], Any]] = {
    "reconnect_version": ((), c_uint32),
    "reconnect_version_string": ((), c_char_p),
    "reconnect_status_name": ((c_int32,), c_char_p),
    "reconnect_status_text": ((c_int32,), c_char_p),
    "reconnect_engine_create": ((POINTER(EngineConfig), POINTER(EngineHandle), *_detail), c_int32),
    "reconnect_engine_create_from_env": ((POINTER(EngineConfig), POINTER(EngineHandle), *_detail), c_int32),
    "reconnect_engine_destroy": ((EngineHandle,), c_int32),
    "reconnect_engine_port": ((EngineHandle, POINTER(c_uint16)), c_int32),
    "reconnect_engine_fingerprint": ((EngineHandle, c_uint32, c_char_p, c_size_t, POINTER(c_size_t)), c_int32),
    "reconnect_engine_set_addresses": ((EngineHandle, POINTER(c_char_p), c_size_t), c_int32),
    "reconnect_engine_set_turn_servers": ((EngineHandle, POINTER(TURNServer), c_size_t, *_detail), c_int32),
    "reconnect_engine_set_timers": ((EngineHandle, POINTER(Timers), *_detail), c_int32),
    "reconnect_turn_credentials": (
        (c_char_p, c_char_p, c_uint32, c_char_p, c_size_t, c_char_p, c_size_t),
        c_int32,
    ),
    "reconnect_engine_set_fast_reload": ((EngineHandle, c_uint32), c_int32),
    "reconnect_engine_rotate_certificate": ((EngineHandle, *_detail), c_int32),
    "reconnect_engine_revoke": ((EngineHandle, c_char_p), c_int32),
    "reconnect_engine_metrics": ((EngineHandle, c_char_p, c_size_t, POINTER(c_size_t)), c_int32),
    "reconnect_engine_set_log_level": ((EngineHandle, c_uint32), c_int32),
    "reconnect_engine_statistics": ((EngineHandle, POINTER(EngineStatistics)), c_int32),
    "reconnect_event_fd": ((EngineHandle, POINTER(c_int)), c_int32),
    "reconnect_poll": ((EngineHandle, POINTER(Event), c_size_t, c_int32, POINTER(c_size_t)), c_int32),
    "reconnect_release": ((EngineHandle, c_uint64), c_int32),
    "reconnect_answer": (
        (EngineHandle, c_char_p, c_size_t, POINTER(PeerConfig), c_uint64, POINTER(PeerHandle), *_detail),
        c_int32,
    ),
    "reconnect_peer_create": ((EngineHandle, POINTER(PeerConfig), POINTER(PeerHandle)), c_int32),
    "reconnect_peer_offer": ((PeerHandle, c_uint64), c_int32),
    "reconnect_peer_accept": ((PeerHandle, c_char_p, c_size_t, c_uint64, *_detail), c_int32),
    "reconnect_peer_add_candidate": ((PeerHandle, c_char_p, c_size_t, *_detail), c_int32),
    "reconnect_peer_signal": ((PeerHandle, c_char_p, c_size_t, *_detail), c_int32),
    "reconnect_peer_restart": ((PeerHandle,), c_int32),
    "reconnect_peer_close": ((PeerHandle,), c_int32),
    "reconnect_peer_query_statistics": ((PeerHandle, c_uint64), c_int32),
    "reconnect_channel_open": ((PeerHandle, POINTER(ChannelConfig), POINTER(ChannelHandle)), c_int32),
    "reconnect_send": ((ChannelHandle, c_uint32, c_char_p, c_size_t), c_int32),
    "reconnect_channel_buffered": ((ChannelHandle, POINTER(c_uint64)), c_int32),
    "reconnect_channel_set_low_water": ((ChannelHandle, c_uint64), c_int32),
    "reconnect_channel_close": ((ChannelHandle,), c_int32),
    "reconnect_connector_create": (
        (EngineHandle, POINTER(ConnectorConfig), POINTER(ConnectorHandle), *_detail),
        c_int32,
    ),
    "reconnect_connector_connect": ((ConnectorHandle,), c_int32),
    "reconnect_connector_message": ((ConnectorHandle, c_int64, c_char_p, c_size_t, *_detail), c_int32),
    "reconnect_connector_signaling_failed": ((ConnectorHandle, c_int64), c_int32),
    "reconnect_connector_cache": ((ConnectorHandle, c_char_p, c_size_t, POINTER(c_size_t)), c_int32),
    "reconnect_connector_forget": ((ConnectorHandle,), c_int32),
    "reconnect_connector_close": ((ConnectorHandle,), c_int32),
    "reconnect_replay_create": ((POINTER(ReplayConfig), POINTER(ReplayHandle), *_detail), c_int32),
    "reconnect_replay_create_from_env": ((POINTER(ReplayConfig), POINTER(ReplayHandle), *_detail), c_int32),
    "reconnect_replay_destroy": ((ReplayHandle,), c_int32),
    "reconnect_replay_submit": (
        (ReplayHandle, c_char_p, c_size_t, c_size_t, POINTER(c_size_t), *_detail),
        c_int32,
    ),
    "reconnect_replay_poll": (
        (ReplayHandle, c_void_p, c_size_t, c_size_t, c_int32, POINTER(c_size_t)),
        c_int32,
    ),
    "reconnect_replay_release": ((ReplayHandle, c_uint64), c_int32),
    "reconnect_replay_event_fd": ((ReplayHandle, POINTER(c_int)), c_int32),
    "reconnect_replay_statistics": ((ReplayHandle, POINTER(ReplayStatistics)), c_int32),
    "reconnect_replay_metrics": ((ReplayHandle, c_char_p, c_size_t, POINTER(c_size_t)), c_int32),
}
