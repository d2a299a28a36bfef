# connection_sender.pyx: header blocks, DATA, trailers, resets on their way out. See connection_sender.pxd.

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memmove

from .buffer cimport BUFFER_LONG_STEP, buffer_append, buffer_free, buffer_reserve
from .connection_hooks cimport CLOSED_COMPLETE, CLOSED_STALLED
from .connection_state cimport ENDED_BY_OWNER, enter, leave
from .constants cimport (
    CANCEL,
    FLAG_END_HEADERS,
    FLAG_END_STREAM,
    FRAME_CONTINUATION,
    FRAME_HEAD_LENGTH,
    FRAME_HEADERS,
    LARGEST_STREAM_ID,
)
from .frame_writer cimport append_data, append_rst_stream, store_frame_head
from .limits cimport ANSWERS_RESET, REFUND_DATA, REFUND_STREAM, expect_answers
from .stream cimport (
    STREAM_DOOMED,
    STREAM_END_QUEUED,
    STREAM_END_RECEIVED,
    STREAM_END_SENT,
    STREAM_HEAD_SENT,
    STREAM_LIVE,
    STREAM_RESET_QUEUED,
    STREAM_TRAILERS_QUEUED,
    FieldBlock,
    copy_fields,
    free_fields,
    pending_of,
)
from .stream_table cimport remember_reset, remove_stream

cdef enum:
    SENT_WHOLE = STREAM_END_SENT | STREAM_END_QUEUED | STREAM_TRAILERS_QUEUED | STREAM_RESET_QUEUED
    ENDED_BOTH = STREAM_END_SENT | STREAM_END_RECEIVED


cdef class ConnectionSender(ConnectionState):

    cdef bint can_open(self) noexcept:
        return (
            self.is_client
            and not self.failed
            and not self.goaway_received
            and self.next_stream_id <= LARGEST_STREAM_ID
            and <uint64_t>self.stream_count < self.peer_max_concurrent_streams
        )

    cdef Stream* open_stream(self, void* owner) except? NULL:
        cdef Stream* stream
        if not self.can_open():
            return NULL
        stream = self.add_stream(self.next_stream_id)
        self.next_stream_id += 2
        stream.owner = owner
        return stream

    # ===== header blocks =====

    # HPACK keeps both ends in step: a block that was encoded must be sent. So what cannot be sent is refused before.
    cdef int check_sendable(self, Stream* stream) except -1:
        if self.failed:
            return 0
        if stream.state != STREAM_LIVE:
            raise RuntimeError("sending on a stream that has ended")
        if stream.flags & SENT_WHOLE:
            raise RuntimeError(f"sending behind the end of stream {stream.id}")
        return 0

    cdef int begin_headers(self, Stream* stream) except -1:
        self.check_sendable(stream)
        return self.open_block()

    cdef int open_block(self) except -1:
        if self.block_start >= 0 and not self.failed:
            raise RuntimeError("header block within another one, or behind one that raised")
        buffer_reserve(&self.out, FRAME_HEAD_LENGTH)
        self.block_start = self.out.length
        self.out.length += FRAME_HEAD_LENGTH
        return self.encoder.start_block(&self.out)

    cdef int end_headers(self, Stream* stream, bint end_stream) except -1:
        if self.failed or stream.state != STREAM_LIVE:
            if self.block_start >= 0:
                self.out.length = self.block_start
                self.block_start = -1
            return 0
        enter(self)
        try:
            self.frame_block(stream, end_stream)
            if self.is_client:
                expect_answers(&self.budgets, REFUND_STREAM)
            stream.flags |= STREAM_HEAD_SENT | (STREAM_END_SENT if end_stream else 0)
            if stream.flags & ENDED_BOTH == ENDED_BOTH:
                self.close_stream(stream, CLOSED_COMPLETE, 0)
            self.settle()
        finally:
            leave(self)
        return 0

    # Makes HEADERS, and CONTINUATIONs where it is too long for one frame (§6.10), of what stands behind block_start.
    cdef int frame_block(self, Stream* stream, bint end_stream) except -1:
        cdef uint8_t flags = FLAG_END_STREAM if end_stream else 0
        cdef Py_ssize_t limit = self.peer_max_frame_size
        cdef Py_ssize_t length = self.out.length - self.block_start - FRAME_HEAD_LENGTH
        cdef Py_ssize_t more = (length - 1) // limit if length > limit else 0
        cdef Py_ssize_t i, part
        cdef uint8_t* fragments
        if more:
            buffer_reserve(&self.out, more * FRAME_HEAD_LENGTH)
            self.out.length += more * FRAME_HEAD_LENGTH
            fragments = self.out.data + self.block_start + FRAME_HEAD_LENGTH
            # Moves the fragments apart, the last one first, each by the heads of the frames up to its own.
            for i in range(more, 0, -1):
                part = length - i * limit if i == more else limit
                memmove(fragments + i * (limit + FRAME_HEAD_LENGTH), fragments + i * limit, <size_t>part)
                store_frame_head(
                    fragments + i * (limit + FRAME_HEAD_LENGTH) - FRAME_HEAD_LENGTH, <uint32_t>part,
                    FRAME_CONTINUATION, FLAG_END_HEADERS if i == more else 0, stream.id,
                )
            length = limit
        else:
            flags |= FLAG_END_HEADERS
        store_frame_head(self.out.data + self.block_start, <uint32_t>length, FRAME_HEADERS, flags, stream.id)
        self.block_start = -1
        return 0

    cdef int send_trailers(self, Stream* stream, const Field* fields, Py_ssize_t count) except -1:
        if self.failed or stream.state != STREAM_LIVE:
            return 0
        self.check_sendable(stream)
        if pending_of(stream) > 0:
            stream.trailers = copy_fields(fields, count)
            stream.flags |= STREAM_TRAILERS_QUEUED
            return 0
        enter(self)
        try:
            self.write_trailers(stream, fields, count)
            if stream.flags & ENDED_BOTH == ENDED_BOTH:
                self.close_stream(stream, CLOSED_COMPLETE, 0)
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int write_trailers(self, Stream* stream, const Field* fields, Py_ssize_t count) except -1:
        cdef Py_ssize_t i
        self.open_block()
        for i in range(count):
            self.encoder.encode_field(&self.out, fields + i)
        self.frame_block(stream, True)
        stream.flags |= STREAM_HEAD_SENT | STREAM_END_SENT
        return 0

    # ===== DATA =====

    cdef Py_ssize_t send_data(
        self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream
    ) except -1:
        cdef Py_ssize_t sent = 0
        if self.failed or stream.state != STREAM_LIVE:
            return length
        self.check_sendable(stream)
        enter(self)
        try:
            if pending_of(stream) == 0:
                sent = self.write_data(stream, data, length, end_stream)
            if sent < length:
                self.queue_data(stream, data + sent, length - sent)
            if end_stream and not stream.flags & STREAM_END_SENT:
                stream.flags |= STREAM_END_QUEUED
            elif stream.flags & ENDED_BOTH == ENDED_BOTH:
                self.close_stream(stream, CLOSED_COMPLETE, 0)
            if self.out.length >= OUTPUT_FULL and not self.write_blocked:
                self.on_output_full()
            self.settle()
        finally:
            leave(self)
        return sent

    # Writes what may go now; END_STREAM on the last frame if that is all.
    cdef Py_ssize_t write_data(
        self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream
    ) except -1:
        cdef int64_t allowed = min(stream.send_window, self.send_window)
        cdef Py_ssize_t written = 0
        cdef Py_ssize_t part
        cdef bint last
        if length == 0:
            # An empty frame needs no window (§6.9).
            if end_stream:
                append_data(&self.out, stream.id, NULL, 0, True)
                stream.flags |= STREAM_END_SENT
            return 0
        if self.write_blocked or self.waiting_first != NULL:
            return 0
        while written < length and allowed > 0:
            part = min(<int64_t>min(length - written, <Py_ssize_t>DATA_CHUNK), allowed)
            last = end_stream and written + part == length
            self.make_room(part)
            append_data(&self.out, stream.id, data + written, <uint32_t>part, last)
            written += part
            allowed -= part
            stream.send_window -= part
            self.send_window -= part
            self.data_sent += part
            expect_answers(&self.budgets, REFUND_DATA)
            if last:
                stream.flags |= STREAM_END_SENT
        return written

    # Bulk goes to a block that is used again and again: no growing in steps, and it stays in the CPU's cache.
    cdef int make_room(self, Py_ssize_t length) except -1:
        length += self.out.length + FRAME_HEAD_LENGTH
        if length > self.out.capacity and length > BUFFER_LONG_STEP:
            self.pool.widen(&self.out)
        return 0

    cdef int queue_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t left = pending_of(stream)
        # What was sent goes when it is the larger part, so each octet is moved at most once on average.
        if stream.pending_start > left:
            memmove(stream.pending.data, stream.pending.data + stream.pending_start, <size_t>left)
            stream.pending.length = left
            stream.pending_start = 0
        buffer_append(&stream.pending, data, length)
        if stream.send_window > 0:
            self.link_waiting(stream)
        if not self.is_holding:
            self.is_holding = True
            self.on_holding()
        return 0

    cdef Py_ssize_t pending_octets(self, Stream* stream) noexcept:
        return pending_of(stream)

    cdef int resume(self) except -1:
        if self.failed or self.write_blocked:
            return 0
        self.blocked_output = 0
        enter(self)
        try:
            self.pump()
            self.settle()
        finally:
            leave(self)
        return 0

    # One turn after the other until nothing waits or nothing may go. Each sends an octet at least.
    cdef int pump(self) except -1:
        cdef Stream* stream
        while self.waiting_first != NULL and self.send_window > 0 and not self.write_blocked and not self.failed:
            stream = self.waiting_first
            self.unlink_waiting(stream)
            # SETTINGS may have shrunk the window since (§6.9.2): then WINDOW_UPDATE links the stream again.
            if stream.send_window > 0:
                self.send_pending(stream)
            if self.out.length >= OUTPUT_FULL and not self.write_blocked:
                self.on_output_full()
        return 0

    cdef int send_pending(self, Stream* stream) except -1:
        cdef Py_ssize_t left = pending_of(stream)
        cdef Py_ssize_t part = min(
            <int64_t>min(left, <Py_ssize_t>DATA_CHUNK), min(stream.send_window, self.send_window)
        )
        cdef bint end_stream = part == left and stream.flags & STREAM_END_QUEUED
        self.make_room(part)
        append_data(
            &self.out, stream.id, stream.pending.data + stream.pending_start, <uint32_t>part, end_stream
        )
        stream.send_window -= part
        self.send_window -= part
        self.data_sent += part
        expect_answers(&self.budgets, REFUND_DATA)
        stream.stalls = 0
        stream.pending_start += part
        if end_stream:
            stream.flags |= STREAM_END_SENT
        if part == left:
            buffer_free(&stream.pending)
            stream.pending_start = 0
        elif stream.send_window > 0:
            self.link_waiting(stream)
        if not stream.flags & STREAM_RESET_QUEUED:
            self.on_drained(stream, part)
        if part == left:
            self.send_queued_end(stream)
        return 0

    cdef int send_queued_end(self, Stream* stream) except -1:
        cdef FieldBlock* trailers = stream.trailers
        if stream.state != STREAM_LIVE or pending_of(stream) > 0:
            return 0
        if trailers != NULL:
            stream.trailers = NULL
            stream.flags &= ~<uint8_t>STREAM_TRAILERS_QUEUED
            try:
                self.write_trailers(stream, trailers.fields, trailers.count)
            finally:
                free_fields(trailers)
        if stream.flags & ENDED_BOTH == ENDED_BOTH:
            self.close_stream(stream, CLOSED_COMPLETE, 0)
        elif stream.flags & STREAM_RESET_QUEUED:
            self.write_reset(stream, stream.reset_code)
            self.close_stream(stream, CLOSED_COMPLETE, stream.reset_code)
        return 0

    # ===== streams that stall =====

    cdef int end_stalled(self, uint8_t looks) except -1:
        cdef Stream** place
        cdef uint32_t i
        self.is_holding = False
        if self.failed or self.table.count == 0:
            return 0
        enter(self)
        try:
            for i in range(<uint32_t>1 << self.table.bits):
                place = &self.table.buckets[i]
                while place[0] != NULL:
                    if self.has_stalled(place[0], looks):
                        self.write_reset(place[0], CANCEL)
                        self.doom(place, CLOSED_STALLED, CANCEL)
                    else:
                        place = &place[0].next
            self.close_doomed()
            self.settle()
        finally:
            leave(self)
        return 0

    cdef bint has_stalled(self, Stream* stream, uint8_t looks) noexcept:
        if pending_of(stream) == 0:
            return False
        self.is_holding = True
        if stream.send_window > 0 and self.send_window > 0:
            # It waits for the transport: no window is missing.
            stream.stalls = 0
            return False
        stream.stalls += 1
        return stream.stalls >= looks

    # ===== resets =====

    cdef int reset_stream(self, Stream* stream, uint32_t error_code) except -1:
        if stream.state == STREAM_DOOMED:
            stream.close_cause = ENDED_BY_OWNER
        if stream.state != STREAM_LIVE:
            return 0
        enter(self)
        try:
            self.write_reset(stream, error_code)
            remove_stream(&self.table, stream)
            self.release_stream(stream)
            self.bury(stream)
            self.return_window(0)
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int finish_with_reset(self, Stream* stream, uint32_t error_code) except -1:
        # (A stream may have gone back to the pool with its connection: then `failed` tells.)
        if self.failed or stream.state != STREAM_LIVE or stream.flags & STREAM_RESET_QUEUED:
            return 0
        enter(self)
        try:
            stream.flags |= STREAM_RESET_QUEUED
            stream.reset_code = error_code
            # Nobody drains it from now on.
            if not self.credit_at_receipt:
                self.return_window(stream.undrained)
            stream.undrained = 0
            self.send_queued_end(stream)
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int write_reset(self, Stream* stream, uint32_t error_code) except -1:
        if self.is_client and not stream.flags & STREAM_HEAD_SENT:
            # The peer never heard of it: idle streams are not reset (§6.4), and the id is as good as new.
            if stream.id + 2 == self.next_stream_id:
                self.next_stream_id = stream.id
            return 0
        if self.is_client:
            expect_answers(&self.budgets, ANSWERS_RESET)
        if not stream.flags & STREAM_END_RECEIVED:
            remember_reset(&self.resets, stream.id, stream.receive_window)
        return append_rst_stream(&self.out, stream.id, error_code)
