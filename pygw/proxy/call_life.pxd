# call_life.pxd: how a Call begins, waits, lets go of its streams, is counted, and ends. No frames of its own.
#
# A Call begins when a backend was picked for a request (Downstream.on_request) and ends when both its streams
# are gone. Its phases: waiting (no upstream yet; held_request.pxd holds what the client sent) -> joined (up is set;
# back to waiting, once, where the backend did not take it: call_failure.pxd) -> finished (the client has its status;
# counted and logged once) -> released.
# A mirror is a Call without a client: it gets copies of what its primary sends and its answers are dropped.
#
# Rule for lifetimes. A sending function may end any stream on any connection, and so any Call, before it returns.
# So a released Call keeps its memory, and is used for another one only after this turn of the loop: until then
# all its pointers are NULL, CALL_RELEASED is set, and the functions of a Call do nothing for it.
#
# Rule for streams. What a Call does last on a stream it does in one go, with the stream detached before: between
# detaching a stream and its last frame nothing is sent on another connection.

from ..http2.stream cimport Stream
from .access_log cimport EndedBy
from .call_record cimport Call, EndpointLoad
from .context cimport Context
from .peer cimport Peer

cdef Call* new_call(Context context) except NULL
# Lets the Call go when nothing holds it any more; mirrors that still need it to end are ended.
cdef void release_call(Call* call) noexcept

# `first`: before all others, for it has been sent before.
cdef void enqueue_call(Call* call, EndpointLoad* load, bint first) noexcept
cdef void unqueue_call(Call* call) noexcept

# Counts and logs the call, once. A mirror is counted elsewhere and not logged.
cdef void finish_call(Call* call, int grpc_status, EndedBy ended_by, const char* reason) noexcept

# Takes leave of the backend. Always as CANCEL: whatever happened on our side says nothing of the request.
cdef int cancel_upstream(Call* call) except -1
# The same where the response is over: only what is left of the request is dropped.
cdef int cancel_unfinished(Call* call) except -1
# A mirror's response is over.
cdef int complete_mirror(Call* mirror) except -1
# A mirror is given up.
cdef void end_mirror(Call* mirror, int grpc_status) noexcept

cdef inline Peer down_peer(Call* call):
    return <Peer>call.downstream

cdef inline Peer up_peer(Call* call):
    return <Peer>call.upstream

# From now on nothing that happens to the client's stream concerns the call.
cdef inline Stream* detach_down(Call* call) noexcept:
    cdef Stream* stream = call.down
    if stream != NULL:
        stream.owner = NULL
    call.down = NULL
    call.downstream = NULL
    return stream

cdef inline Stream* detach_up(Call* call) noexcept:
    cdef Stream* stream = call.up
    if stream != NULL:
        stream.owner = NULL
        call.load.active -= 1
    call.up = NULL
    call.upstream = NULL
    return stream
