# recording_connection.pyx: a Connection for Python: hooks become tuples in a list, streams are known by id. For
# tests, fuzzers and benchmarks; the relay does not use it.

from sys import getsizeof

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ..field cimport Field
from .connection cimport CloseCause, Connection
from .connection_options cimport ConnectionOptions
from .hpack_table cimport classify_name
from .message cimport RequestHead, ResponseHead
from .stream cimport Stream, StreamPool, pending_of
from .stream_table cimport find_stream

CAUSES = ("complete", "by_peer", "by_error", "unprocessed", "connection", "too_large", "unsent", "stalled")


cdef list pairs_of(const Field* fields, Py_ssize_t count):
    return [
        (fields[i].name[:fields[i].name_length], fields[i].value[:fields[i].value_length]) for i in range(count)
    ]


cdef class SentFields:
    """A Field array made of Python pairs, which it keeps alive."""

    cdef:
        Field* fields
        Py_ssize_t count
        list pairs

    def __cinit__(self, pairs):
        cdef Py_ssize_t i
        cdef Field* field
        cdef uint16_t token
        self.pairs = [(bytes(name), bytes(value)) for name, value in pairs]
        self.count = len(self.pairs)
        self.fields = <Field*>calloc(self.count + 1, sizeof(Field))
        if self.fields == NULL:
            raise MemoryError()
        for i in range(self.count):
            field = self.fields + i
            field.name = <const uint8_t*><bytes>self.pairs[i][0]
            field.name_length = <uint32_t>len(self.pairs[i][0])
            field.value = <const uint8_t*><bytes>self.pairs[i][1]
            field.value_length = <uint32_t>len(self.pairs[i][1])
            classify_name(field.name, field.name_length, &token)
            field.token = token

    def __dealloc__(self):
        free(self.fields)


cdef class RecordingConnection(Connection):
    cdef:
        readonly list events
        public object on_event       # called with each event, for tests that act from inside of a hook
        public bint auto_credit      # DATA counts as drained when it comes
        bint isolated

    def __init__(self, ConnectionOptions options, StreamPool pool=None, bint isolated=True):
        if pool is None:
            pool = StreamPool(isolated)
            # So that the order of events that concern many streams is the same in each run.
            pool.multiplier = 0x9e3779b1
            self.table.multiplier = pool.multiplier
        Connection.__init__(self, options, pool)
        self.events = []
        self.isolated = isolated

    # ===== hooks =====

    cdef int record(self, tuple event) except -1:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)
        return 0

    cdef int on_output(self) except -1:
        return self.record(("output",))

    cdef int on_output_full(self) except -1:
        return self.record(("output_full",))

    cdef int on_ready(self) except -1:
        return self.record(("ready",))

    cdef int on_settings(self) except -1:
        return self.record(("settings",))

    cdef int on_request(self, Stream* stream, RequestHead* head, Field* fields, Py_ssize_t count,
                        bint end_stream, bint too_large) except -1:
        if too_large:
            return self.record(("too_large", stream.id, bool(end_stream)))
        return self.record(("request", stream.id, pairs_of(fields, count), bool(end_stream)))

    cdef int on_response(self, Stream* stream, ResponseHead* head, Field* fields, Py_ssize_t count,
                         bint end_stream) except -1:
        return self.record(("response", stream.id, head.status, pairs_of(fields, count), bool(end_stream)))

    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
        cdef uint32_t stream_id = stream.id
        self.record(("data", stream_id, data[:length], bool(end_stream)))
        if self.auto_credit:
            stream = find_stream(&self.table, stream_id)
            if stream != NULL:
                self.credit(stream, length)
        return 0

    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
        return self.record(("trailers", stream.id, pairs_of(fields, count)))

    cdef int on_drained(self, Stream* stream, Py_ssize_t octets) except -1:
        return self.record(("drained", stream.id, octets))

    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1:
        return self.record(("closed", stream.id, CAUSES[<int>cause], code))

    cdef int on_stream_available(self) except -1:
        return self.record(("stream_available",))

    cdef int on_goaway(self, uint32_t last_stream_id, uint32_t code) except -1:
        return self.record(("goaway", last_stream_id, code))

    cdef int on_ping_ack(self, uint64_t payload) except -1:
        return self.record(("ping_ack", payload))

    cdef int on_bad_preface(self, const uint8_t* data, Py_ssize_t length) except -1:
        return self.record(("bad_preface", data[:length]))

    cdef int on_failed(self) except -1:
        return self.record(("failed", self.error_code, self.error.decode()))

    # ===== for Python =====

    cdef Stream* stream_of(self, uint32_t stream_id) except NULL:
        cdef Stream* stream = find_stream(&self.table, stream_id)
        if stream == NULL:
            raise KeyError(stream_id)
        return stream

    def take_events(self):
        events = self.events
        self.events = []
        return events

    def begin(self):
        self.start()

    def feed(self, const uint8_t[::1] data not None):
        cdef Py_ssize_t length = data.shape[0]
        cdef uint8_t* copy
        cdef const uint8_t* octets = &data[0] if length else <const uint8_t*>b""
        if not self.isolated:
            self.receive(octets, length)
            return
        # Of its very length, so that sanitizers see what reads over its end, and gone afterwards.
        copy = <uint8_t*>malloc(length or 1)
        if copy == NULL:
            raise MemoryError()
        memcpy(copy, octets, length)
        try:
            self.receive(copy, length)
        finally:
            free(copy)

    def output(self):
        return self.take_output()

    def lose(self):
        self.lost()

    def open(self):
        cdef Stream* stream = self.open_stream(NULL)
        return None if stream == NULL else stream.id

    def send_headers(self, uint32_t stream_id, fields, bint end_stream=False):
        cdef SentFields sent = SentFields(fields)
        cdef Stream* stream = self.stream_of(stream_id)
        cdef Py_ssize_t i
        self.begin_headers(stream)
        for i in range(sent.count):
            self.encoder.encode_field(&self.out, sent.fields + i)
        self.end_headers(stream, end_stream)

    def break_off(self, uint32_t stream_id, fields):
        cdef SentFields sent = SentFields(fields)
        cdef Py_ssize_t i
        self.begin_headers(self.stream_of(stream_id))
        for i in range(sent.count):
            self.encoder.encode_field(&self.out, sent.fields + i)
        raise MemoryError

    def send(self, uint32_t stream_id, bytes data not None, bint end_stream=False):
        return self.send_data(self.stream_of(stream_id), <const uint8_t*>data, len(data), end_stream)

    def send_trailing(self, uint32_t stream_id, fields):
        cdef SentFields sent = SentFields(fields)
        self.send_trailers(self.stream_of(stream_id), sent.fields, sent.count)

    def reset(self, uint32_t stream_id, uint32_t error_code=8):
        self.reset_stream(self.stream_of(stream_id), error_code)

    def finish(self, uint32_t stream_id, uint32_t error_code=0):
        self.finish_with_reset(self.stream_of(stream_id), error_code)

    def drain(self, uint32_t stream_id, Py_ssize_t octets):
        self.credit(self.stream_of(stream_id), octets)

    def expect_no_content(self, uint32_t stream_id):
        self.stream_of(stream_id).no_content = True

    def block_writes(self):
        self.write_blocked = True

    def resume_writes(self):
        self.write_blocked = False
        self.resume()

    def announce_going_away(self):
        self.announce_goaway()

    def go_away(self, uint32_t error_code=0):
        self.final_goaway(error_code)

    def send_ping(self, uint64_t payload):
        self.ping(payload)

    def give_up(self, uint32_t error_code):
        self.fail(error_code, "given up")

    def second_passes(self, uint32_t seconds=1):
        self.replenish(seconds)

    def look_for_stalls(self, uint8_t looks):
        self.end_stalled(looks)

    def is_open(self, uint32_t stream_id):
        return find_stream(&self.table, stream_id) != NULL

    def stream_state(self, uint32_t stream_id):
        cdef Stream* stream = self.stream_of(stream_id)
        return {
            "send_window": stream.send_window,
            "receive_window": stream.receive_window,
            "receive_target": stream.receive_target,
            "undrained": stream.undrained,
            "pending": pending_of(stream),
            "flags": stream.flags,
        }

    @property
    def can_open_stream(self):
        return self.can_open()

    @property
    def holds_data(self):
        return self.is_holding

    @property
    def windows(self):
        return self.send_window, self.receive_window

    @property
    def octets(self):
        return self.data_received, self.data_sent

    @property
    def budgets_left(self):
        return self.budgets

    @property
    def streams_in_use(self):
        return self.pool.used

    @property
    def last_stream_error(self):
        return None if self.stream_error == NULL else self.stream_error.decode()

    @property
    def held_octets(self):
        """Octets of buffers and tables beside the object itself."""
        return (
            self.out.capacity + self.reader.partial.capacity + self.reader.block.capacity
            + (sizeof(Stream*) << self.table.bits if self.table.buckets != NULL else 0)
        )

    @property
    def hpack_octets(self):
        """Octets that HPACK keeps from one header block to the next, but for its dynamic tables."""
        return self.decoder.scratch_capacity + self.decoder.capacity * sizeof(Field)

    @property
    def object_octets(self):
        """Octets of the object, its HPACK decoder and its encoder."""
        return sum(map(getsizeof, (self, self.decoder, self.encoder)))

    @property
    def peer_settings(self):
        return {
            "max_concurrent_streams": self.peer_max_concurrent_streams,
            "initial_window": self.peer_initial_window,
            "max_frame_size": self.peer_max_frame_size,
            "max_header_list_size": self.peer_max_header_list_size,
        }

    # ===== for benchmarks =====

    def measure_receive(self, const uint8_t[::1] data not None, Py_ssize_t rounds):
        cdef Py_ssize_t _
        for _ in range(rounds):
            self.receive(&data[0], data.shape[0])


cdef class DiscardingConnection(RecordingConnection):
    cdef readonly uint64_t hooks

    cdef int on_request(self, Stream* stream, RequestHead* head, Field* fields, Py_ssize_t count,
                        bint end_stream, bint too_large) except -1:
        self.hooks += 1
        return 0

    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
        self.hooks += 1
        return self.credit(stream, length)

    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
        self.hooks += 1
        return 0

    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1:
        self.hooks += 1
        return 0

    cdef int on_output(self) except -1:
        return 0
