"""The structs, constants and signatures of reconnect.h, for ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

ABI_MAJOR = 1

ICE_FULL, ICE_LITE = 0, 1
RELIABLE, MAX_RETRANSMITS, MAX_LIFETIME = 0, 1, 2
TEXT, BINARY = 1, 2
FLAG_RETURNED, FLAG_REMOTE, FLAG_UNORDERED, FLAG_PARTIAL, FLAG_TICKET = 1, 2, 4, 8, 16
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
) = range(1, 19)


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
    ]


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
}
