# frame_reader.pyx: octets -> frames. See frame_reader.pxd.

from libc.string cimport memcpy

from .buffer cimport buffer_append
from .constants cimport (
    DEFAULT_MAX_FRAME_SIZE,
    ENHANCE_YOUR_CALM,
    FLAG_ACK,
    FLAG_END_HEADERS,
    FLAG_PADDED,
    FLAG_PRIORITY,
    FRAME_CONTINUATION,
    FRAME_DATA,
    FRAME_GOAWAY,
    FRAME_HEAD_LENGTH,
    FRAME_HEADERS,
    FRAME_PING,
    FRAME_PUSH_PROMISE,
    FRAME_RST_STREAM,
    FRAME_SETTINGS,
    FRAME_SIZE_ERROR,
    FRAME_WINDOW_UPDATE,
    PREFACE_LENGTH,
    PRIORITY_LENGTH,
    PROTOCOL_ERROR,
    SETTING_LENGTH,
    preface,
)
from .wire cimport load_24, load_31


cdef void start_reader(
    FrameReader* self, bint expects_preface, uint32_t max_block, uint32_t max_continuations
) noexcept:
    self.state = AT_PREFACE if expects_preface else AT_HEAD
    self.max_block = max_block
    self.max_continuations = max_continuations


cdef int read_event(FrameReader* self, const uint8_t** cursor, const uint8_t* end) except -1:
    cdef Py_ssize_t available
    if self.release:
        free_reader(self)
        self.release = False
    while True:
        available = end - cursor[0]
        if self.state == AT_DATA:
            if available == 0:
                return READ_MORE
            return take_data(self, cursor, available)
        elif self.state == AT_HEAD:
            if not take_head(self, cursor, available):
                return READ_MORE
            if self.error != NULL:
                return READ_ERROR
            if self.type == FRAME_DATA and not self.flags & FLAG_PADDED:
                self.data_left = self.length
                self.padding_left = 0
                self.state = AT_DATA if self.length else AT_HEAD
                return READ_DATA_HEAD
            if self.type > FRAME_CONTINUATION:
                self.padding_left = self.length
                self.state = AT_PADDING
                return READ_UNKNOWN
        elif self.state == AT_PAYLOAD:
            if not take_payload(self, cursor, available):
                return READ_MORE
            self.state = AT_HEAD
            if self.type != FRAME_HEADERS and self.type != FRAME_CONTINUATION:
                self.release = self.partial.length > 0
                return READ_FRAME
            if take_fragment(self):
                return READ_ERROR if self.error != NULL else READ_BLOCK
        elif self.state == AT_PADDING:
            available = min(available, <Py_ssize_t>self.padding_left)
            cursor[0] += available
            self.padding_left -= <uint32_t>available
            if self.padding_left:
                return READ_MORE
            self.state = AT_HEAD
        elif self.state == AT_PAD_LENGTH:
            if available == 0:
                return READ_MORE
            return take_pad_length(self, cursor)
        else:
            return take_preface(self, cursor, available)


cdef int refuse(FrameReader* self, uint32_t error_code, const char* error) noexcept:
    self.error_code = error_code
    self.error = error
    return READ_ERROR


cdef int take_preface(FrameReader* self, const uint8_t** cursor, Py_ssize_t available) noexcept:
    while self.head_length < PREFACE_LENGTH:
        if available == 0:
            return READ_MORE
        if cursor[0][0] != <uint8_t>preface()[self.head_length]:
            self.payload = <const uint8_t*>preface()
            self.payload_length = self.head_length
            return READ_BAD_PREFACE
        self.head_length += 1
        cursor[0] += 1
        available -= 1
    self.head_length = 0
    self.state = AT_HEAD
    return READ_PREFACE


# Takes what is there of a frame head; True once it is whole (and judged: see `error`).
cdef bint take_head(FrameReader* self, const uint8_t** cursor, Py_ssize_t available) noexcept:
    cdef const uint8_t* head = cursor[0]
    cdef Py_ssize_t taken
    if self.head_length or available < FRAME_HEAD_LENGTH:
        taken = min(available, <Py_ssize_t>(FRAME_HEAD_LENGTH - self.head_length))
        memcpy(self.head + self.head_length, head, <size_t>taken)
        cursor[0] += taken
        self.head_length += <uint8_t>taken
        if self.head_length < FRAME_HEAD_LENGTH:
            return False
        self.head_length = 0
        head = self.head
    else:
        cursor[0] += FRAME_HEAD_LENGTH
    self.length = load_24(head)
    self.type = head[3]
    self.flags = head[4]
    self.stream_id = load_31(head + 5)
    self.state = AT_PAYLOAD
    if self.length > DEFAULT_MAX_FRAME_SIZE:
        refuse(self, FRAME_SIZE_ERROR, "frame over SETTINGS_MAX_FRAME_SIZE (RFC 9113 4.2)")
    elif self.block_open and (self.type != FRAME_CONTINUATION or self.stream_id != self.block_id):
        refuse(self, PROTOCOL_ERROR, "frame in the middle of a header block (RFC 9113 6.10)")
    elif not self.settings_seen and (self.type != FRAME_SETTINGS or self.flags & FLAG_ACK):
        refuse(self, PROTOCOL_ERROR, "the first frame is not SETTINGS (RFC 9113 3.4)")
    elif self.type == FRAME_DATA:
        if self.stream_id == 0:
            refuse(self, PROTOCOL_ERROR, "DATA on stream 0 (RFC 9113 6.1)")
        elif self.flags & FLAG_PADDED:
            self.state = AT_PAD_LENGTH
            if self.length == 0:
                refuse(self, FRAME_SIZE_ERROR, "padded frame without pad length (RFC 9113 6.1)")
    elif self.type <= FRAME_CONTINUATION:
        check_head(self)
    self.settings_seen = True
    self.begun += self.type != FRAME_CONTINUATION
    return True


# Where a frame may stand and how long it may be: what breaks it is a connection error. (A PRIORITY of a wrong
# length is a stream error and left to the connection.)
cdef void check_head(FrameReader* self) noexcept:
    if self.type == FRAME_SETTINGS or self.type == FRAME_PING or self.type == FRAME_GOAWAY:
        if self.stream_id != 0:
            refuse(self, PROTOCOL_ERROR, "SETTINGS, PING or GOAWAY on a stream (RFC 9113 6.5, 6.7, 6.8)")
        elif self.type == FRAME_SETTINGS:
            if self.flags & FLAG_ACK:
                if self.length:
                    refuse(self, FRAME_SIZE_ERROR, "acknowledgement of SETTINGS with a payload (RFC 9113 6.5)")
            elif self.length % SETTING_LENGTH:
                refuse(self, FRAME_SIZE_ERROR, "SETTINGS of a wrong length (RFC 9113 6.5)")
        elif self.type == FRAME_PING:
            if self.length != 8:
                refuse(self, FRAME_SIZE_ERROR, "PING of a wrong length (RFC 9113 6.7)")
        elif self.length < 8:
            refuse(self, FRAME_SIZE_ERROR, "GOAWAY of a wrong length (RFC 9113 6.8)")
    elif self.type == FRAME_WINDOW_UPDATE:
        if self.length != 4:
            refuse(self, FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length (RFC 9113 6.9)")
    elif self.stream_id == 0:
        refuse(self, PROTOCOL_ERROR, "frame that needs a stream on stream 0 (RFC 9113 6)")
    elif self.type == FRAME_RST_STREAM:
        if self.length != 4:
            refuse(self, FRAME_SIZE_ERROR, "RST_STREAM of a wrong length (RFC 9113 6.4)")
    elif self.type == FRAME_PUSH_PROMISE:
        # A client must not send it, and as a client we announced SETTINGS_ENABLE_PUSH 0.
        refuse(self, PROTOCOL_ERROR, "PUSH_PROMISE (RFC 9113 8.4)")
    elif self.type == FRAME_CONTINUATION:
        self.continuations += 1
        if not self.block_open:
            refuse(self, PROTOCOL_ERROR, "CONTINUATION without an open header block (RFC 9113 6.10)")
        elif self.block.length + <Py_ssize_t>self.length > <Py_ssize_t>self.max_block:
            refuse(self, ENHANCE_YOUR_CALM, "header block too long")
        elif self.continuations > self.max_continuations:
            refuse(self, ENHANCE_YOUR_CALM, "too many CONTINUATIONs")
    elif self.type == FRAME_HEADERS and <Py_ssize_t>self.length > <Py_ssize_t>self.max_block + 256 + PRIORITY_LENGTH:
        refuse(self, ENHANCE_YOUR_CALM, "header block too long")


cdef int take_pad_length(FrameReader* self, const uint8_t** cursor) noexcept:
    cdef uint32_t padding = cursor[0][0]
    cursor[0] += 1
    # §6.1: as long as the payload or longer. The pad length field counts in `length`.
    if padding >= self.length:
        return refuse(self, PROTOCOL_ERROR, "more padding than payload (RFC 9113 6.1)")
    self.padding_left = padding
    self.data_left = self.length - 1 - padding
    self.state = AT_DATA if self.data_left else AT_PADDING
    return READ_DATA_HEAD


cdef int take_data(FrameReader* self, const uint8_t** cursor, Py_ssize_t available) noexcept:
    if available >= <Py_ssize_t>self.data_left:
        available = self.data_left
        self.state = AT_PADDING if self.padding_left else AT_HEAD
    self.payload = cursor[0]
    self.payload_length = available
    self.data_left -= <uint32_t>available
    cursor[0] += available
    return READ_DATA


# Takes what is there of the payload; True once it is whole: in place if one read held all of it.
cdef bint take_payload(FrameReader* self, const uint8_t** cursor, Py_ssize_t available) except -1:
    cdef Py_ssize_t taken = min(available, <Py_ssize_t>self.length - self.partial.length)
    if self.partial.length == 0 and taken == <Py_ssize_t>self.length:
        self.payload = cursor[0]
        self.payload_length = taken
        cursor[0] += taken
        return True
    if taken:
        buffer_append(&self.partial, cursor[0], taken)
        cursor[0] += taken
    if self.partial.length < <Py_ssize_t>self.length:
        return False
    self.payload = self.partial.data
    self.payload_length = self.partial.length
    return True


# HEADERS or CONTINUATION is whole. True: so is the header block (or there is an error).
cdef bint take_fragment(FrameReader* self) except -1:
    cdef const uint8_t* fragment = self.payload
    cdef Py_ssize_t length = self.payload_length
    cdef Py_ssize_t padding = 0
    if self.type == FRAME_HEADERS:
        self.block_id = self.stream_id
        self.block_flags = self.flags
        self.self_dependent = False
        self.continuations = 0
        if self.flags & FLAG_PADDED:
            if length == 0:
                refuse(self, FRAME_SIZE_ERROR, "padded frame without pad length (RFC 9113 6.2)")
                return True
            padding = fragment[0]
            fragment += 1
            length -= 1
        if self.flags & FLAG_PRIORITY:
            if length < PRIORITY_LENGTH:
                refuse(self, FRAME_SIZE_ERROR, "HEADERS without room for its priority (RFC 9113 6.2)")
                return True
            self.self_dependent = load_31(fragment) == self.stream_id
            fragment += PRIORITY_LENGTH
            length -= PRIORITY_LENGTH
        if padding > length:
            refuse(self, PROTOCOL_ERROR, "more padding than payload (RFC 9113 6.2)")
            return True
        length -= padding
    self.payload = fragment
    self.payload_length = length
    if self.flags & FLAG_END_HEADERS and not self.block_open:
        self.release = self.partial.length > 0
        return True
    if length:
        buffer_append(&self.block, fragment, length)
    buffer_free(&self.partial)
    self.block_open = not self.flags & FLAG_END_HEADERS
    if self.block_open:
        return False
    self.payload = self.block.data
    self.payload_length = self.block.length
    self.release = True
    return True
