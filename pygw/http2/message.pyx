# message.pyx: is a header section well-formed? RFC 9113 §8. See message.pxd.
#
# One pass over the fields by their token, then the rules that join several fields. Octets of names and
# values were judged while they were decoded (FIELD_BAD_NAME, FIELD_BAD_VALUE): only the grammars of the
# pseudo-header fields are looked at here, and of those not what the static table vouches for.

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from ..field cimport (
    FIELD_BAD_NAME,
    FIELD_BAD_VALUE,
    TOKEN_AUTHORITY,
    TOKEN_CONNECTION,
    TOKEN_CONTENT_LENGTH,
    TOKEN_CONTENT_TYPE,
    TOKEN_GRPC_STATUS,
    TOKEN_GRPC_TIMEOUT,
    TOKEN_HOST,
    TOKEN_METHOD,
    TOKEN_PATH,
    TOKEN_SCHEME,
    TOKEN_STATUS,
    TOKEN_TE,
    TOKEN_UNKNOWN_PSEUDO,
    TOKEN_UPGRADE,
    TOKEN_USER_AGENT,
    TOKEN_X_FORWARDED_FOR,
    Field,
)
from .hpack_table cimport classify_name, classify_value

# What each octet may be part of, so that a value costs one look-up and no branch for each of its octets.
cdef enum:
    IN_AUTHORITY = 0x01          # RFC 3986 §3.2 without userinfo: reg-name, [ ] and :
    IN_TOKEN = 0x02              # RFC 9110 §5.6.2
    IN_SCHEME = 0x04             # RFC 3986 §3.1, all but its first octet
    IN_PATH = 0x08               # neither blank nor control octet

cdef uint8_t GRAMMAR[256]


cdef inline bint consists_of(const Field* field, uint8_t grammar) noexcept:
    cdef uint32_t i
    for i in range(field.value_length):
        grammar &= GRAMMAR[field.value[i]]
    return grammar != 0


cdef inline uint8_t lower(uint8_t octet) noexcept:
    return octet | 0x20 if b"A" <= octet <= b"Z" else octet


# Is `octets` equal to `text` (lower case), whatever its own case?
cdef inline bint equals_lower(
    const uint8_t* octets, Py_ssize_t length, const char* text, Py_ssize_t text_length,
) noexcept:
    cdef Py_ssize_t i
    if length != text_length:
        return False
    # Nearly all spell it so.
    if memcmp(octets, text, <size_t>length) == 0:
        return True
    for i in range(length):
        if lower(octets[i]) != <uint8_t>text[i]:
            return False
    return True


cdef inline bint is_letter(uint8_t octet) noexcept:
    return b"a" <= (octet | 0x20) <= b"z"


# Reads a content-length (RFC 9110 §8.6: digits only) into `known`; False: malformed.
cdef bint read_content_length(const Field* field, int64_t* known) noexcept:
    cdef int64_t value = 0
    cdef uint32_t i
    cdef uint8_t digit
    if field.value_length == 0:
        return False
    for i in range(field.value_length):
        digit = <uint8_t>(field.value[i] - <uint8_t>b"0")
        if digit > 9 or value > (INT64_MAX - digit) // 10:
            return False
        value = value * 10 + digit
    if known[0] >= 0 and known[0] != value:
        return False
    known[0] = value
    return True


# Content-type application/grpc, alone or followed by '+' or ';'; so never application/grpc-web.
# Media types are case-insensitive (RFC 9110 §8.3.1).
cdef bint is_grpc_content_type(const Field* field) noexcept:
    cdef uint32_t n = 16  # len("application/grpc")
    if field.value_length < n or not equals_lower(field.value, n, "application/grpc", n):
        return False
    return field.value_length == n or field.value[n] == b"+" or field.value[n] == b";"


# The length of an authority without the port that its scheme implies (RFC 3986 §6.2.3), so that
# "a:80" and "a" name one entity in http.
cdef uint32_t length_without_default_port(const Field* authority, bint is_http, bint is_https) noexcept:
    cdef uint32_t n = authority.value_length
    cdef const uint8_t* end = authority.value + n
    if n >= 1 and (end - 1)[0] == b":":
        return n - 1
    if is_http and n >= 3 and memcmp(end - 3, b":80", 3) == 0:
        return n - 3
    if is_https and n >= 4 and memcmp(end - 4, b":443", 4) == 0:
        return n - 4
    return n


cdef bint same_entity(const Field* a, const Field* b, bint is_http, bint is_https) noexcept:
    cdef uint32_t length = length_without_default_port(a, is_http, is_https)
    cdef uint32_t i
    if length != length_without_default_port(b, is_http, is_https):
        return False
    for i in range(length):
        if lower(a.value[i]) != lower(b.value[i]):
            return False
    return True


cdef const char* check_authority(const Field* authority, bint is_http) noexcept:
    cdef uint32_t i
    if is_http and (authority.value_length == 0 or authority.value[0] == b":"):
        return "empty host in the authority (RFC 9113 8.3.1, RFC 9110 4.2.1)"
    if not consists_of(authority, IN_AUTHORITY):
        for i in range(authority.value_length):
            if authority.value[i] == b"@":
                return "userinfo in the authority (RFC 9113 8.3.1)"
        return "invalid octet in the authority (RFC 3986 3.2)"
    return NULL


cdef const char* check_path(const Field* path, bint is_options) noexcept:
    if path.value_length == 0:
        return "empty :path (RFC 9113 8.3.1)"
    if path.value[0] != b"/":
        if path.value_length == 1 and path.value[0] == b"*" and is_options:
            return NULL
        return ":path without a leading '/' (RFC 9113 8.3.1)"
    if not consists_of(path, IN_PATH):
        return "blank or control octet in :path (RFC 9113 8.3.1)"
    # Whether it names a method ("#", "..", a query) is the matcher's question: such a call is answered, not reset.
    return NULL


# What holds for every field of every section (§8.2): NULL or the reason.
cdef inline const char* check_field(const Field* field) noexcept:
    if field.flags & (FIELD_BAD_NAME | FIELD_BAD_VALUE):
        if field.flags & FIELD_BAD_NAME:
            return "invalid field name (RFC 9113 8.2.1)"
        return "invalid field value (RFC 9113 8.2.1)"
    if TOKEN_CONNECTION <= field.token <= TOKEN_UPGRADE:
        return "connection-specific field (RFC 9113 8.2.2)"
    return NULL


cdef const char* check_request(Field* fields, Py_ssize_t count, RequestHead* head) noexcept:
    cdef const char* reason
    begin_request(head)
    reason = add_fields(fields, count, head)
    return reason if reason != NULL else end_request(head)


cdef const char* check_run_request(
    RunHead* last, uint64_t run_number, Py_ssize_t run_fields, Field* fields, Py_ssize_t count, RequestHead* head
) noexcept:
    cdef const char* reason
    if run_number == 0:
        return check_request(fields, count, head)
    if run_number != last.number:
        last.number = 0
        begin_request(&last.head)
        reason = add_fields(fields, run_fields, &last.head)
        if reason != NULL:
            return reason
        last.is_request = end_request(&last.head) == NULL
        last.number = run_number
    head[0] = last.head
    reason = add_fields(fields + run_fields, count - run_fields, head)
    if reason != NULL:
        return reason
    # Of what end_request() looks at, only these two can still come behind a whole request.
    if last.is_request and head.authority == last.head.authority and head.host == last.head.host:
        return NULL
    return end_request(head)


cdef void begin_request(RequestHead* head) noexcept:
    memset(head, 0, sizeof(RequestHead))
    head.content_length = -1


cdef const char* end_request(RequestHead* head) noexcept:
    cdef const char* reason = check_request_line(head)
    return reason if reason != NULL else check_target(head)


cdef const char* add_fields(Field* fields, Py_ssize_t count, RequestHead* head) noexcept:
    cdef Py_ssize_t i
    cdef Field* field
    cdef Field** place
    cdef const char* reason
    for i in range(count):
        field = fields + i
        reason = check_field(field)
        if reason != NULL:
            return reason
        if TOKEN_AUTHORITY <= field.token <= TOKEN_UNKNOWN_PSEUDO:
            if head.regular_seen:
                return "pseudo-header field after a regular field (RFC 9113 8.3)"
            if field.token == TOKEN_METHOD:
                place = &head.method
            elif field.token == TOKEN_SCHEME:
                place = &head.scheme
            elif field.token == TOKEN_AUTHORITY:
                place = &head.authority
            elif field.token == TOKEN_PATH:
                place = &head.path
            else:
                # :status is for responses, :protocol (RFC 8441) was not offered in our SETTINGS.
                return "unknown pseudo-header field (RFC 9113 8.3)"
            if place[0] != NULL:
                return "repeated pseudo-header field (RFC 9113 8.3)"
            place[0] = field
            continue
        head.regular_seen = True
        if field.token == TOKEN_TE:
            if not equals_lower(field.value, field.value_length, "trailers", 8):
                return "te with another value than trailers (RFC 9113 8.2.2)"
            if head.te == NULL:
                head.te = field
        elif field.token == TOKEN_HOST:
            if head.host != NULL:
                return "repeated host (RFC 9110 7.2)"
            head.host = field
        elif field.token == TOKEN_CONTENT_LENGTH:
            if not read_content_length(field, &head.content_length):
                return "invalid or contradicting content-length (RFC 9110 8.6)"
        elif field.token == TOKEN_CONTENT_TYPE:
            if head.content_type == NULL:
                head.content_type = field
                head.is_grpc = is_grpc_content_type(field)
        elif field.token == TOKEN_GRPC_TIMEOUT:
            if head.grpc_timeout == NULL:
                head.grpc_timeout = field
        elif field.token == TOKEN_X_FORWARDED_FOR:
            if head.x_forwarded_for == NULL:
                head.x_forwarded_for = field
            head.x_forwarded_for_span = <int>(field - head.x_forwarded_for) + 1
        elif field.token == TOKEN_USER_AGENT:
            if head.user_agent == NULL:
                head.user_agent = field
    return NULL


# :method, :scheme and :path, each required (§8.3.1). The static table's values are well-formed: GET, POST; http, https.
cdef const char* check_request_line(RequestHead* head) noexcept:
    cdef bint is_options = False
    if head.method == NULL:
        return "no :method (RFC 9113 8.3.1)"
    if head.method.static_index == 0:
        if head.method.value_length == 0 or not consists_of(head.method, IN_TOKEN):
            return "invalid :method (RFC 9110 9.1)"
        if head.method.value_length == 7:
            if memcmp(head.method.value, b"CONNECT", 7) == 0:
                return "CONNECT is not served"
            is_options = memcmp(head.method.value, b"OPTIONS", 7) == 0
    if head.scheme == NULL:
        return "no :scheme (RFC 9113 8.3.1)"
    if head.scheme.static_index == 0 and (
        head.scheme.value_length == 0
        or not is_letter(head.scheme.value[0])
        or not consists_of(head.scheme, IN_SCHEME)
    ):
        return "invalid :scheme (RFC 3986 3.1)"
    if head.path == NULL:
        return "no :path (RFC 9113 8.3.1)"
    return check_path(head.path, is_options)


# :authority and host together (§8.3.1). Where only host came, it is the authority.
cdef const char* check_target(RequestHead* head) noexcept:
    cdef const char* reason
    cdef bint is_http = equals_lower(head.scheme.value, head.scheme.value_length, "http", 4)
    cdef bint is_https = equals_lower(head.scheme.value, head.scheme.value_length, "https", 5)
    if head.authority == NULL:
        head.authority = head.host
        if head.host == NULL:
            if is_http or is_https:
                return "no authority in an http request (RFC 9113 8.3.1)"
            return NULL
    reason = check_authority(head.authority, is_http or is_https)
    if reason != NULL:
        return reason
    if head.host != NULL and not same_entity(head.authority, head.host, is_http, is_https):
        return "host differs from :authority (RFC 9113 8.3.1)"
    return NULL


cdef const char* check_response(Field* fields, Py_ssize_t count, ResponseHead* head) noexcept:
    cdef Py_ssize_t i
    cdef Field* field
    cdef const char* reason
    cdef const uint8_t* digits
    cdef bint regular_seen = False
    memset(head, 0, sizeof(ResponseHead))
    head.content_length = -1
    for i in range(count):
        field = fields + i
        reason = check_field(field)
        if reason != NULL:
            return reason
        if TOKEN_AUTHORITY <= field.token <= TOKEN_UNKNOWN_PSEUDO:
            if regular_seen:
                return "pseudo-header field after a regular field (RFC 9113 8.3)"
            if field.token != TOKEN_STATUS:
                return "unknown pseudo-header field (RFC 9113 8.3)"
            if head.status != 0:
                return "repeated pseudo-header field (RFC 9113 8.3)"
            digits = field.value
            if (
                field.value_length != 3
                or not b"1" <= digits[0] <= b"9"
                or not b"0" <= digits[1] <= b"9"
                or not b"0" <= digits[2] <= b"9"
            ):
                return "invalid :status (RFC 9113 8.3.2)"
            head.status = (digits[0] - 48) * 100 + (digits[1] - 48) * 10 + digits[2] - 48
            if head.status == 101:
                return ":status 101 (RFC 9113 8.6)"
            continue
        regular_seen = True
        if field.token == TOKEN_TE:
            # §8.2.2 excepts TE from the connection-specific fields in requests only.
            return "connection-specific field (RFC 9113 8.2.2)"
        elif field.token == TOKEN_CONTENT_LENGTH:
            if not read_content_length(field, &head.content_length):
                return "invalid or contradicting content-length (RFC 9110 8.6)"
        elif field.token == TOKEN_CONTENT_TYPE:
            if head.content_type == NULL:
                head.content_type = field
        elif field.token == TOKEN_GRPC_STATUS:
            if head.grpc_status == NULL:
                head.grpc_status = field
    if head.status == 0:
        return "no :status (RFC 9113 8.3.2)"
    return NULL


cdef const char* check_trailers(Field* fields, Py_ssize_t count, Field** grpc_status) noexcept:
    cdef Py_ssize_t i
    cdef Field* field
    cdef const char* reason
    grpc_status[0] = NULL
    for i in range(count):
        field = fields + i
        reason = check_field(field)
        if reason != NULL:
            return reason
        if TOKEN_AUTHORITY <= field.token <= TOKEN_UNKNOWN_PSEUDO:
            return "pseudo-header field in trailers (RFC 9113 8.1)"
        if field.token == TOKEN_TE:
            return "connection-specific field (RFC 9113 8.2.2)"
        if field.token == TOKEN_GRPC_STATUS and grpc_status[0] == NULL:
            grpc_status[0] = field
    return NULL


cdef int build_grammar() except -1:
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for grammar, octets in (
        (IN_AUTHORITY, letters + b"-._~%!$&'()*+,;=:[]"),
        (IN_TOKEN, letters + b"!#$%&'*+-.^_`|~"),
        (IN_SCHEME, letters + b"+-."),
        (IN_PATH, bytes(octet for octet in range(0x21, 0x100) if octet != 0x7f)),
    ):
        for octet in octets:
            GRAMMAR[octet] |= <uint8_t>grammar
    return 0


build_grammar()


# ===== for Python: explain and tests =====

cdef int classify_pair(Field* field, bytes name, bytes value) except -1:
    field.name = <const uint8_t*>name
    field.name_length = <uint32_t>len(name)
    field.value = <const uint8_t*>value
    field.value_length = <uint32_t>len(value)
    field.flags = classify_name(field.name, field.name_length, &field.token)
    field.flags |= classify_value(field.value, field.value_length)
    return 0


cdef class FieldList:
    """A Field array made of Python pairs, which it keeps alive."""

    cdef:
        Field* fields
        Py_ssize_t count
        list pairs

    def __cinit__(self, pairs):
        cdef Py_ssize_t i
        self.pairs = [(bytes(name), bytes(value)) for name, value in pairs]
        self.count = len(self.pairs)
        self.fields = <Field*>malloc((self.count + 1) * sizeof(Field))
        if self.fields == NULL:
            raise MemoryError()
        memset(self.fields, 0, (self.count + 1) * sizeof(Field))
        for i in range(self.count):
            classify_pair(self.fields + i, self.pairs[i][0], self.pairs[i][1])

    def __dealloc__(self):
        free(self.fields)

    cdef object value(self, const Field* field):
        return None if field == NULL else field.value[:field.value_length]


def check_request_fields(fields):
    cdef FieldList section = FieldList(fields)
    cdef RequestHead head
    cdef const char* reason = check_request(section.fields, section.count, &head)
    return None if reason == NULL else reason.decode()


def request_head(fields):
    cdef FieldList section = FieldList(fields)
    cdef RequestHead head
    cdef const char* reason = check_request(section.fields, section.count, &head)
    if reason != NULL:
        raise ValueError(reason.decode())
    return {
        "method": section.value(head.method),
        "scheme": section.value(head.scheme),
        "authority": section.value(head.authority),
        "path": section.value(head.path),
        "host": section.value(head.host),
        "content_type": section.value(head.content_type),
        "te": section.value(head.te),
        "grpc_timeout": section.value(head.grpc_timeout),
        "x_forwarded_for": section.value(head.x_forwarded_for),
        "user_agent": section.value(head.user_agent),
        "content_length": None if head.content_length < 0 else head.content_length,
        "is_grpc": bool(head.is_grpc),
    }


def check_response_fields(fields):
    cdef FieldList section = FieldList(fields)
    cdef ResponseHead head
    cdef const char* reason = check_response(section.fields, section.count, &head)
    return None if reason == NULL else reason.decode()


def response_head(fields):
    cdef FieldList section = FieldList(fields)
    cdef ResponseHead head
    cdef const char* reason = check_response(section.fields, section.count, &head)
    if reason != NULL:
        raise ValueError(reason.decode())
    return {
        "status": head.status,
        "content_length": None if head.content_length < 0 else head.content_length,
        "grpc_status": section.value(head.grpc_status),
        "content_type": section.value(head.content_type),
    }


def check_trailer_fields(fields):
    cdef FieldList section = FieldList(fields)
    cdef Field* grpc_status
    cdef const char* reason = check_trailers(section.fields, section.count, &grpc_status)
    return None if reason == NULL else reason.decode()
