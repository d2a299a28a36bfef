"""Every limit and timer of the data plane and its processes: name, default, unit, reason and the metric that shows it.

"{limit}" in a metric is the label that is the setting's own name.

`pygw run --list-settings` prints this table and `--set NAME=VALUE` changes it. Options that are not limits
(ports, addresses, log formats) live in cli.py. Imports nothing of pygw.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from typing import Any


def setting(default: Any, unit: str, reason: str, metric: str = "") -> Any:
    """A Settings field that carries its documentation."""
    return dataclass_field(default=default, metadata={"unit": unit, "reason": reason, "metric": metric})


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and timers; 0 means "off" where the reason says so."""

    max_concurrent_streams: int = setting(
        1000, "streams", "Streams that one client connection may have open (SETTINGS_MAX_CONCURRENT_STREAMS); "
        "more are refused with REFUSED_STREAM, which is safe to retry.", "pygw_limit_hits_total{limit}")
    stream_window: int = setting(
        69632, "octets", "First flow-control window of a stream to a backend: what a client that stalls can make us "
        "hold of each response. A message of 64 KiB with its prefix (65,541 octets, 6 more than HTTP/2's own default) "
        "comes in one go. It grows up to stream_window_max while the client drains. No metric: a sender that waits for "
        "a window is how flow control works.")
    request_window: int = setting(
        262144, "octets", "First flow-control window of a client's stream. Large enough for the usual message in one "
        "go; what a connection's requests can make us hold together is connection_window. No metric: as stream_window.")
    stream_window_max: int = setting(
        1048576, "octets", "A stream's window grows to this while data is drained as fast as it comes. No metric: as "
        "stream_window.")
    window_growth_total: int = setting(
        33554432, "octets", "By how much the windows of all streams of one connection together may have grown beyond "
        "their first ones: bounds what clients that drained first and stalled then can make us hold. No metric: "
        "a window that cannot grow stays as it is.")
    connection_window: int = setting(
        4194304, "octets", "Flow-control window of a whole connection: what one peer can make us hold. No metric: as "
        "stream_window.")
    max_header_list_size: int = setting(
        98304, "octets", "Size of one message's header list (RFC 9113 §6.5.2); over it the call gets "
        "RESOURCE_EXHAUSTED and the connection lives on.", "pygw_limit_hits_total{limit}")
    max_header_fields: int = setting(
        1000, "fields", "Fields in one message's header list; as above. A list over both counts as "
        "max_header_list_size.",
        "pygw_limit_hits_total{limit}")
    header_table_size: int = setting(
        4096, "octets", "HPACK dynamic table that we keep for a peer (RFC 7541 §4.2). No metric: a full table drops "
        "its oldest entries, which is how HPACK works.")
    encoder_table_size: int = setting(
        4096, "octets", "The most that our own HPACK encoder uses of the table a peer allows. No metric: as "
        "header_table_size.")
    max_header_block: int = setting(
        112640, "octets",
        "Compressed octets of one header block, HEADERS and CONTINUATION together, that are held until it is "
        "whole; a peer that sends more gets ENHANCE_YOUR_CALM (CVE-2024-27316). 110 KiB, so that a CONTINUATION "
        "flood ends within 128 KiB, the frame that is too much included.",
        "pygw_limit_hits_total{limit}")
    max_continuations: int = setting(
        32, "frames",
        "CONTINUATION frames of one header block: a full block in frames of 4 KiB. Ends floods of empty and "
        "1-octet CONTINUATIONs, which max_header_block does not see.",
        "pygw_limit_hits_total{limit}")
    max_interim_responses: int = setting(
        32, "responses",
        "Interim (1xx) responses that a backend may send before the final one of a call; more reset the stream.",
        "pygw_limit_hits_total{limit}")
    max_blocked_output: int = setting(
        1048576, "octets",
        "Frames other than DATA that wait for a peer that does not read (answers to its PINGs, SETTINGS, "
        "requests); more end the connection.",
        "pygw_limit_hits_total{limit}")
    flood_control_frames: int = setting(
        1000, "frames",
        "PING, PRIORITY, WINDOW_UPDATE, empty DATA, GOAWAY, unknown frames and frames of closed streams beyond "
        "what DATA, new streams and completed calls pay for; half of it comes back each second. The CVE-2019-951x "
        "family.",
        "pygw_limit_hits_total{limit}")
    flood_settings_frames: int = setting(
        100, "frames",
        "SETTINGS frames, each of which costs an acknowledgement and a walk over all streams (CVE-2019-9515); a "
        "tenth comes back each second.",
        "pygw_limit_hits_total{limit}")
    flood_rapid_resets: int = setting(
        200, "streams",
        "Streams that a client opens and resets within a second before any answer (CVE-2023-44487); each "
        "completed call gives one back, and so does a quarter of it each second.",
        "pygw_limit_hits_total{limit}")
    flood_provoked_resets: int = setting(
        64, "streams",
        "Streams that a client makes us reset by breaking a rule on them (MadeYouReset, CVE-2025-8671), and "
        "requests over the header limits; each completed call gives one back, and so does an eighth of it each "
        "second.",
        "pygw_limit_hits_total{limit}")
    flood_refused_streams: int = setting(
        1000, "streams",
        "Streams refused because the stream limit is reached. As many as max_concurrent_streams: a client that "
        "has not seen our SETTINGS yet may open a first batch; a quarter comes back each second.",
        "pygw_limit_hits_total{limit}")
    flood_answers: int = setting(
        4194304, "frames",
        "WINDOW_UPDATEs, PINGs and resets expected in answer to what we sent; what is beyond is charged to "
        "flood_control_frames. 4 for each DATA frame that can be under way in a window of 1 MiB, should each carry "
        "one octet.",
        'pygw_limit_hits_total{limit="flood_control_frames"}')
    connect_timeout: float = setting(5.0, "seconds", "TCP connect to an endpoint.", "pygw_limit_hits_total{limit}")
    connect_patience: float = setting(
        0.25, "seconds", "Calls that wait so long for the first connection to an endpoint go to another one that has a "
        "connection: most connects take a few milliseconds, those to an endpoint that is cut off the whole "
        "connect_timeout.", "pygw_upstream_retries_total{reason}")
    handshake_timeout: float = setting(
        10.0, "seconds", "TLS and HTTP/2 handshake, both ways: a half-open connection is closed after it.",
        "pygw_limit_hits_total{limit}")
    frame_timeout: float = setting(
        10.0, "seconds", "A frame, or HEADERS with its CONTINUATIONs, that has begun must be whole within this, or on "
        "a busy connection twice this, both ways: else the connection ends. DATA may take longer as long as some of "
        "it comes. Nobody needs 10 s between the octets of a frame: what it consists of is there before it begins. "
        "0: no limit.", "pygw_limit_hits_total{limit}")
    write_timeout: float = setting(
        60.0, "seconds", "A connection whose other end does not take one octet of what we wrote for so long, up to "
        "half as long again, ends, both ways. Counted are octets that TCP acknowledges, so slow readers live; a "
        "flow-control window of 0 leaves nothing to write and does not count. 0: no limit.",
        "pygw_limit_hits_total{limit}")
    stream_stall_timeout: float = setting(
        300.0, "seconds", "A stream for which DATA waits here, while its other end gives no flow-control window for an "
        "octet of it for so long, up to half as long again, is reset, both ways: it would hold its call open for ever, "
        "on a connection that answers PINGs. A stream for which nothing waits may be quiet for any time. Envoy's "
        "stream_idle_timeout is as long: who works on one message may leave the next ones for minutes. 0: no limit.",
        "pygw_limit_hits_total{limit}")
    goaway_linger: float = setting(
        0.02, "seconds", "A connection whose other end broke the protocol is closed after one more read, or so long "
        "after our GOAWAY: a socket that is closed with octets unread is reset, and the GOAWAY that says why would be "
        "lost. Of a flood nothing more is read. 0: closed at once. No metric: it delays the end of what has ended.")
    max_calls: int = setting(
        100_000, "calls", "Calls that one worker may have open, about 1 KiB each beside their windows; more get "
        "RESOURCE_EXHAUSTED. 0: no limit.", "pygw_limit_hits_total{limit}")
    overload_lag: float = setting(
        0.05, "seconds", "Where what comes has to wait longer than this in a worker, for 100 ms on end and not "
        "falling, or more work comes than there is time for and it waits half as long again, a share of the new calls "
        "is refused with UNAVAILABLE until it does not: those that are taken keep their latency. A single long pause "
        "does nothing. 0: off.", "pygw_overload_shed_total{limit}")
    overload_pushback: float = setting(
        1.0, "seconds", "What refused calls are told in grpc-retry-pushback-ms, 50 % more or less: how long "
        "clients with a retry policy wait before they try again.", "pygw_overload_shed_total")
    max_connections: int = setting(
        0, "connections", "Client connections of one worker. At the limit it stops accepting: more wait in the "
        "kernel's queue until some have ended. 0: as many as descriptor_reserve leaves.",
        "pygw_limit_hits_total{limit}")
    max_connections_per_address: int = setting(
        0, "connections", "Client connections of one worker from one IPv4 address or IPv6 /64; more are closed at "
        "once. After a PROXY header the address in it counts; trusted proxies have no limit. 0: no limit, for many "
        "clients may share an address behind a load balancer or NAT.",
        "pygw_limit_hits_total{limit}")
    descriptor_reserve: int = setting(
        4096, "descriptors", "File descriptors of one worker (RLIMIT_NOFILE, which is raised as far as it may be) "
        "that clients do not get, so that endpoints can still be reached; a quarter of all at most. Where they run "
        "short, accepting stops until there are more.",
        "pygw_limit_hits_total{limit}")
    max_handshakes: int = setting(
        1000, "connections", "Client connections of one worker whose TLS handshake is not done; more are closed at "
        "once. A handshake takes about 1 ms of a core with an RSA key, 0.1 ms with ECDSA.",
        "pygw_limit_hits_total{limit}")
    pending_calls: int = setting(
        1024, "calls", "Calls of one worker that may wait for a connection to one endpoint; more get "
        "RESOURCE_EXHAUSTED.", "pygw_limit_hits_total{limit}")
    pending_timeout: float = setting(
        10.0, "seconds", "The longest a call waits for a connection to an endpoint; then UNAVAILABLE.",
        "pygw_limit_hits_total{limit}")
    pending_lag: float = setting(
        0.25, "seconds", "Where every call that waits for a connection to an endpoint has waited longer than this, for "
        "as long on end, new calls that would are refused with UNAVAILABLE and overload_pushback: the backend is at "
        "its stream limit and no queue makes it faster. A burst that drains is no such thing. 0: off.",
        "pygw_overload_shed_total{limit}")
    max_upstream_connections: int = setting(
        64, "connections", "Connections that one worker opens to one endpoint when the endpoint's stream limit "
        "is reached; then calls wait.", "pygw_limit_hits_total{limit}")
    keepalive_time: float = setting(
        60.0, "seconds", "A PING is sent on a client connection that was silent for so long with calls open; 0: never.",
        'pygw_limit_hits_total{limit="keepalive_timeout"}')
    keepalive_timeout: float = setting(20.0, "seconds", "The PING's answer must come within this, and so "
        "must a closed connection's last octets be taken by the other end.", "pygw_limit_hits_total{limit}")
    upstream_keepalive_time: float = setting(
        60.0, "seconds", "As keepalive_time, to endpoints with calls open; 0: never.",
        'pygw_limit_hits_total{limit="keepalive_timeout"}')
    max_connection_idle: float = setting(
        0.0, "seconds", "A client connection without calls for so long is closed gracefully; 0: never.",
        "pygw_limit_hits_total{limit}")
    max_connection_age: float = setting(
        0.0, "seconds", "A client connection is asked to go (GOAWAY) at this age, with 10 % jitter, so that a "
        "scaled-out gateway gets its share; 0: never.",
        "pygw_limit_hits_total{limit}")
    max_connection_age_grace: float = setting(
        0.0, "seconds", "Calls still open so long after max_connection_age are ended with UNAVAILABLE; 0: never.",
        "pygw_limit_hits_total{limit}")
    unserved_wait: float = setting(
        1.0, "seconds", "A request that is not gRPC is answered (415, 405) when it is whole, after 16 KiB of it, or "
        "after so long: before that what is malformed in it is still found. No metric: it delays an answer and ends "
        "nothing.")
    refused_wait: float = setting(
        0.005, "seconds", "A connection on which an endpoint refused a stream (REFUSED_STREAM) gets no more of them "
        "for so long, and the call waits for that where no other takes it: an endpoint at its stream limit may count "
        "one that has ended until it has written its last frame, as grpc-core does. 0: sent again at once.",
        "pygw_upstream_retries_total{reason}")
    retry_buffer: int = setting(
        16384, "octets", "DATA of a call that is kept until its backend begins to answer, so that it can be sent again "
        "where the backend did not take it (REFUSED_STREAM, GOAWAY); a call that has sent more is not sent again. "
        "0: none is.", "pygw_upstream_retries_total{reason}")
    retry_memory: int = setting(
        8388608, "octets", "What one worker keeps of requests for that; over it, no more is kept. 8 MiB, so that "
        "clients of backends that never answer cannot make a worker grow.", "pygw_held_request_bytes")
    max_mirror_calls: int = setting(
        1024, "calls", "Mirrored calls (RequestMirror) that one worker may have open; more are not mirrored.",
        "pygw_mirrors_failed_total")
    mirror_buffer: int = setting(
        65536, "octets", "DATA that may wait for a mirror; one that is slower loses the call, not the primary's pace.",
        "pygw_mirrors_failed_total")
    eject_failures: int = setting(
        5, "failures", "Calls in a row that an endpoint fails before it has answered (resets, broken connections) "
        "until it is ejected: other endpoints come first. An answer of whatever grpc-status is no failure. 0: never.",
        "pygw_endpoint_ejections_total")
    eject_time: float = setting(
        0.1, "seconds", "How long an endpoint that was ejected, or cannot be connected, is left alone first; then one "
        "call, or one connection, tries it. Doubled with each failure in a row, less up to half as jitter.",
        "pygw_endpoints_ejected")
    eject_time_max: float = setting(
        10.0, "seconds", "The longest that it is left alone: a restarted backend is back before anyone notices.",
        "pygw_endpoints_ejected")
    eject_panic: int = setting(
        50, "percent", "Where more of a backend's endpoints than this are ejected, all of them take calls: what ails "
        "them all is not cured by overloading the rest. Those that cannot be connected are not counted.",
        "pygw_endpoint_panics_total")
    upstream_idle: float = setting(
        300.0, "seconds", "An upstream connection without calls for so long is closed.", "pygw_upstream_connections")
    write_high_water: int = setting(
        262144, "octets", "Unsent octets on one connection above which its sources are no longer credited. No metric: "
        "as stream_window.")
    max_label_values: int = setting(
        1000, "series", "Distinct label sets of the call metrics in one worker; what comes later is counted as "
        '"_other".', "pygw_metric_series")
    regex_cache: int = setting(
        4096, "entries", "Decisions of regex matches kept in one worker. No metric: what is not kept is decided again.")
    trusted_proxy_hops: int = setting(
        1, "hops", "How many proxies in front are trusted to have appended to x-forwarded-for. No metric: "
        "it ends nothing.")
    hang_timeout: float = setting(
        30.0, "seconds", "A worker or a control process that answers no ping for so long hangs: it is killed and "
        "replaced alone. Long enough for a machine that swaps; 0: never.",
        "pygw_worker_restarts_total")
    control_silence: float = setting(
        2.0, "seconds", "After so long without a sign of the control process the launcher answers /healthz, /readyz "
        "and a short /metrics for it: a probe must not restart a gateway whose workers serve.",
        "pygw_config_stale_since_timestamp_seconds")
    reload_timeout: float = setting(
        120.0, "seconds", "A change of the configuration that is not read, checked and handed out within this hangs, "
        "in a thread that pings do not see (a file system that does not answer): the control process is replaced "
        "alone. A change of 10,000 rules takes 2 s. 0: never.", "pygw_control_restarts_total")
    x_forwarded: bool = setting(
        True, "boolean", "Append x-forwarded-for and x-forwarded-proto. No metric: it ends nothing.")


def describe() -> list[dict[str, Any]]:
    """The settings in order, as --list-settings prints them."""
    return [{"name": item.name, "default": item.default, **item.metadata} for item in fields(Settings)]
