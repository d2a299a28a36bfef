# queue_delay.pxd: whether an Endpoint's queue is worth joining. No calls, no connections.
#
# Calls wait there while every connection is at the backend's stream limit. A queue that a burst has filled drains; one
# that stands only makes every call late, and is no shorter for it. As in CoDel (RFC 8289 §4.2) the least wait tells
# them apart: where every call that left the queue for `target_us` had waited longer than `target_us`, it stands.
# From then on a call joins it only where it can expect to leave in time: by the pace at which calls left lately,
# and not behind one that has waited too long itself. What waits already keeps its place.

from libc.stdint cimport uint64_t

cdef struct QueueDelay:          # zeroed but for target_us it knows nothing
    uint64_t target_us           # pending_lag; 0: off
    uint64_t late_since_us       # every wait since then was too long; 0: the last one was not
    uint64_t shed_until_us       # the queue stood, or a call was refused, not long before
    uint64_t window_us           # since when `left` counts; 0: it does not
    uint64_t left                # calls that left the queue in this window
    uint64_t gap_us              # between two of them in the window before

# A call has left the queue for a connection after `waited_us`.
cdef void note_left(QueueDelay* self, uint64_t now_us, uint64_t waited_us) noexcept
# Whether a call that would wait behind `count` others, of which the first has waited for `waited_us`, is refused.
cdef bint refuses_wait(QueueDelay* self, uint64_t now_us, uint64_t count, uint64_t waited_us) noexcept
