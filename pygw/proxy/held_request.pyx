# held_request.pyx: a request that is held until its backend begins to answer. See held_request.pxd.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from ..field cimport Field
from ..http2.hpack_encoder cimport HpackEncoder
from ..http2.stream cimport FieldBlock, copy_fields, free_fields
from .call_record cimport HELD_INLINE, LAST_BLOCK_OCTETS, Call, EndpointLoad, HeldBody, LastSection, Origin
from .context cimport Context

cdef enum:
    FIRST_CAPACITY = 256


cdef FieldBlock* new_section(Context context, const Field* fields, Py_ssize_t count) except NULL:
    cdef FieldBlock* section = copy_fields(fields, count)
    context.counters.held_octets += <int64_t>section.size
    return section


cdef void drop_section(Context context, FieldBlock* section) noexcept:
    if section == NULL:
        return
    section.references -= 1
    if section.references == 0:
        context.counters.held_octets -= <int64_t>section.size
        free_fields(section)


cdef int hold_section(Call* call, const Field* fields, Py_ssize_t count) except -1:
    call.head = new_section(<Context>call.context, fields, count)
    return 0


cdef int hold_encoded(
    Call* call, const Field* fields, Py_ssize_t count, HpackEncoder encoder, uint64_t insertions,
    const uint8_t* block, Py_ssize_t length, const Origin* origin,
) except -1:
    cdef LastSection* last = &call.load.last
    if (
        insertions == last.insertions and insertions == encoder.table.insertions and encoder.id == last.encoder
        and length == <Py_ssize_t>last.length and memcmp(block, last.block, <size_t>length) == 0
    ):
        last.fields.references += 1
        last.evictions = encoder.table.evictions
        last.origin = origin[0]
        call.head = last.fields
        return 0
    hold_section(call, fields, count)
    # What put something into the table is not what the next call will be: that one finds it there.
    if insertions == encoder.table.insertions and length <= LAST_BLOCK_OCTETS:
        forget_last_section(<Context>call.context, call.load)
        call.head.references += 1
        last.fields = call.head
        last.origin = origin[0]
        last.encoder = encoder.id
        last.insertions = insertions
        last.evictions = encoder.table.evictions
        last.length = <uint32_t>length
        memcpy(last.block, block, <size_t>length)
    return 0


cdef void forget_last_section(Context context, EndpointLoad* load) noexcept:
    drop_section(context, load.last.fields)
    load.last.fields = NULL
    load.last.encoder = 0        # no encoder's id
    load.last.origin.run = 0


cdef int hold_data(Call* call, const uint8_t* data, Py_ssize_t length) except -1:
    cdef HeldBody* body = &call.body
    cdef Py_ssize_t needed = <Py_ssize_t>body.length + length
    if needed > (HELD_INLINE if body.octets == NULL else <Py_ssize_t>body.capacity):
        grow(<Context>call.context, body, needed)
    memcpy((&body.few[0] if body.octets == NULL else body.octets) + body.length, data, <size_t>length)
    body.length += <uint32_t>length
    return 0


cdef int grow(Context context, HeldBody* body, Py_ssize_t needed) except -1:
    cdef Py_ssize_t capacity = max(needed, <Py_ssize_t>FIRST_CAPACITY)
    cdef uint8_t* octets
    if body.octets != NULL:
        capacity = max(needed, 2 * <Py_ssize_t>body.capacity)
    octets = <uint8_t*>realloc(body.octets, <size_t>capacity)
    if octets == NULL:
        raise MemoryError()
    if body.octets == NULL:
        memcpy(octets, body.few, body.length)
    context.counters.held_octets += capacity - body.capacity
    body.octets = octets
    body.capacity = <uint32_t>capacity
    return 0


cdef int hold_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1:
    call.trailers = new_section(<Context>call.context, fields, count)
    return 0


cdef void let_request_go(Call* call) noexcept:
    cdef Context context = <Context>call.context
    cdef FieldBlock* section = call.head
    call.head = NULL
    drop_section(context, section)
    if call.trailers != NULL:
        section = call.trailers
        call.trailers = NULL
        drop_section(context, section)
    if call.body.octets != NULL:
        context.counters.held_octets -= call.body.capacity
        free(call.body.octets)
        call.body.octets = NULL
        call.body.capacity = 0
    call.body.length = 0


cdef bint is_over_budget(Context context, Call* call, Py_ssize_t more) noexcept:
    return (
        <Py_ssize_t>call.body.length + more > context.retry_buffer
        or context.counters.held_octets > context.retry_memory
    )
