# request_section.pyx: the header section that goes to a backend. See request_section.pxd.

from libc.stdint cimport uint8_t
from libc.string cimport strlen

from .._fastmatch cimport BackendRefRecord, RouteTable, RuleRecord
from ..field cimport TOKEN_GRPC_TIMEOUT, TOKEN_X_FORWARDED_FOR, TOKEN_X_FORWARDED_PROTO, Field
from .client_address cimport FORWARDED_FOR_MAX, TrustedProxies
from .context cimport Context
from .header_edits cimport edit_scratch, set_field


# x-forwarded-for and x-forwarded-proto behind scratch[kept - 1]. What they say of a client that is no proxy is the
# same in all its calls: then the encoder finds them by the Client's memos.
cdef Py_ssize_t add_addresses(
    Context context, const Field* fields, Py_ssize_t count, TrustedProxies proxies, Client* client, Py_ssize_t kept
) noexcept:
    cdef const uint8_t* address = client.address
    cdef Py_ssize_t length = client.address_length
    cdef const char* proto
    cdef uint8_t* text
    if client.is_trusted:
        text = &context.scratch_text[context.scratch_used]
        length = proxies.forwarded_for(address, length, True, fields, count, text, FORWARDED_FOR_MAX)
        context.scratch_used += length
        address = text
    if length > 0:
        set_field(&context.scratch[kept], b"x-forwarded-for", 15, address, length, TOKEN_X_FORWARDED_FOR)
        if not client.is_trusted:
            context.scratch[kept].memo = &client.address_memo
        kept += 1
    proto = proxies.forwarded_proto(client.is_tls, client.is_trusted, fields, count)
    set_field(
        &context.scratch[kept], b"x-forwarded-proto", 17, <const uint8_t*>proto, <Py_ssize_t>strlen(proto),
        TOKEN_X_FORWARDED_PROTO,
    )
    if not client.is_trusted:
        context.scratch[kept].memo = &client.proto_memo
    return kept + 1


cdef Py_ssize_t build_request(
    Context context, RouteTable table, const RuleRecord* rule, const BackendRefRecord* ref,
    const Field* fields, Py_ssize_t count, TrustedProxies proxies, Client* client, bint is_grpc
) except -1:
    cdef Py_ssize_t kept = 0
    cdef Py_ssize_t i
    context.reserve_scratch(count + rule.request_edits.count + ref.request_edits.count + 2)
    for i in range(count):
        if is_grpc and fields[i].token == TOKEN_GRPC_TIMEOUT:
            continue
        if context.x_forwarded and (
            fields[i].token == TOKEN_X_FORWARDED_FOR or fields[i].token == TOKEN_X_FORWARDED_PROTO
        ):
            continue
        context.scratch[kept] = fields[i]
        kept += 1
    if context.x_forwarded:
        kept = add_addresses(context, fields, count, proxies, client, kept)
    kept = edit_scratch(context, table, rule.request_edits, kept)
    return edit_scratch(context, table, ref.request_edits, kept)
