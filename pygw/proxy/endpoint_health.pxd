# endpoint_health.pxd: how an Endpoint fared lately, and so whether it takes calls (passive ejection). No connections.
#
# Two things go wrong with an endpoint. It cannot be connected: nothing is lost by trying, and calls go elsewhere by
# themselves. Or it is connected and fails what it is sent (resets, connections that break under calls): each try costs
# a call. After eject_failures of these in a row it is ejected: others come first. When eject_time is over, one call is
# let through in each such period until one is answered. The period doubles with each failure, up to eject_time_max,
# and has jitter, so that workers do not try in step.
#
# One answer, of whatever grpc-status, and all is forgotten.

from libc.stdint cimport uint64_t
from .context cimport Context

cdef struct Health:
    int connect_failures         # in a row
    int call_failures            # in a row
    int ejections                # in a row; 0: it is not ejected
    bint is_on_trial             # a call was let through
    uint64_t connect_after_us    # when it should be connected next
    uint64_t ejected_until_us

cdef void note_connect_failure(Context context, Health* health) noexcept
# A call failed before there was anything of a response, or a connection with calls open broke.
cdef void note_call_failure(Context context, Health* health) noexcept
# A response has begun.
cdef void note_answer(Health* health) noexcept
# One call is let through.
cdef void begin_trial(Context context, Health* health) noexcept

cdef inline bint is_flawless(const Health* health) noexcept:
    return health.connect_failures == 0 and health.call_failures == 0

cdef inline bint is_ejected(Context context, const Health* health) noexcept:
    return health.ejections > 0 and context.turn_us < health.ejected_until_us
