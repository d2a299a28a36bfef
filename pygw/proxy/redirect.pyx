# redirect.pyx: see redirect.pxd. Not in anybody's hot path: made of Python bytes.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t

from .._fastmatch cimport Found, ListRef, RedirectRecord, RouteTable, Span
from ..field cimport TOKEN_CONTENT_LENGTH, TOKEN_OTHER, TOKEN_STATUS, Field
from ..http2.message cimport RequestHead
from ..match.image_layout cimport REDIRECT_FULL_PATH, REDIRECT_PREFIX
from ..match.request_target cimport length_without_port
from .call_failure cimport call_answered
from .call_record cimport Call
from .context cimport Context
from .header_edits cimport apply_edits, set_field


cdef inline bytes span_octets(RouteTable table, Span span):
    return table.octets(span)[:span.length]


cdef bytes location_of(RouteTable table, const Found* found, const RequestHead* head, const char* scheme, int port):
    cdef const RedirectRecord* record = table.redirect(found.rule)
    cdef bytes new_scheme = span_octets(table, record.scheme)
    cdef bytes host = span_octets(table, record.hostname)
    if not host:
        host = head.authority.value[:length_without_port(head.authority.value, head.authority.value_length)]
    # HTTPRequestRedirectFilter.port: the scheme's own where one is given, else the listener's.
    if record.port != 0:
        port = <int>record.port
    elif new_scheme:
        port = 443 if new_scheme == b"https" else 80
    if not new_scheme:
        new_scheme = scheme
    if port == (443 if new_scheme == b"https" else 80):
        return new_scheme + b"://" + host + path_of(table, found, head, record)
    return new_scheme + b"://" + host + b":" + str(port).encode() + path_of(table, found, head, record)


# The query stays what it was.
cdef bytes path_of(RouteTable table, const Found* found, const RequestHead* head, const RedirectRecord* record):
    cdef bytes target = head.path.value[:head.path.value_length]
    cdef bytes path, query, mark
    cdef bytes new = span_octets(table, record.path)
    path, mark, query = target.partition(b"?")
    if record.path_kind == REDIRECT_FULL_PATH:
        path = new
    elif record.path_kind == REDIRECT_PREFIX:
        path = new.rstrip(b"/") + path[found.prefix_length:]
    if not path.startswith(b"/"):
        path = b"/" + path
    return path + mark + query


cdef int answer_redirect(Call* call, bytes location) except -1:
    cdef Context context = <Context>call.context
    cdef RouteTable table = <RouteTable>call.table
    cdef bytes status = str(table.redirect(call.rule).status).encode()
    cdef Field[3] fields
    cdef ListRef none
    none.first = none.count = 0
    set_octets(&fields[0], b":status", status, TOKEN_STATUS)
    set_octets(&fields[1], b"location", location, TOKEN_OTHER)
    set_octets(&fields[2], b"content-length", b"0", TOKEN_CONTENT_LENGTH)
    fields[1].flags = 0  # one for each URL: not worth an entry of the table
    call.http_status = <uint16_t>table.redirect(call.rule).status
    count = apply_edits(context, table, call.rule.response_edits, none, fields, 3)
    return call_answered(call, context.scratch, count)


cdef int set_octets(Field* field, bytes name, bytes value, int token) except -1:
    set_field(
        field, <const uint8_t*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
        <const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), token,
    )
    return 0
