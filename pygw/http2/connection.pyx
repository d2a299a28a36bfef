# connection.pyx: what frames that come do to a connection and its streams. See connection.pxd.

from libc.string cimport memcpy

from .buffer cimport buffer_append
from .connection_state cimport enter, leave
from .constants cimport (
    CANCEL,
    COMPRESSION_ERROR,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FLAG_ACK,
    FLAG_END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_GOAWAY,
    FRAME_PING,
    FRAME_PRIORITY,
    FRAME_RST_STREAM,
    FRAME_SETTINGS,
    FRAME_SIZE_ERROR,
    DEFAULT_MAX_FRAME_SIZE,
    LARGEST_MAX_FRAME_SIZE,
    LARGEST_WINDOW,
    PREFACE_LENGTH,
    PRIORITY_LENGTH,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTING_LENGTH,
    SETTINGS_ENABLE_PUSH,
    SETTINGS_HEADER_TABLE_SIZE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS,
    SETTINGS_MAX_FRAME_SIZE,
    SETTINGS_MAX_HEADER_LIST_SIZE,
    STREAM_CLOSED,
    preface,
)
from .frame_reader cimport (
    READ_BAD_PREFACE,
    READ_BLOCK,
    READ_DATA,
    READ_DATA_HEAD,
    READ_FRAME,
    READ_MORE,
    READ_PREFACE,
    READ_UNKNOWN,
    FrameReader,
    read_event,
)
from .frame_writer cimport append_ping, append_rst_stream, append_settings_ack
from .hpack_decoder cimport DECODE_ABUSE, DECODED_TOO_LARGE, HpackDecoder
from .limits cimport refund_data, refund_stream, spend, spend_control
from .message cimport begin_request, check_response, check_run_request, check_trailers
from .stream cimport (
    STREAM_END_RECEIVED,
    STREAM_END_SENT,
    STREAM_HEAD_RECEIVED,
    STREAM_HEAD_SENT,
    STREAM_LIVE,
    STREAM_RESET_QUEUED,
    pending_of,
)
from .stream_table cimport find_stream, may_be_reset, remember_reset
from .wire cimport load_16, load_31, load_32, load_64

cdef enum:
    BAD_PREFACE_SHOWN = 256      # octets of something else than a preface that on_bad_preface() gets to see


cdef class Connection(ConnectionSender):

    cdef int start(self) except -1:
        if self.is_client:
            enter(self)
            try:
                buffer_append(&self.out, preface(), PREFACE_LENGTH)
                self.write_settings()
                self.settle()
            finally:
                leave(self)
        return 0

    cdef int receive(self, const uint8_t* data, Py_ssize_t length) except -1:
        if self.failed:
            return 0
        enter(self)
        try:
            self.dispatch(data, length)
            self.pump()
            self.settle()
        finally:
            leave(self)
        return 0

    cdef int dispatch(self, const uint8_t* data, Py_ssize_t length) except -1:
        cdef FrameReader* reader = &self.reader
        cdef const uint8_t* cursor = data
        cdef const uint8_t* end = data + length
        # Of the DATA frame that has begun here. It may end meanwhile, but its memory stays until leave().
        cdef Stream* stream = NULL
        cdef int event
        while not self.failed:
            event = read_event(reader, &cursor, end)
            if event == READ_DATA:
                if not self.data_dropped:
                    if stream == NULL or stream.state != STREAM_LIVE:
                        stream = self.find(reader.stream_id)
                    if stream != NULL:
                        self.deliver_data(
                            stream, reader.payload, reader.payload_length,
                            reader.data_left == 0 and reader.flags & FLAG_END_STREAM,
                        )
                    elif not self.credit_at_receipt:
                        # It ended in the middle of the frame.
                        self.return_window(reader.payload_length)
            elif event == READ_DATA_HEAD:
                stream = self.find(reader.stream_id)
                self.begin_data(stream)
            elif event == READ_MORE:
                return 0
            elif event == READ_BLOCK:
                self.take_block()
                self.decoder.release()
            elif event == READ_FRAME:
                self.take_frame()
            elif event == READ_UNKNOWN:
                self.charge()
            elif event == READ_PREFACE:
                self.write_settings()
            elif event == READ_BAD_PREFACE:
                self.refuse_preface(cursor, end - cursor)
            else:
                self.fail(reader.error_code, reader.error)
        return 0

    cdef int take_frame(self) except -1:
        cdef FrameReader* reader = &self.reader
        if reader.type == FRAME_SETTINGS:
            if reader.flags & FLAG_ACK:
                return self.take_settings_ack()
            return self.take_settings()
        elif reader.type == FRAME_PING:
            self.charge()
            if self.failed:
                return 0
            if reader.flags & FLAG_ACK:
                return self.on_ping_ack(load_64(reader.payload))
            return append_ping(&self.out, load_64(reader.payload), True)
        elif reader.type == FRAME_RST_STREAM:
            return self.take_rst_stream()
        elif reader.type == FRAME_GOAWAY:
            return self.take_goaway()
        elif reader.type == FRAME_PRIORITY:
            return self.take_priority()
        return self.take_window_update()

    # Something else than HTTP/2: most often HTTP/1.1. It may answer in kind, so there is no GOAWAY.
    cdef int refuse_preface(self, const uint8_t* rest, Py_ssize_t length) except -1:
        cdef uint8_t[BAD_PREFACE_SHOWN] octets
        cdef Py_ssize_t known = self.reader.payload_length
        cdef Py_ssize_t shown = min(length, BAD_PREFACE_SHOWN - known)
        memcpy(octets, self.reader.payload, <size_t>known)
        memcpy(octets + known, rest, <size_t>shown)
        self.on_bad_preface(octets, known + shown)
        return self.end_all(PROTOCOL_ERROR, "no HTTP/2 preface (RFC 9113 3.4)")

    cdef int charge(self) except -1:
        if not spend_control(&self.budgets):
            self.fail(ENHANCE_YOUR_CALM, "too many frames that relay nothing")
        return 0

    # ===== stream errors (§5.4.2) =====

    cdef int fail_stream(self, Stream* stream, uint32_t error_code, const char* reason) except -1:
        self.stream_error = reason
        self.write_reset(stream, error_code)
        self.close_stream(stream, CLOSED_BY_ERROR, error_code)
        return self.charge_provoked()

    # For a request that was refused before anybody heard of it.
    cdef int reset_unannounced(
        self, uint32_t stream_id, bint end_stream, uint32_t error_code, const char* reason
    ) except -1:
        self.stream_error = reason
        if not end_stream:
            remember_reset(&self.resets, stream_id, max(self.options.stream_window, <uint32_t>DEFAULT_WINDOW))
        append_rst_stream(&self.out, stream_id, error_code)
        return 0

    cdef int charge_provoked(self) except -1:
        if not self.is_client and not spend(&self.budgets.provoked_resets):
            self.fail(ENHANCE_YOUR_CALM, "too many stream errors")
        return 0

    # ===== frames on streams that are not open (§5.1) =====

    cdef Stream* find(self, uint32_t stream_id) noexcept:
        cdef Stream* stream = find_stream(&self.table, stream_id)
        # One that was opened here without HEADERS so far is idle for the peer.
        if stream != NULL and self.is_client and not stream.flags & STREAM_HEAD_SENT:
            return NULL
        return stream

    cdef bint is_idle(self, uint32_t stream_id) noexcept:
        if not stream_id & 1:
            # Ours to open as a server, and there is no push.
            return True
        return stream_id >= self.next_stream_id if self.is_client else stream_id > self.last_peer_stream_id

    # A frame (not one that opens a stream, not PRIORITY) for a stream that is not open. `data_octets` of
    # flow-controlled payload come with it; -1: it is of a kind that may come on any closed stream.
    cdef int take_closed(self, uint32_t stream_id, int64_t data_octets) except -1:
        if stream_id > self.ignore_above:
            return self.charge() if data_octets <= 0 else 0
        if self.is_idle(stream_id):
            return self.fail(PROTOCOL_ERROR, "frame on an idle stream (RFC 9113 5.1)")
        if data_octets < 0:
            # WINDOW_UPDATE and RST_STREAM may have crossed the frame that closed the stream.
            return self.charge()
        if not may_be_reset(&self.resets, stream_id):
            if self.skipped_first <= stream_id <= self.skipped_last:
                return self.fail(PROTOCOL_ERROR, "stream id lower than an earlier one (RFC 9113 5.1.1)")
            return self.fail(STREAM_CLOSED, "frame on a closed stream (RFC 9113 5.1)")
        if data_octets == 0:
            return self.charge()
        self.resets.octets_expected -= data_octets
        if self.resets.octets_expected < 0:
            return self.fail(STREAM_CLOSED, "DATA on reset streams beyond their windows (RFC 9113 5.1)")
        return 0

    # ===== DATA (§6.1) =====

    # The head of a DATA frame: all that can be judged is judged before its first octet is delivered.
    cdef int begin_data(self, Stream* stream) except -1:
        cdef FrameReader* reader = &self.reader
        cdef uint32_t length = reader.length
        cdef uint32_t padding = length - reader.data_left
        cdef bint end_stream = reader.flags & FLAG_END_STREAM
        cdef uint32_t error_code = PROTOCOL_ERROR
        cdef const char* reason
        if <int64_t>length > self.receive_window:
            return self.fail(FLOW_CONTROL_ERROR, "DATA over the connection's window (RFC 9113 6.9.1)")
        self.receive_window -= length
        self.data_dropped = True
        if stream == NULL:
            self.return_window(length)
            return self.take_closed(reader.stream_id, length)
        reason = self.check_data(stream, &error_code)
        if reason != NULL:
            self.return_window(length)
            if error_code == FLOW_CONTROL_ERROR:
                # Whoever does not go by the stream's window has sent more before it hears of the reset: as much as the
                # connection's lets it. That is discarded (§5.1) and counts there (§6.9), as for any other reset.
                self.resets.octets_expected += self.options.connection_window
            return self.fail_stream(stream, error_code, reason)
        stream.receive_window -= length
        if reader.data_left > 0:
            refund_data(&self.budgets, &self.options.values)
        elif not end_stream:
            # Padding alone is as empty.
            self.charge()
            if self.failed:
                return 0
        if stream.flags & STREAM_RESET_QUEUED:
            # Nobody wants it any more; its window stays shut.
            self.return_window(length)
            return self.end_received(stream) if end_stream else 0
        self.data_dropped = False
        self.return_window(length if self.credit_at_receipt else padding)
        if not end_stream:
            self.return_stream_window(stream, padding)
        elif reader.data_left == 0:
            return self.deliver_data(stream, <const uint8_t*>"", 0, True)
        return 0

    cdef const char* check_data(self, Stream* stream, uint32_t* error_code) noexcept:
        cdef FrameReader* reader = &self.reader
        if stream.flags & STREAM_END_RECEIVED:
            error_code[0] = STREAM_CLOSED
            return "DATA behind END_STREAM (RFC 9113 5.1)"
        if <int64_t>reader.length > stream.receive_window:
            error_code[0] = FLOW_CONTROL_ERROR
            return "DATA over the stream's window (RFC 9113 6.9.1)"
        if not stream.flags & STREAM_HEAD_RECEIVED:
            return "DATA before the response's header section (RFC 9113 8.1)"
        if stream.content_left >= 0:
            # §8.1.1: told as early as it can be known, before END_STREAM makes a lie look whole.
            if <int64_t>reader.data_left > stream.content_left or (
                reader.flags & FLAG_END_STREAM and <int64_t>reader.data_left != stream.content_left
            ):
                return "content-length differs from DATA (RFC 9113 8.1.1)"
            stream.content_left -= reader.data_left
        return NULL

    cdef int deliver_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
        if stream.flags & STREAM_RESET_QUEUED:
            # Since the frame began.
            if not self.credit_at_receipt:
                self.return_window(length)
            return self.end_received(stream) if end_stream else 0
        if stream.undrained > 0:
            # The owner lags behind: see grow_window().
            stream.growth = 0
        stream.undrained += <uint32_t>length
        self.data_received += length
        if not end_stream:
            return self.on_data(stream, data, length, False)
        stream.flags |= STREAM_END_RECEIVED
        self.on_data(stream, data, length, True)
        return self.end_received(stream)

    # END_STREAM came, and who had to know does.
    cdef int end_received(self, Stream* stream) except -1:
        if stream.state != STREAM_LIVE:
            return 0
        stream.flags |= STREAM_END_RECEIVED
        if stream.flags & STREAM_END_SENT:
            return self.close_stream(stream, CLOSED_COMPLETE, 0)
        return 0

    # ===== header blocks (§6.2, §8) =====

    cdef int take_block(self) except -1:
        cdef FrameReader* reader = &self.reader
        cdef uint32_t stream_id = reader.block_id
        cdef bint end_stream = reader.block_flags & FLAG_END_STREAM
        # Whatever becomes of the stream: HPACK keeps both ends in step (§4.3).
        cdef int decoded = self.decoder.decode(reader.payload, reader.payload_length)
        cdef Stream* stream
        if decoded < 0:
            return self.fail(
                ENHANCE_YOUR_CALM if decoded == DECODE_ABUSE else COMPRESSION_ERROR, self.decoder.error
            )
        stream = self.find(stream_id)
        if stream == NULL:
            if stream_id & 1 and not self.is_client and stream_id > self.last_peer_stream_id:
                return self.take_new_request(stream_id, end_stream, decoded == DECODED_TOO_LARGE)
            return self.take_closed(stream_id, 0)
        if stream.flags & STREAM_END_RECEIVED:
            return self.fail_stream(stream, STREAM_CLOSED, "HEADERS behind END_STREAM (RFC 9113 5.1)")
        if reader.self_dependent:
            return self.fail_stream(stream, PROTOCOL_ERROR, "stream that depends on itself (RFC 7540 5.3.1)")
        if decoded == DECODED_TOO_LARGE:
            return self.refuse_large_block(stream)
        if stream.flags & STREAM_HEAD_RECEIVED:
            return self.take_trailers(stream, end_stream)
        return self.take_response(stream, end_stream)

    # A response or trailers over our limit. (An owner that hears of a request can answer it; here it cannot.)
    cdef int refuse_large_block(self, Stream* stream) except -1:
        if not self.is_client:
            return self.fail_stream(stream, ENHANCE_YOUR_CALM, "trailers over the limits of a header list")
        self.write_reset(stream, CANCEL)
        return self.close_stream(stream, CLOSED_TOO_LARGE, CANCEL)

    cdef int take_new_request(self, uint32_t stream_id, bint end_stream, bint too_large) except -1:
        cdef HpackDecoder decoder = self.decoder
        cdef RequestHead head
        cdef Stream* stream
        cdef const char* reason = NULL
        if stream_id > self.ignore_above:
            # After GOAWAY (§6.8); the client knows and tries elsewhere.
            return self.charge()
        if stream_id > self.last_peer_stream_id + 2:
            self.skipped_first = (self.last_peer_stream_id + 1) | 1
            self.skipped_last = stream_id - 2
        self.last_peer_stream_id = stream_id
        if self.stream_count >= self.options.max_concurrent_streams:
            self.reset_unannounced(stream_id, end_stream, REFUSED_STREAM, "stream limit reached (RFC 9113 5.1.2)")
            self.refused_streams += 1
            if not spend(&self.budgets.refused_streams):
                return self.fail(ENHANCE_YOUR_CALM, "too many streams over the limit")
            return 0
        if self.reader.self_dependent:
            reason = "stream that depends on itself (RFC 7540 5.3.1)"
        elif too_large:
            begin_request(&head)
            # Refused by its owner, but costly to decode all the same.
            self.charge_provoked()
            if self.failed:
                return 0
        else:
            reason = check_run_request(
                &self.last_run, decoder.run_number, decoder.run_fields, decoder.fields, decoder.field_count, &head
            )
            if reason == NULL and end_stream and head.content_length > 0:
                reason = "content-length differs from DATA (RFC 9113 8.1.1)"
        if reason != NULL:
            self.reset_unannounced(stream_id, end_stream, PROTOCOL_ERROR, reason)
            return self.charge_provoked()
        stream = self.add_stream(stream_id)
        stream.content_left = head.content_length
        stream.flags = STREAM_HEAD_RECEIVED | (STREAM_END_RECEIVED if end_stream else 0)
        refund_stream(&self.budgets, &self.options.values)
        return self.on_request(stream, &head, decoder.fields, decoder.field_count, end_stream, too_large)

    cdef int take_response(self, Stream* stream, bint end_stream) except -1:
        cdef ResponseHead head
        cdef const char* reason = check_response(self.decoder.fields, self.decoder.field_count, &head)
        cdef bint interim = reason == NULL and head.status < 200
        # §8.1.1: these have no content, whatever their content-length says.
        if reason == NULL and (stream.no_content or head.status == 204 or head.status == 304):
            head.content_length = -1
        if interim and end_stream:
            reason = "END_STREAM on an interim response (RFC 9113 8.1)"
        elif reason == NULL and end_stream and head.content_length > 0:
            reason = "content-length differs from DATA (RFC 9113 8.1.1)"
        if reason != NULL:
            return self.fail_stream(stream, PROTOCOL_ERROR, reason)
        if interim:
            stream.interim_responses += 1
            if stream.interim_responses > self.options.values.max_interim_responses:
                return self.fail_stream(stream, ENHANCE_YOUR_CALM, "too many interim responses")
        else:
            stream.flags |= STREAM_HEAD_RECEIVED | (STREAM_END_RECEIVED if end_stream else 0)
            stream.content_left = head.content_length
        if not stream.flags & STREAM_RESET_QUEUED:
            self.on_response(stream, &head, self.decoder.fields, self.decoder.field_count, end_stream)
        return self.end_received(stream) if end_stream else 0

    cdef int take_trailers(self, Stream* stream, bint end_stream) except -1:
        cdef Field* grpc_status
        cdef const char* reason
        if not end_stream:
            reason = "trailers without END_STREAM (RFC 9113 8.1)"
        elif stream.content_left > 0:
            reason = "content-length differs from DATA (RFC 9113 8.1.1)"
        else:
            reason = check_trailers(self.decoder.fields, self.decoder.field_count, &grpc_status)
        if reason != NULL:
            return self.fail_stream(stream, PROTOCOL_ERROR, reason)
        stream.flags |= STREAM_END_RECEIVED
        if not stream.flags & STREAM_RESET_QUEUED:
            self.on_trailers(stream, self.decoder.fields, self.decoder.field_count, grpc_status)
        return self.end_received(stream)

    # ===== SETTINGS (§6.5) =====

    cdef int take_settings(self) except -1:
        cdef const uint8_t* at = self.reader.payload
        cdef const uint8_t* end = at + self.reader.payload_length
        cdef uint32_t window = self.peer_initial_window
        cdef const char* reason
        if not spend(&self.budgets.settings_frames):
            return self.fail(ENHANCE_YOUR_CALM, "too many SETTINGS")
        while at < end:
            reason = self.apply_setting(load_16(at), load_32(at + 2), &window)
            if reason != NULL:
                return self.fail(
                    FLOW_CONTROL_ERROR if load_16(at) == SETTINGS_INITIAL_WINDOW_SIZE else PROTOCOL_ERROR, reason
                )
            at += SETTING_LENGTH
        # Once a frame, however often the frame has it: each change walks over all streams.
        if window != self.peer_initial_window and not self.change_initial_window(window):
            return self.fail(FLOW_CONTROL_ERROR, "window over 2**31 - 1 (RFC 9113 6.9.2)")
        append_settings_ack(&self.out)
        if self.settings_received:
            return self.on_settings()
        self.settings_received = True
        return self.on_ready()

    # NULL, or why the value is a connection error.
    cdef const char* apply_setting(self, uint32_t setting, uint32_t value, uint32_t* window) noexcept:
        if setting == SETTINGS_INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                return "SETTINGS_INITIAL_WINDOW_SIZE over 2**31 - 1 (RFC 9113 6.5.2)"
            window[0] = value
        elif setting == SETTINGS_MAX_FRAME_SIZE:
            if not DEFAULT_MAX_FRAME_SIZE <= value <= LARGEST_MAX_FRAME_SIZE:
                return "SETTINGS_MAX_FRAME_SIZE out of bounds (RFC 9113 6.5.2)"
            self.peer_max_frame_size = value
        elif setting == SETTINGS_MAX_CONCURRENT_STREAMS:
            if value > self.peer_max_concurrent_streams and self.is_client:
                self.stream_available = True
            self.peer_max_concurrent_streams = value
        elif setting == SETTINGS_HEADER_TABLE_SIZE:
            self.encoder.peer_table_size(value)
        elif setting == SETTINGS_MAX_HEADER_LIST_SIZE:
            self.peer_max_header_list_size = value
        elif setting == SETTINGS_ENABLE_PUSH:
            # A client says 0 or 1, a server nothing but 0.
            if value > 1 or (value and self.is_client):
                return "invalid SETTINGS_ENABLE_PUSH (RFC 9113 6.5.2)"
        return NULL

    # False: the window of a stream became too large (§6.9.2). It may become negative.
    cdef bint change_initial_window(self, uint32_t size) noexcept:
        cdef int64_t change = <int64_t>size - self.peer_initial_window
        cdef Stream* stream
        cdef uint32_t i
        cdef bint fits = True
        self.peer_initial_window = size
        if self.table.count == 0:
            return True
        for i in range(<uint32_t>1 << self.table.bits):
            stream = self.table.buckets[i]
            while stream != NULL:
                stream.send_window += change
                if stream.send_window > LARGEST_WINDOW:
                    fits = False
                if stream.send_window > 0 and pending_of(stream) > 0:
                    self.link_waiting(stream)
                stream = stream.next
        return fits

    cdef int take_settings_ack(self) except -1:
        cdef Stream* stream
        cdef uint32_t i
        if self.settings_acknowledged:
            return self.charge()
        self.settings_acknowledged = True
        self.decoder.allow_table_size(self.options.header_table_size)
        # From here on the peer goes by our window where that is smaller than the default (add_stream()).
        if self.options.stream_window < DEFAULT_WINDOW and self.table.count > 0:
            for i in range(<uint32_t>1 << self.table.bits):
                stream = self.table.buckets[i]
                while stream != NULL:
                    stream.receive_window -= DEFAULT_WINDOW - <int64_t>self.options.stream_window
                    stream = stream.next
        return 0

    # ===== the other frames =====

    cdef int take_window_update(self) except -1:
        cdef uint32_t stream_id = self.reader.stream_id
        cdef uint32_t increment = load_31(self.reader.payload)
        cdef Stream* stream = NULL
        if stream_id != 0:
            stream = self.find(stream_id)
            if stream == NULL:
                return self.take_closed(stream_id, -1)
        self.charge()
        if self.failed:
            return 0
        if stream == NULL:
            if increment == 0:
                return self.fail(PROTOCOL_ERROR, "WINDOW_UPDATE of 0 (RFC 9113 6.9)")
            self.send_window += increment
            if self.send_window > LARGEST_WINDOW:
                return self.fail(FLOW_CONTROL_ERROR, "window over 2**31 - 1 (RFC 9113 6.9.1)")
            return 0
        if increment == 0:
            return self.fail_stream(stream, PROTOCOL_ERROR, "WINDOW_UPDATE of 0 (RFC 9113 6.9)")
        if stream.send_window + increment > LARGEST_WINDOW:
            return self.fail_stream(stream, FLOW_CONTROL_ERROR, "window over 2**31 - 1 (RFC 9113 6.9.1)")
        stream.send_window += increment
        if stream.send_window > 0 and pending_of(stream) > 0:
            self.link_waiting(stream)
        return 0

    cdef int take_rst_stream(self) except -1:
        cdef Stream* stream = self.find(self.reader.stream_id)
        cdef uint32_t code = load_32(self.reader.payload)
        if stream == NULL:
            return self.take_closed(self.reader.stream_id, -1)
        if (
            not self.is_client
            and not stream.flags & STREAM_HEAD_SENT
            and stream.epoch == self.epoch
            and not spend(&self.budgets.rapid_resets)
        ):
            return self.fail(ENHANCE_YOUR_CALM, "too many streams reset by their client")
        if (
            self.is_client and code == REFUSED_STREAM and not stream.flags & STREAM_HEAD_RECEIVED
            # A backend that has begun to answer, if only to say so, has begun to process (§8.7).
            and stream.interim_responses == 0
        ):
            return self.close_stream(stream, CLOSED_UNPROCESSED, code)
        return self.close_stream(stream, CLOSED_BY_PEER, code)

    # RFC 9113 §5.3.2 has done away with priorities; what is left is their form, and RFC 7540's one rule.
    cdef int take_priority(self) except -1:
        cdef uint32_t code = FRAME_SIZE_ERROR
        cdef const char* reason = "PRIORITY of a wrong length (RFC 9113 6.3)"
        cdef Stream* stream
        self.charge()
        if self.failed:
            return 0
        if self.reader.length == PRIORITY_LENGTH:
            if load_31(self.reader.payload) != self.reader.stream_id:
                return 0
            code = PROTOCOL_ERROR
            reason = "stream that depends on itself (RFC 7540 5.3.1)"
        stream = self.find(self.reader.stream_id)
        # An idle or closed stream cannot be reset.
        return self.fail(code, reason) if stream == NULL else self.fail_stream(stream, code, reason)

    cdef int take_goaway(self) except -1:
        cdef uint32_t last = load_31(self.reader.payload)
        cdef uint32_t code = load_32(self.reader.payload + 4)
        self.charge()
        if self.failed:
            return 0
        self.goaway_received = True
        # Its owner knows first that this connection is no place to try again.
        if self.is_client:
            self.doom_streams(last, CLOSED_UNPROCESSED, code)
        self.on_goaway(last, code)
        return self.close_doomed()
