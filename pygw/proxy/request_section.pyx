# request_section.pyx: the header section that goes to a backend. See request_section.pxd.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport strlen

from .._fastmatch cimport BackendRefRecord, RouteTable, RuleRecord
from ..field cimport TOKEN_GRPC_TIMEOUT, TOKEN_X_FORWARDED_FOR, TOKEN_X_FORWARDED_PROTO, Field
from .client_address cimport FORWARDED_FOR_MAX, TrustedProxies
from .context cimport Context
from .grpc_wire cimport format_timeout
from .header_edits cimport edit_scratch, set_field


cdef Py_ssize_t build_request(
    Context context, RouteTable table, const RuleRecord* rule, const BackendRefRecord* ref,
    const Field* fields, Py_ssize_t count, TrustedProxies proxies, const Client* client, int64_t timeout_us
) except -1:
    cdef Py_ssize_t kept = 0
    cdef Py_ssize_t i, length
    cdef uint8_t* text
    cdef const char* proto
    context.reserve_scratch(count + rule.request_edits.count + ref.request_edits.count + 3)
    for i in range(count):
        if fields[i].token == TOKEN_GRPC_TIMEOUT and timeout_us != 0:
            continue
        if context.x_forwarded and (
            fields[i].token == TOKEN_X_FORWARDED_FOR or fields[i].token == TOKEN_X_FORWARDED_PROTO
        ):
            continue
        context.scratch[kept] = fields[i]
        kept += 1
    if context.x_forwarded:
        text = &context.scratch_text[context.scratch_used]
        length = proxies.forwarded_for(
            client.address, client.address_length, client.is_trusted, fields, count, text, FORWARDED_FOR_MAX
        )
        if length > 0:
            context.scratch_used += length
            set_field(&context.scratch[kept], b"x-forwarded-for", 15, text, length, TOKEN_X_FORWARDED_FOR)
            kept += 1
        proto = proxies.forwarded_proto(client.is_tls, client.is_trusted, fields, count)
        set_field(
            &context.scratch[kept], b"x-forwarded-proto", 17, <const uint8_t*>proto, <Py_ssize_t>strlen(proto),
            TOKEN_X_FORWARDED_PROTO,
        )
        kept += 1
    if timeout_us != 0:
        text = &context.scratch_text[context.scratch_used]
        length = format_timeout(timeout_us, text)
        context.scratch_used += length
        set_field(&context.scratch[kept], b"grpc-timeout", 12, text, length, TOKEN_GRPC_TIMEOUT)
        context.scratch[kept].flags = 0      # another one with every call: not worth an entry of the table
        kept += 1
    kept = edit_scratch(context, table, rule.request_edits, kept)
    return edit_scratch(context, table, ref.request_edits, kept)
