# call_life.pyx: how a Call begins, waits, lets go of its streams, is counted, and ends. See call_life.pxd.

import logging

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdlib cimport calloc
from libc.string cimport memset

from ..http2.constants cimport CANCEL
from ..http2.stream cimport STREAM_END_SENT, Stream, free_fields
from .access_log cimport ENDED_BY_BACKEND, ENDED_BY_GATEWAY, EndedBy
from .call_log cimport log_call
from .call_metrics cimport finish as finish_series
from .call_record cimport (
    CALL_FINISHED,
    CALL_MIRROR,
    CALL_RELEASED,
    CALL_REQUEST_ENDED,
    Call,
    CallQueue,
    EndpointLoad,
)
from .context cimport ISOLATED_CALLS, Context
from .held_request cimport let_request_go
from .peer cimport Peer

logger = logging.getLogger(__name__)

cdef enum:
    CALL_CHUNK = 64


# Memory for a Call. Chunks are kept for the life of the worker: as many as there were calls at one time.
cdef Call* take_call(Context context) except NULL:
    cdef Call* call = <Call*>context.free_calls
    cdef Call* chunk
    cdef int count = 1 if ISOLATED_CALLS else CALL_CHUNK
    cdef int i
    if call == NULL:
        chunk = <Call*>calloc(count, sizeof(Call))
        if chunk == NULL:
            raise MemoryError()
        for i in range(count):
            chunk[i].next = call
            call = &chunk[i]
    context.free_calls = call.next
    return call


cdef Call* new_call(Context context) except NULL:
    cdef Call* call = take_call(context)
    memset(call, 0, sizeof(Call))
    call.context = <PyObject*>context
    call.grpc_status = -1
    call.listener = -1
    call.next = <Call*>context.calls
    if call.next != NULL:
        call.next.previous = call
    context.calls = call
    context.call_count += 1
    return call


cdef void release_call(Call* call) noexcept:
    cdef Context context = <Context>call.context
    if call.down != NULL or call.up != NULL or call.queued or call.flags & CALL_RELEASED:
        return
    # First, for what follows may come here again.
    call.flags |= CALL_RELEASED
    context.disarm(&call.deadline)
    context.disarm(&call.pending)
    if call.previous != NULL:
        call.previous.next = call.next
    else:
        context.calls = call.next
    if call.next != NULL:
        call.next.previous = call.previous
    context.call_count -= 1
    if call.flags & CALL_MIRROR:
        context.mirror_count -= 1
    if call.primary != NULL:
        unlink_mirror(call)
    drop_mirrors(call)
    let_request_go(call)
    free_fields(call.log_fields)
    call.log_fields = NULL
    call.next = NULL
    if context.released_calls == NULL:
        context.released_calls = call
    else:
        (<Call*>context.last_released_call).next = call
    context.last_released_call = call
    call.table = call.backend = NULL
    call.load = NULL
    let_go(&call.endpoint)
    let_go(&call.snapshot)


cdef inline void let_go(PyObject** reference) noexcept:
    cdef PyObject* held = reference[0]
    reference[0] = NULL
    Py_XDECREF(held)


# ===== waiting =====

cdef void enqueue_call(Call* call, EndpointLoad* load, bint first) noexcept:
    call.queued = True
    call.load = load
    call.queue_next = load.queue.first if first else NULL
    call.queue_previous = NULL if first else load.queue.last
    if call.queue_previous != NULL:
        call.queue_previous.queue_next = call
    else:
        load.queue.first = call
    if call.queue_next != NULL:
        call.queue_next.queue_previous = call
    else:
        load.queue.last = call
    load.queue.count += 1
    load.pending_gauge[0] += 1


cdef void unqueue_call(Call* call) noexcept:
    cdef CallQueue* queue
    if not call.queued:
        return
    queue = &call.load.queue
    call.queued = False
    if call.queue_previous != NULL:
        call.queue_previous.queue_next = call.queue_next
    else:
        queue.first = call.queue_next
    if call.queue_next != NULL:
        call.queue_next.queue_previous = call.queue_previous
    else:
        queue.last = call.queue_previous
    queue.count -= 1
    call.load.pending_gauge[0] -= 1


# ===== ends =====

cdef void finish_call(Call* call, int grpc_status, EndedBy ended_by, const char* reason) noexcept:
    cdef Context context = <Context>call.context
    if call.flags & CALL_FINISHED:
        return
    call.flags |= CALL_FINISHED
    if call.flags & CALL_MIRROR:
        if grpc_status != 0:
            context.counters.mirrors_failed += 1
        return
    call.grpc_status = grpc_status
    call.ended_by = ended_by
    call.reason = reason
    finish_series(call.series, grpc_status, context.turn_us - call.started_us)
    if context.access_log is not None:
        try:
            log_call(context, call)
        except Exception:
            # Whatever ails the log (its pipe, its disk, no memory): the call must still let go of its streams.
            logger.exception("access log lines are lost")


cdef int cancel_upstream(Call* call) except -1:
    cdef Peer upstream
    unqueue_call(call)
    if call.up != NULL:
        upstream = up_peer(call)
        upstream.reset_stream(detach_up(call), CANCEL)
    return 0


cdef int cancel_unfinished(Call* call) except -1:
    cdef Peer upstream
    cdef Stream* up
    if call.up != NULL:
        upstream = up_peer(call)
        up = detach_up(call)
        if not up.flags & STREAM_END_SENT:
            upstream.reset_stream(up, CANCEL)
    return 0


# ===== mirrors =====

cdef void unlink_mirror(Call* mirror) noexcept:
    cdef Call** link = &mirror.primary.mirrors
    while link[0] != mirror:
        link = &link[0].mirror_next
    link[0] = mirror.mirror_next
    mirror.primary = NULL
    mirror.mirror_next = NULL


# The primary will send no more: mirrors whose request is not whole are given up, the others go on alone.
cdef void drop_mirrors(Call* call) noexcept:
    cdef Call* mirror
    while call.mirrors != NULL:
        mirror = call.mirrors
        unlink_mirror(mirror)
        if not mirror.flags & CALL_REQUEST_ENDED:
            end_mirror(mirror, 1)


cdef int complete_mirror(Call* mirror) except -1:
    finish_call(mirror, 0, ENDED_BY_BACKEND, NULL)
    cancel_unfinished(mirror)
    release_call(mirror)
    return 0


cdef void end_mirror(Call* mirror, int grpc_status) noexcept:
    finish_call(mirror, grpc_status, ENDED_BY_GATEWAY, NULL)
    try:
        cancel_upstream(mirror)
    except Exception:
        # Whatever it is, a fault of ours or no memory: nobody waits for a mirror, and its primary goes on. Its
        # connection's own end cleans up.
        logger.exception("a mirror could not be cancelled")
    release_call(mirror)
