# call_log.pyx: a finished call as an AccessEntry of the access log. See call_log.pxd.

from libc.stdint cimport uint8_t
from libc.string cimport memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from .._fastmatch cimport RouteTable, Span
from ..field cimport (
    TOKEN_AUTHORITY,
    TOKEN_METHOD,
    TOKEN_PATH,
    TOKEN_USER_AGENT,
    TOKEN_X_FORWARDED_FOR,
    Field,
)
from .access_log cimport AccessEntry, Text
from .call_record cimport Call
from .client_address cimport client_address
from .context cimport Context


cdef inline Text span_text(RouteTable table, Span span) noexcept:
    cdef Text text
    text.octets = table.octets(span)
    text.length = span.length
    return text


cdef inline void field_text(Text* text, const Field* field) noexcept:
    text.octets = field.value
    text.length = field.value_length


cdef void fields_into(AccessEntry* entry, const Call* call) noexcept:
    cdef const Field* field
    cdef Py_ssize_t i
    if call.log_fields == NULL:
        return
    for i in range(call.log_fields.count):
        field = &call.log_fields.fields[i]
        if field.token == TOKEN_AUTHORITY:
            field_text(&entry.authority, field)
        elif field.token == TOKEN_PATH:
            field_text(&entry.path, field)
        elif field.token == TOKEN_METHOD:
            field_text(&entry.method, field)
        elif field.token == TOKEN_USER_AGENT:
            field_text(&entry.user_agent, field)
        elif field.token == TOKEN_X_FORWARDED_FOR:
            entry.client.octets = client_address(field.value, field.value_length, &entry.client.length)


cdef int log_call(Context context, const Call* call) except -1:
    cdef AccessEntry entry
    cdef RouteTable table
    cdef timespec now
    cdef double duration = (context.turn_us - call.started_us) / 1e6
    memset(&entry, 0, sizeof(entry))
    clock_gettime(CLOCK_REALTIME, &now)
    entry.time = now.tv_sec + now.tv_nsec / 1e9 - duration
    entry.rule_index = -1
    if call.table != NULL:
        table = <RouteTable>call.table
        if call.listener >= 0:
            entry.listener = span_text(table, table.listener_label(call.listener))
        if call.rule != NULL:
            entry.route = span_text(table, call.rule.route)
            entry.rule = span_text(table, call.rule.rule_name)
            entry.rule_index = <int>call.rule.index
        if call.ref != NULL:
            entry.backend = span_text(table, call.ref.label)
    if call.load != NULL and call.attempts > 0:
        entry.endpoint.octets = <const uint8_t*>call.load.label
        entry.endpoint.length = call.load.label_length
    fields_into(&entry, call)
    entry.http_status = call.http_status
    if entry.http_status == 0 and call.grpc_status >= 0 and call.ended_by != 1:
        entry.http_status = 200
    entry.grpc_status = call.grpc_status
    entry.ended_by = call.ended_by
    entry.reason = call.reason
    entry.attempts = call.attempts
    entry.duration_us = context.turn_us - call.started_us
    if call.response_us > call.sent_us:
        entry.upstream_us = call.response_us - call.sent_us
    entry.request_octets = call.request_octets
    entry.response_octets = call.response_octets
    entry.request_messages = call.request.messages
    entry.response_messages = call.response.messages
    return context.access_log.write(&entry)
