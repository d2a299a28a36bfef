# queue_delay.pyx: whether an Endpoint's queue is worth joining. See queue_delay.pxd.

from libc.stdint cimport uint64_t

cdef enum:
    RECOVERY_US = 1_000_000      # without a call refused for so long, the next burst is a burst again


cdef void note_left(QueueDelay* self, uint64_t now_us, uint64_t waited_us) noexcept:
    if waited_us < self.target_us:
        self.late_since_us = 0
    elif self.late_since_us == 0:
        self.late_since_us = now_us
    if self.window_us == 0:
        self.window_us = now_us
        self.left = 0
        return
    self.left += 1
    if now_us - self.window_us >= self.target_us:
        self.gap_us = (now_us - self.window_us) // self.left
        self.window_us = now_us
        self.left = 0


cdef bint refuses_wait(QueueDelay* self, uint64_t now_us, uint64_t count, uint64_t waited_us) noexcept:
    if self.target_us == 0:
        return False
    if count == 0:
        # Nobody waits: neither is anyone late, nor does the time until somebody leaves tell of a pace.
        self.late_since_us = self.window_us = 0
        return False
    if waited_us > self.target_us and self.late_since_us == 0:
        # Whoever leaves next will have waited longer still.
        self.late_since_us = now_us - (waited_us - self.target_us)
    if self.late_since_us != 0 and now_us - self.late_since_us >= self.target_us:
        self.shed_until_us = now_us + RECOVERY_US
    if now_us >= self.shed_until_us:
        return False
    if waited_us <= self.target_us and count * self.gap_us <= self.target_us:
        return False
    self.shed_until_us = now_us + RECOVERY_US
    return True


# ===== for Python: tests =====

def simulate(uint64_t target_us, arrivals, uint64_t service_us):
    """The waits in microseconds of calls that come at `arrivals` (sorted), None where one is refused.

    One call at a time leaves the queue, each `service_us` after the one before.
    """
    cdef QueueDelay state
    cdef uint64_t start = 1_000_000_000
    cdef uint64_t free_at = start
    cdef uint64_t now
    state.target_us = target_us
    state.late_since_us = state.shed_until_us = state.window_us = state.left = state.gap_us = 0
    waits = [None] * len(arrivals)
    queue = []
    for number, arrival in enumerate(arrivals):
        now = start + <uint64_t>arrival
        while queue and free_at <= now:
            first = queue.pop(0)
            waits[first] = free_at - start - arrivals[first]
            note_left(&state, free_at, waits[first])
            free_at += service_us
        if not queue and free_at <= now:
            waits[number] = 0
            free_at = now + service_us
        elif not refuses_wait(&state, now, len(queue), now - start - arrivals[queue[0]] if queue else 0):
            queue.append(number)
    for first in queue:
        waits[first] = free_at - start - arrivals[first]
        free_at += service_us
    return waits
