# downstream.pxd: the HTTP/2 connection of a client (server end): from a request to a Call. No route logic.

from libc.stdint cimport int64_t, uint8_t
from .._fastmatch cimport BackendRefRecord, Found, ListRef, RouteTable, RuleRecord
from ..http2.message cimport RequestHead
from ..http2.stream cimport Stream
from ..field cimport Field
from .backend cimport Backend
from .call_metrics cimport CallSeries
from .call_record cimport Call, Origin
from .client_peer cimport ClientPeer
from .endpoint cimport Endpoint
from .snapshot cimport Snapshot
from .timer_wheel cimport Timer

cdef class Downstream(ClientPeer):
    cdef:
        # The series of the last call: most calls of a connection are like the one before.
        CallSeries* last_series
        const RuleRecord* last_rule
        const BackendRefRecord* last_ref
        Timer age_timer
        bint is_leaving              # GOAWAY announced: age or drain
        bint is_final                # the second GOAWAY was sent

    cdef int arm_idle(self) except -1
    # ===== from a request to a Call, or to the gateway's own answer =====
    cdef int redirect(self, Stream* stream, Snapshot snapshot, Found* found, RequestHead* head, Field* fields,
                      Py_ssize_t count, bint end_stream) except -1
    cdef int refuse(self, Stream* stream, int grpc_status, const char* message) except -1
    cdef bint must_shed(self) except -1
    cdef int push_back(self, Stream* stream, bint is_grpc, bint is_head, int grpc_status, const char* text) except -1
    cdef int shed_late(self, Call* call) except -1
    cdef int shed(self, Stream* stream, RequestHead* head) except -1
    cdef int refuse_http(self, Stream* stream, int status, RequestHead* head, bint end_stream) except -1
    cdef int answer(self, Stream* stream, Snapshot snapshot, Found* found, const BackendRefRecord* ref,
                    RequestHead* head, int grpc_status, const char* message) except -1
    cdef int answer_octets(self, Stream* stream, Snapshot snapshot, Found* found, const BackendRefRecord* ref,
                           RequestHead* head, int grpc_status, const uint8_t* message, Py_ssize_t length,
                           int http_status=*) except -1
    cdef Call* make_call(self, Stream* stream, Snapshot snapshot, Found* found, const BackendRefRecord* ref,
                         RequestHead* head) except NULL
    cdef CallSeries* find_series(self, RouteTable table, const RuleRecord* rule, const BackendRefRecord* ref,
                                 const RequestHead* head) except NULL
    cdef int keep_for_log(self, Call* call, RequestHead* head) except -1
    cdef int start_call(self, Stream* stream, Snapshot snapshot, Found* found, RequestHead* head,
                        Field* fields, Py_ssize_t count, bint end_stream) except -1
    cdef void note_origin(self, Origin* origin, const Call* call, const Field* fields, Py_ssize_t count) noexcept
    cdef int send_call(self, Call* call, Backend backend, Endpoint endpoint, const Field* fields, Py_ssize_t count,
                       const Origin* origin) except -1
    cdef int start_mirrors(self, Call* primary, Snapshot snapshot, ListRef list, Field* fields, Py_ssize_t count,
                           int64_t timeout) except -1
