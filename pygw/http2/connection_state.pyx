# connection_state.pyx: streams and how they end, windows for receiving, output, GOAWAY. See connection_state.pxd.

from .buffer cimport buffer_free, buffer_take
from .connection_hooks cimport CLOSED_COMPLETE, CLOSED_CONNECTION, CLOSED_UNSENT
from .constants cimport (
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FRAME_SETTINGS,
    INTERNAL_ERROR,
    LARGEST_STREAM_ID,
    NO_ERROR,
    SETTINGS_ENABLE_PUSH,
    SETTINGS_HEADER_TABLE_SIZE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS,
    SETTINGS_MAX_HEADER_LIST_SIZE,
)
from .frame_reader cimport free_reader, start_reader
from .frame_writer cimport (
    append_frame,
    append_goaway,
    append_ping,
    append_setting,
    append_window_update,
    end_settings,
)
from .limits cimport fill_budgets, refund_call, refund_time
from .stream cimport (
    STREAM_DOOMED,
    STREAM_END_RECEIVED,
    STREAM_ENDED,
    STREAM_LIVE,
    STREAM_WAITING,
    free_contents,
)
from .stream_table cimport free_table, insert_stream, remove_stream

cdef enum:
    DEFAULT_TABLE_SIZE = 4096    # RFC 7541's, as §6.5.2 has it


cdef void leave(ConnectionState self) noexcept:
    cdef Stream* stream
    self.depth -= 1
    if self.depth == 0:
        while self.ended != NULL:
            stream = self.ended
            self.ended = stream.next
            self.pool.give(stream)
        if self.stream_count == 0:
            # A quarter of what an idle connection would hold. (Nobody borrows from it: it decodes in receive() only.)
            self.decoder.rest()
        if self.failed:
            free_reader(&self.reader)
            free_table(&self.table)
    Py_DECREF(self)


cdef class ConnectionState(ConnectionHooks):

    def __init__(self, ConnectionOptions options not None, StreamPool pool not None):
        options.prepare()
        self.options = options
        self.pool = pool
        self.decoder = HpackDecoder(
            options.header_table_size, options.max_header_list_size, options.max_header_fields
        )
        self.encoder = HpackEncoder(options.encoder_table_size)
        self.is_client = options.is_client
        self.credit_at_receipt = options.credit_at_receipt
        self.table.multiplier = pool.multiplier
        self.next_stream_id = 1
        self.unsent_id = <uint32_t>-1
        self.ignore_above = <uint32_t>-1
        self.block_start = -1
        self.peer_max_concurrent_streams = <uint32_t>-1
        self.peer_initial_window = DEFAULT_WINDOW
        self.peer_max_frame_size = DEFAULT_MAX_FRAME_SIZE
        self.peer_max_header_list_size = <uint32_t>-1
        self.send_window = DEFAULT_WINDOW
        self.receive_window = DEFAULT_WINDOW
        fill_budgets(&self.budgets, &options.values)
        start_reader(
            &self.reader, not options.is_client, options.values.max_header_block, options.values.max_continuations
        )

    def __dealloc__(self):
        # No hooks any more. Where the cycle collector has taken the pool away, the streams went with it.
        cdef Stream* stream
        if self.pool is not None:
            self.doom_streams(0, CLOSED_CONNECTION, 0)
            while self.doomed != NULL:
                stream = self.doomed
                self.doomed = stream.next
                self.pool.give(stream)
        free_table(&self.table)
        free_reader(&self.reader)
        buffer_free(&self.out)

    # ===== life =====

    cdef int lost(self) except -1:
        enter(self)
        try:
            self.failed = True
            self.doom_all(self.error_code)
            self.close_doomed()
        finally:
            leave(self)
        return 0

    cdef int drop_unsent(self) except -1:
        enter(self)
        try:
            self.doom_streams(self.unsent_id - 1, CLOSED_UNSENT, 0)
            self.close_doomed()
            self.settle()
        finally:
            leave(self)
        return 0

    cdef bytes take_output(self):
        if self.block_start >= 0 and not self.failed:
            # What encoded it has raised in the middle. The peer's HPACK table is behind ours now (§4.3).
            self.fail(INTERNAL_ERROR, "a header block was not finished")
        if self.write_blocked:
            self.blocked_output += self.out.length
        self.output_announced = False
        return buffer_take(&self.out)

    cdef int announce_goaway(self) except -1:
        if self.failed:
            return 0
        enter(self)
        try:
            self.write_settings()
            append_goaway(&self.out, LARGEST_STREAM_ID, NO_ERROR, NULL)
            self.goaway_sent = True
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int final_goaway(self, uint32_t error_code=0) except -1:
        if self.failed:
            return 0
        enter(self)
        try:
            self.write_settings()
            append_goaway(&self.out, self.last_peer_stream_id, error_code, NULL)
            self.goaway_sent = True
            if not self.is_client:
                self.ignore_above = self.last_peer_stream_id
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int ping(self, uint64_t payload) except -1:
        if self.failed:
            return 0
        enter(self)
        try:
            self.write_settings()
            append_ping(&self.out, payload, False)
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int fail(self, uint32_t error_code, const char* reason) except -1:
        if self.failed:
            return 0
        enter(self)
        try:
            if self.block_start >= 0:
                self.out.length = self.block_start
                self.block_start = -1
            self.write_settings()
            append_goaway(&self.out, self.last_peer_stream_id, error_code, reason)
            self.goaway_sent = True
            self.end_all(error_code, reason)
        finally:
            leave(self)
        return 0

    cdef void replenish(self, uint32_t seconds=1) noexcept:
        self.epoch = (self.epoch + 1) & 0xffff
        refund_time(&self.budgets, &self.options.values, seconds)

    cdef int end_all(self, uint32_t error_code, const char* reason) except -1:
        self.failed = True
        self.error = reason
        self.error_code = error_code
        self.doom_all(error_code)
        try:
            self.close_doomed()
        finally:
            self.on_failed()
            self.settle()
        return 0

    cdef int write_settings(self) except -1:
        cdef Py_ssize_t start = self.out.length
        cdef ConnectionOptions options = self.options
        if self.settings_sent:
            return 0
        self.settings_sent = True
        append_frame(&self.out, 0, FRAME_SETTINGS, 0, 0)
        if self.is_client:
            append_setting(&self.out, SETTINGS_ENABLE_PUSH, 0)
        else:
            append_setting(&self.out, SETTINGS_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams)
        if options.header_table_size != DEFAULT_TABLE_SIZE:
            append_setting(&self.out, SETTINGS_HEADER_TABLE_SIZE, options.header_table_size)
        if options.stream_window != DEFAULT_WINDOW:
            append_setting(&self.out, SETTINGS_INITIAL_WINDOW_SIZE, options.stream_window)
        append_setting(&self.out, SETTINGS_MAX_HEADER_LIST_SIZE, options.max_header_list_size)
        end_settings(&self.out, start)
        if options.connection_window > DEFAULT_WINDOW:
            append_window_update(&self.out, 0, options.connection_window - DEFAULT_WINDOW)
            self.receive_window = options.connection_window
        return 0

    # What is due at the end of an outermost call. Done there and not at once, so that fewer hooks run in the middle
    # of things, and one on_output() announces whatever a read has caused.
    cdef int settle(self) except -1:
        if self.depth > 1:
            return 0
        while True:
            if self.out.length > 0 and not self.output_announced:
                self.output_announced = True
                self.on_output()
            elif self.write_blocked and not self.failed and (
                self.blocked_output + self.out.length > self.options.values.max_blocked_output
            ):
                self.fail(ENHANCE_YOUR_CALM, "too much output that the peer does not read")
            elif self.stream_available and not self.failed:
                self.stream_available = False
                self.on_stream_available()
            else:
                return 0

    # ===== windows for receiving =====

    cdef int credit(self, Stream* stream, Py_ssize_t octets) except -1:
        cdef uint32_t drained
        if self.failed or stream.state != STREAM_LIVE or octets <= 0:
            return 0
        drained = <uint32_t>min(octets, <Py_ssize_t>stream.undrained)
        enter(self)
        try:
            stream.undrained -= drained
            if not stream.flags & STREAM_END_RECEIVED:
                self.return_stream_window(stream, drained + grow_window(self, stream, drained))
            if not self.credit_at_receipt:
                self.return_window(drained)
            self.settle()
        finally:
            leave(self)
        return 0

    # Half a window is held back, so that a WINDOW_UPDATE is worth its frame.
    cdef int return_stream_window(self, Stream* stream, int64_t octets) except -1:
        stream.uncredited += <uint32_t>octets
        if stream.uncredited > 0 and stream.uncredited >= stream.receive_target // 2:
            append_window_update(&self.out, stream.id, stream.uncredited)
            stream.receive_window += stream.uncredited
            stream.uncredited = 0
        return 0

    cdef int return_window(self, int64_t octets) except -1:
        self.uncredited += <uint32_t>octets
        if self.uncredited > 0 and self.uncredited >= self.options.connection_window // 2 and not self.failed:
            append_window_update(&self.out, 0, self.uncredited)
            self.receive_window += self.uncredited
            self.uncredited = 0
        return 0

    # ===== streams =====

    cdef Stream* add_stream(self, uint32_t stream_id) except NULL:
        cdef Stream* stream = self.pool.take()
        stream.id = stream_id
        try:
            insert_stream(&self.table, stream)
        except MemoryError:
            self.pool.give(stream)
            raise
        self.stream_count += 1
        stream.send_window = self.peer_initial_window
        stream.receive_target = self.options.stream_window
        # Until the peer has acknowledged our SETTINGS it may go by the default.
        stream.receive_window = stream.receive_target
        if not self.settings_acknowledged and stream.receive_window < DEFAULT_WINDOW:
            stream.receive_window = DEFAULT_WINDOW
        stream.content_left = -1
        stream.epoch = self.epoch
        stream.growth_epoch = self.epoch
        return stream

    cdef void link_waiting(self, Stream* stream) noexcept:
        if stream.flags & STREAM_WAITING:
            return
        stream.flags |= STREAM_WAITING
        stream.waiting_next = NULL
        stream.waiting_previous = self.waiting_last
        if self.waiting_last != NULL:
            self.waiting_last.waiting_next = stream
        else:
            self.waiting_first = stream
        self.waiting_last = stream

    cdef void unlink_waiting(self, Stream* stream) noexcept:
        if not stream.flags & STREAM_WAITING:
            return
        stream.flags &= ~<uint8_t>STREAM_WAITING
        if stream.waiting_next != NULL:
            stream.waiting_next.waiting_previous = stream.waiting_previous
        else:
            self.waiting_last = stream.waiting_previous
        if stream.waiting_previous != NULL:
            stream.waiting_previous.waiting_next = stream.waiting_next
        else:
            self.waiting_first = stream.waiting_next

    # For a stream that is out of the table: what it holds and what it owes. What its owner will not drain any more
    # counts as drained for the connection's window.
    cdef void release_stream(self, Stream* stream) noexcept:
        self.unlink_waiting(stream)
        free_contents(stream)
        self.window_growth -= <int64_t>stream.receive_target - self.options.stream_window
        if not self.credit_at_receipt:
            self.uncredited += stream.undrained
        stream.undrained = 0
        self.stream_count -= 1
        if self.is_client or self.stream_count == 0:
            self.stream_available = True

    # Gives `stream` to leave(). Its memory stays until then.
    cdef void bury(self, Stream* stream) noexcept:
        stream.state = STREAM_ENDED
        stream.next = self.ended
        self.ended = stream

    cdef int close_stream(self, Stream* stream, CloseCause cause, uint32_t code) except -1:
        remove_stream(&self.table, stream)
        self.release_stream(stream)
        self.bury(stream)
        if cause == CLOSED_COMPLETE:
            refund_call(&self.budgets, &self.options.values)
        self.return_window(0)
        self.on_closed(stream, cause, code)
        return 0

    # Takes the stream that `place` of the table points at out of it, so that hooks cannot disturb a walk over all;
    # close_doomed() tells its owner.
    cdef void doom(self, Stream** place, CloseCause cause, uint32_t code) noexcept:
        cdef Stream* stream = place[0]
        place[0] = stream.next
        self.table.count -= 1
        self.release_stream(stream)
        stream.state = STREAM_DOOMED
        stream.close_cause = <uint8_t>cause
        stream.reset_code = code
        stream.next = self.doomed
        self.doomed = stream

    # All streams above an id.
    cdef void doom_streams(self, uint32_t above, CloseCause cause, uint32_t code) noexcept:
        cdef Stream** place
        cdef uint32_t i
        if self.table.count == 0:
            return
        for i in range(<uint32_t>1 << self.table.bits):
            place = &self.table.buckets[i]
            while place[0] != NULL:
                if place[0].id <= above:
                    place = &place[0].next
                else:
                    self.doom(place, cause, code)

    cdef void doom_all(self, uint32_t code) noexcept:
        self.doom_streams(self.unsent_id - 1, CLOSED_UNSENT, code)
        self.doom_streams(0, CLOSED_CONNECTION, code)

    cdef int close_doomed(self) except -1:
        cdef Stream* stream
        cdef uint8_t cause
        cdef object raised = None
        while self.doomed != NULL:
            stream = self.doomed
            self.doomed = stream.next
            cause = stream.close_cause
            self.bury(stream)
            if cause != ENDED_BY_OWNER:
                try:
                    self.on_closed(stream, <CloseCause>cause, stream.reset_code)
                except Exception as error:
                    # All the others must hear of their end: their owners hold pointers to what goes now.
                    raised = error
        if raised is not None:
            raise raised
        return 0


# By how much the window of a stream grows now that its owner has drained so many octets. It grows where it, and not
# the owner, seems to be what limits the peer: a whole window was drained within one epoch (about a second), and
# never did DATA come while earlier DATA of the stream was undrained (which sets `growth` back). So a slow or stalled
# reader keeps it small.
cdef uint32_t grow_window(ConnectionState self, Stream* stream, uint32_t drained) noexcept:
    cdef uint32_t old = stream.receive_target
    cdef uint32_t limit = self.options.stream_window_max
    cdef uint32_t more
    if stream.growth_epoch != self.epoch:
        stream.growth_epoch = self.epoch
        stream.growth = 0
    stream.growth += drained
    if stream.growth < old or old >= limit:
        return 0
    stream.growth = 0
    more = min(old, limit - old)
    if self.window_growth + more > <int64_t>self.options.window_growth_total:
        return 0
    self.window_growth += more
    stream.receive_target = old + more
    return more
