# access_log.pyx: JSON lines of finished calls. See access_log.pxd.
#
# A line is written straight into the buffer. Each text is measured at its worst first (6 octets for each of its
# own), so that the loops need no check of room; `lines` grows at most to FLUSH_SIZE and one line.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from ..http2.buffer cimport Buffer, buffer_append, buffer_free, buffer_reserve, buffer_take

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
    tm* gmtime_r(const time_t* time, tm* result)

cdef const char* HEXADECIMAL = b"0123456789abcdef"


# ===== JSON (RFC 8259 §7) =====

# The length of the UTF-8 sequence that begins here, or of the longest beginning of one with `valid` False: that is
# what becomes one U+FFFD (Unicode 15 §3.9, table 3-7 and "maximal subpart", as Python's "replace" does).
cdef inline Py_ssize_t sequence_length(const uint8_t* text, Py_ssize_t left, bint* valid) noexcept:
    cdef uint8_t first = text[0]
    cdef uint8_t low = 0x80, high = 0xBF
    cdef Py_ssize_t needed, i
    valid[0] = False
    if 0xC2 <= first <= 0xDF:
        needed = 2
    elif 0xE0 <= first <= 0xEF:
        needed = 3
        if first == 0xE0:
            low = 0xA0           # below: over-long
        elif first == 0xED:
            high = 0x9F          # above: surrogates
    elif 0xF0 <= first <= 0xF4:
        needed = 4
        if first == 0xF0:
            low = 0x90
        elif first == 0xF4:
            high = 0x8F          # above: beyond U+10FFFF
    else:
        return 1
    for i in range(1, needed):
        if i >= left or not low <= text[i] <= high:
            return i
        low = 0x80
        high = 0xBF
    valid[0] = True
    return needed


cdef inline uint8_t* escape_control(uint8_t* out, uint8_t octet) noexcept:
    memcpy(out, b"\\u00", 4)
    out[4] = <uint8_t>HEXADECIMAL[octet >> 4]
    out[5] = <uint8_t>HEXADECIMAL[octet & 15]
    return out + 6


# Writes the inside of a JSON string, at most 6 octets for each of `text`; returns the end of it.
cdef uint8_t* escape(uint8_t* out, const uint8_t* text, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i = 0, n
    cdef uint8_t octet
    cdef bint valid
    while i < length:
        octet = text[i]
        if 0x20 <= octet < 0x7F:
            if octet == b'"' or octet == b"\\":
                out[0] = b"\\"
                out += 1
            out[0] = octet
            out += 1
            i += 1
        elif octet < 0x80:
            out = escape_control(out, octet)
            i += 1
        else:
            n = sequence_length(text + i, length - i, &valid)
            if not valid:
                memcpy(out, b"\xef\xbf\xbd", 3)
                out += 3
            elif octet == 0xC2 and text[i + 1] < 0xA0:
                # C1 controls mean something to terminals.
                out = escape_control(out, text[i + 1])
            else:
                memcpy(out, text + i, <size_t>n)
                out += n
            i += n
    return out


# ===== parts of a line: each begins with a comma =====

cdef int put_text(Buffer* lines, const char* key, Text text) except -1:
    cdef Py_ssize_t length = text.length if text.length <= TEXT_MAX else TEXT_MAX
    cdef uint8_t* start
    cdef uint8_t* end
    if text.length <= 0:
        return 0
    buffer_append(lines, key, <Py_ssize_t>strlen(key))
    start = buffer_reserve(lines, 6 * length + 5)
    start[0] = b'"'
    end = escape(start + 1, text.octets, length)
    if length < text.length:
        memcpy(end, b"\xe2\x80\xa6", 3)
        end += 3
    end[0] = b'"'
    lines.length += end + 1 - start
    return 0


cdef int put_static(Buffer* lines, const char* key, const char* text) except -1:
    cdef Text copy
    copy.octets = <const uint8_t*>text
    copy.length = <Py_ssize_t>strlen(text)
    return put_text(lines, key, copy)


cdef int put_number(Buffer* lines, const char* key, uint64_t number) except -1:
    cdef uint8_t[20] digits
    cdef int place = 20
    buffer_append(lines, key, <Py_ssize_t>strlen(key))
    while True:
        place -= 1
        digits[place] = <uint8_t>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    return buffer_append(lines, digits + place, 20 - place)


# Microseconds as milliseconds with three decimals.
cdef int put_milliseconds(Buffer* lines, const char* key, uint64_t microseconds) except -1:
    cdef uint8_t[4] decimals
    put_number(lines, key, microseconds // 1000)
    decimals[0] = b"."
    put_decimals(decimals + 1, microseconds % 1000)
    return buffer_append(lines, decimals, 4)


cdef inline void put_decimals(uint8_t* out, uint64_t number) noexcept:
    out[0] = <uint8_t>(48 + number // 100 % 10)
    out[1] = <uint8_t>(48 + number // 10 % 10)
    out[2] = <uint8_t>(48 + number % 10)


cdef class AccessLog:

    def __cinit__(self, loop, sink):
        memset(&self.lines, 0, sizeof(Buffer))
        self.loop = loop
        self.sink = sink
        self.second = -1

    def __dealloc__(self):
        buffer_free(&self.lines)

    cdef int write(self, const AccessEntry* entry) except -1:
        cdef Buffer* lines = &self.lines
        cdef Py_ssize_t start = lines.length
        try:
            self.put_time(entry.time)
            put_entry(lines, entry)
        except MemoryError:
            lines.length = start
            raise
        self.line_count += 1
        if lines.length >= FLUSH_SIZE:
            self.hand_out()
        elif not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_soon(self.flush)
        return 0

    # {"time":"2026-11-25T03:00:00.123Z"; the date is made once a second.
    cdef int put_time(self, double seconds) except -1:
        cdef time_t second
        cdef tm parts
        cdef int milliseconds
        cdef uint8_t[5] tail
        if not 0 <= seconds < 253402300800:      # the year 10000
            seconds = 0
        second = <time_t>seconds
        milliseconds = <int>((seconds - second) * 1000)
        if second != self.second:
            gmtime_r(&second, &parts)
            put_clock(self.clock, &parts)
            self.second = second
        buffer_append(&self.lines, b'{"time":"', 9)
        buffer_append(&self.lines, self.clock, 19)
        tail[0] = b"."
        put_decimals(tail + 1, milliseconds)
        tail[4] = b"Z"
        buffer_append(&self.lines, tail, 5)
        return buffer_append(&self.lines, b'"', 1)

    cpdef int flush(self) except -1:
        self.flush_scheduled = False
        return self.hand_out()

    cdef int hand_out(self) except -1:
        cdef bytes octets
        cdef Py_ssize_t count
        if self.lines.length == 0:
            return 0
        octets = buffer_take(&self.lines)
        try:
            self.sink(octets)
        except OSError:
            # A full disk or a closed pipe must not end calls: the loss is counted and shown.
            count = octets.count(b"\n")
            self.lost += <uint64_t>count
        return 0


cdef void put_clock(char* out, const tm* parts) noexcept:
    put_two(out, (parts.tm_year + 1900) // 100, 0)
    put_two(out + 2, parts.tm_year % 100, b"-")
    put_two(out + 5, parts.tm_mon + 1, b"-")
    put_two(out + 8, parts.tm_mday, b"T")
    put_two(out + 11, parts.tm_hour, b":")
    put_two(out + 14, parts.tm_min, b":")
    put_two(out + 17, parts.tm_sec, 0)


cdef inline void put_two(char* out, int number, char following) noexcept:
    out[0] = <char>(48 + number // 10 % 10)
    out[1] = <char>(48 + number % 10)
    out[2] = following


cdef int put_entry(Buffer* lines, const AccessEntry* entry) except -1:
    put_text(lines, b',"client":', entry.client)
    put_text(lines, b',"method":', entry.method)
    put_text(lines, b',"authority":', entry.authority)
    put_text(lines, b',"path":', entry.path)
    put_text(lines, b',"listener":', entry.listener)
    put_text(lines, b',"route":', entry.route)
    if entry.rule_index >= 0:
        put_number(lines, b',"rule":', <uint64_t>entry.rule_index)
    put_text(lines, b',"rule_name":', entry.rule)
    put_text(lines, b',"backend":', entry.backend)
    put_text(lines, b',"endpoint":', entry.endpoint)
    if entry.http_status > 0:
        put_number(lines, b',"http_status":', <uint64_t>entry.http_status)
    if entry.grpc_status >= 0:
        put_number(lines, b',"grpc_status":', <uint64_t>entry.grpc_status)
    put_static(lines, b',"ended_by":', ended_by_text(entry.ended_by))
    if entry.reason != NULL:
        put_static(lines, b',"reason":', entry.reason)
    put_number(lines, b',"attempts":', entry.attempts)
    put_milliseconds(lines, b',"duration_ms":', entry.duration_us)
    if entry.upstream_us > 0:
        put_milliseconds(lines, b',"upstream_ms":', entry.upstream_us)
    put_number(lines, b',"request_bytes":', entry.request_octets)
    put_number(lines, b',"response_bytes":', entry.response_octets)
    put_number(lines, b',"request_messages":', entry.request_messages)
    put_number(lines, b',"response_messages":', entry.response_messages)
    put_text(lines, b',"user_agent":', entry.user_agent)
    return buffer_append(lines, b"}\n", 2)


cdef inline const char* ended_by_text(EndedBy ended_by) noexcept:
    if ended_by == ENDED_BY_CLIENT:
        return b"client"
    return b"gateway" if ended_by == ENDED_BY_GATEWAY else b"backend"


# ===== for Python: tests and benchmarks =====

cdef Text text_of(dict values, str key):
    cdef Text text
    cdef bytes octets = values.get(key, b"")
    text.octets = <const uint8_t*>octets     # `values` holds them
    text.length = len(octets)
    return text


def write_entry(AccessLog log, dict values, Py_ssize_t times=1):
    cdef AccessEntry entry
    cdef bytes reason = values.get("reason")
    cdef dict ends = {"backend": ENDED_BY_BACKEND, "client": ENDED_BY_CLIENT, "gateway": ENDED_BY_GATEWAY}
    memset(&entry, 0, sizeof(entry))
    entry.time = values.get("time", 0.0)
    entry.client = text_of(values, "client")
    entry.method = text_of(values, "method")
    entry.authority = text_of(values, "authority")
    entry.path = text_of(values, "path")
    entry.listener = text_of(values, "listener")
    entry.route = text_of(values, "route")
    entry.rule = text_of(values, "rule_name")
    entry.rule_index = values.get("rule", -1)
    entry.backend = text_of(values, "backend")
    entry.endpoint = text_of(values, "endpoint")
    entry.user_agent = text_of(values, "user_agent")
    entry.http_status = values.get("http_status", 0)
    entry.grpc_status = values.get("grpc_status", -1)
    entry.ended_by = ends[values.get("ended_by", "backend")]
    if reason is not None:
        entry.reason = reason
    entry.attempts = values.get("attempts", 0)
    entry.duration_us = values.get("duration_us", 0)
    entry.upstream_us = values.get("upstream_us", 0)
    entry.request_octets = values.get("request_bytes", 0)
    entry.response_octets = values.get("response_bytes", 0)
    entry.request_messages = values.get("request_messages", 0)
    entry.response_messages = values.get("response_messages", 0)
    for _ in range(times):
        log.write(&entry)
