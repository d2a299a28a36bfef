# limits.pyx: the numbers of limits.pxd, each with its reason, and how they are read from settings.

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint32_t

# (name, default, unit, reason), in the order of struct Limits.
LIMITS = (
    (
        "max_header_block", 112640, "octets",
        "Compressed octets of one header block, HEADERS and CONTINUATION together, that are held until it is whole; "
        "a peer that sends more gets ENHANCE_YOUR_CALM (CVE-2024-27316). 110 KiB, so that a CONTINUATION flood ends "
        "within 128 KiB, the frame that is too much included.",
    ),
    (
        "max_continuations", 32, "frames",
        "CONTINUATION frames of one header block: a full block in frames of 4 KiB. Ends floods of empty and 1-octet "
        "CONTINUATIONs, which max_header_block does not see.",
    ),
    (
        "max_interim_responses", 32, "responses",
        "1xx responses that a backend may send before the final one of a call; more reset the stream.",
    ),
    (
        "max_blocked_output", 1048576, "octets",
        "Frames other than DATA that wait for a peer that does not read (answers to its PINGs, SETTINGS, requests); "
        "more end the connection.",
    ),
    (
        "flood_control_frames", 1000, "frames",
        "PING, PRIORITY, WINDOW_UPDATE, empty DATA, GOAWAY, unknown frames and frames of closed streams beyond what "
        "DATA, new streams and completed calls pay for; half of it comes back each second. The CVE-2019-951x family.",
    ),
    (
        "flood_settings_frames", 100, "frames",
        "SETTINGS frames, each of which costs an acknowledgement and a walk over all streams (CVE-2019-9515); a tenth "
        "comes back each second.",
    ),
    (
        "flood_rapid_resets", 200, "streams",
        "Streams that a client opens and resets within a second before any answer (CVE-2023-44487); each completed "
        "call gives one back, and so does a quarter of it each second.",
    ),
    (
        "flood_provoked_resets", 64, "streams",
        "Streams that a client makes us reset by breaking a rule on them (MadeYouReset, CVE-2025-8671), and requests "
        "over the header limits; each completed call gives one back, and so does an eighth of it each second.",
    ),
    (
        "flood_refused_streams", 1000, "streams",
        "Streams refused because the stream limit is reached. As many as max_concurrent_streams: a client that has "
        "not seen our SETTINGS yet may open a first batch; a quarter comes back each second.",
    ),
    (
        "flood_answers", 4194304, "frames",
        "WINDOW_UPDATEs, PINGs and resets expected in answer to what we sent; what is beyond is charged to "
        "flood_control_frames. 4 for each DATA frame that can be under way in a window of 1 MiB, should each carry "
        "one octet.",
    ),
)


cdef int read_limits(object source, Limits* limits) except -1:
    cdef int64_t[10] values
    cdef Py_ssize_t i
    for i, (name, default, _, _) in enumerate(LIMITS):
        value = getattr(source, name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
        if not 1 <= value <= INT32_MAX:
            raise ValueError(f"{name} must be from 1 to {INT32_MAX}, not {value}")
        values[i] = value
    limits.max_header_block = <uint32_t>values[0]
    limits.max_continuations = <uint32_t>values[1]
    limits.max_interim_responses = <uint32_t>values[2]
    limits.max_blocked_output = <uint32_t>values[3]
    limits.flood_control_frames = <int32_t>values[4]
    limits.flood_settings_frames = <int32_t>values[5]
    limits.flood_rapid_resets = <int32_t>values[6]
    limits.flood_provoked_resets = <int32_t>values[7]
    limits.flood_refused_streams = <int32_t>values[8]
    limits.flood_answers = <int32_t>values[9]
    return 0
