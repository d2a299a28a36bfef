# limits.pxd: what one peer may make us do for nothing (RFC 9113 §10.5), as budgets of one connection.
#
# The engine knows no time and no load of the machine, only work: each frame that relays nothing is charged to
# a budget, and useful work gives something back: DATA relayed either way, streams opened, calls completed. So
# a long bulk stream pays for its PINGs and WINDOW_UPDATEs by its DATA, and a flood pays with nothing. What we
# have sent ourselves is answered when the peer gets to it, perhaps much later and all at once: those frames are
# counted apart (`answers`), so that a full budget does not forget them. Else whoever opens and resets streams, or
# uploads octet by octet, could spend the budget of our connection to a backend, which others share. On top,
# replenish() gives back a share each second, so that a quiet connection may live for ever. A budget that is
# spent ends the connection with ENHANCE_YOUR_CALM. The numbers and their reasons: limits.pyx.

from libc.stdint cimport int32_t, uint32_t

cdef struct Limits:
    uint32_t max_header_block
    uint32_t max_continuations
    uint32_t max_interim_responses
    uint32_t max_blocked_output
    int32_t flood_control_frames
    int32_t flood_settings_frames
    int32_t flood_rapid_resets
    int32_t flood_provoked_resets
    int32_t flood_refused_streams
    int32_t flood_answers

cdef struct Budgets:             # what is left of each
    int32_t answers              # control frames with which the peer may answer what we sent
    int32_t control_frames
    int32_t settings_frames
    int32_t rapid_resets
    int32_t provoked_resets
    int32_t refused_streams
    int32_t answers_limit        # Limits.flood_answers, at hand where DATA is sent

cdef enum:
    # Frames that a peer may send for one that relays something. gRPC-core and grpc-go answer a DATA frame with up
    # to two WINDOW_UPDATEs and a PING that measures bandwidth; many clients open a stream with a WINDOW_UPDATE.
    REFUND_DATA = 4
    REFUND_STREAM = 4
    REFUND_CALL = 8
    # What a peer may send on a stream that we have reset, until it has heard of that: a response and its trailers,
    # credit for our DATA, a reset.
    ANSWERS_RESET = 8

# Reads the int attributes of `source` that are named as the members of Limits; what it lacks (all, where it is
# None) has its default. Raises TypeError or ValueError with the name.
cdef int read_limits(object source, Limits* limits) except -1

cdef inline void fill_budgets(Budgets* budgets, const Limits* limits) noexcept:
    budgets.control_frames = limits.flood_control_frames
    budgets.settings_frames = limits.flood_settings_frames
    budgets.rapid_resets = limits.flood_rapid_resets
    budgets.provoked_resets = limits.flood_provoked_resets
    budgets.refused_streams = limits.flood_refused_streams
    budgets.answers_limit = limits.flood_answers

# False: there was nothing left.
cdef inline bint spend(int32_t* budget) noexcept:
    budget[0] -= 1
    return budget[0] >= 0

cdef inline void refund(int32_t* budget, int32_t amount, int32_t limit) noexcept:
    budget[0] = budget[0] + amount if budget[0] < limit - amount else limit

# A frame that relays nothing.
cdef inline bint spend_control(Budgets* budgets) noexcept:
    if budgets.answers > 0:
        budgets.answers -= 1
        return True
    return spend(&budgets.control_frames)

# We sent something that the peer answers with so many frames.
cdef inline void expect_answers(Budgets* budgets, int32_t count) noexcept:
    refund(&budgets.answers, count, budgets.answers_limit)

cdef inline void refund_data(Budgets* budgets, const Limits* limits) noexcept:
    refund(&budgets.control_frames, REFUND_DATA, limits.flood_control_frames)

cdef inline void refund_stream(Budgets* budgets, const Limits* limits) noexcept:
    refund(&budgets.control_frames, REFUND_STREAM, limits.flood_control_frames)

cdef inline void refund_call(Budgets* budgets, const Limits* limits) noexcept:
    refund(&budgets.control_frames, REFUND_CALL, limits.flood_control_frames)
    refund(&budgets.rapid_resets, 1, limits.flood_rapid_resets)
    refund(&budgets.provoked_resets, 1, limits.flood_provoked_resets)
    refund(&budgets.refused_streams, 1, limits.flood_refused_streams)

cdef inline int32_t share(int32_t limit, int32_t parts, uint32_t seconds) noexcept:
    # Rounded up, so that the smallest budget comes back too; no more than `parts` seconds count.
    return (limit + parts - 1) // parts * <int32_t>(seconds if seconds < <uint32_t>parts else parts)

cdef inline void refund_time(Budgets* budgets, const Limits* limits, uint32_t seconds) noexcept:
    refund(&budgets.control_frames, share(limits.flood_control_frames, 2, seconds), limits.flood_control_frames)
    refund(&budgets.settings_frames, share(limits.flood_settings_frames, 10, seconds), limits.flood_settings_frames)
    refund(&budgets.rapid_resets, share(limits.flood_rapid_resets, 4, seconds), limits.flood_rapid_resets)
    refund(&budgets.provoked_resets, share(limits.flood_provoked_resets, 8, seconds), limits.flood_provoked_resets)
    refund(&budgets.refused_streams, share(limits.flood_refused_streams, 4, seconds), limits.flood_refused_streams)
