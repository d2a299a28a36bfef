# held_request.pxd: a request that is held: while its call waits for a connection, and from then on until its backend
# begins to answer, so that it can be sent again where nothing came of it. No connections are chosen here.
#
# What is held: the section as it goes to the backend (without grpc-timeout, which is made anew each time), DATA and
# trailers. While the call waits, DATA is bounded by the client's window. Afterwards it has been credited, so its bounds
# are settings: retry_buffer for a call, retry_memory for the worker; over them the call goes on and is not sent again.
#
# Cost. Most calls repeat the section of the call before: where the encoded block is the same, octet for octet, and
# the encoder's dynamic table too, the fields are the same (RFC 7541 §2.2), and the calls share one copy. Where the
# call before came from the same run of the same client, by the same rule, its block is sent again without asking what
# is in it. A small message fits into the Call.

from libc.stdint cimport uint8_t, uint64_t
from ..field cimport Field
from ..http2.hpack_encoder cimport HpackEncoder
from .call_record cimport Call, EndpointLoad, LastSection, Origin
from .context cimport Context

# A copy of these fields; call.head.
cdef int hold_section(Call* call, const Field* fields, Py_ssize_t count) except -1
# The same, shared where that is possible: `block` is what `encoder` has just made of the fields, and it had made
# `insertions` before. `origin` is what the section was made of, if that is known.
cdef int hold_encoded(
    Call* call, const Field* fields, Py_ssize_t count, HpackEncoder encoder, uint64_t insertions,
    const uint8_t* block, Py_ssize_t length, const Origin* origin,
) except -1
# More DATA, trailers.
cdef int hold_data(Call* call, const uint8_t* data, Py_ssize_t length) except -1
cdef int hold_trailers(Call* call, const Field* fields, Py_ssize_t count) except -1
# The block that a call of this origin makes is `last.block` of the Endpoint, if it goes by this encoder.
cdef inline bint repeats_last(const LastSection* last, const Origin* origin, HpackEncoder encoder) noexcept:
    return (
        origin.run != 0 and origin.run == last.origin.run and origin.generation == last.origin.generation
        and origin.ref == last.origin.ref and encoder.id == last.encoder
        and encoder.table.insertions == last.insertions and encoder.table.evictions == last.evictions
    )
# The call will not be sent again. Does nothing where nothing is held.
cdef void let_request_go(Call* call) noexcept
# Is this much more (it is sent at once) too much to be held?
cdef bint is_over_budget(Context context, Call* call, Py_ssize_t more) noexcept
# The Endpoint goes.
cdef void forget_last_section(Context context, EndpointLoad* load) noexcept

cdef inline const uint8_t* held_octets(Call* call) noexcept:
    return &call.body.few[0] if call.body.octets == NULL else call.body.octets
