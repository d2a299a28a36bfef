# request_section.pxd: the header section that goes to a backend. No connections.

from libc.stdint cimport uint8_t
from .._fastmatch cimport BackendRefRecord, RouteTable, RuleRecord
from ..field cimport Field, FieldMemo
from .client_address cimport TrustedProxies
from .context cimport Context

cdef struct Client:              # what a Downstream knows of its peer
    const uint8_t* address       # text
    FieldMemo address_memo       # where the upstream encoder put x-forwarded-for with this address last
    FieldMemo proto_memo
    Py_ssize_t address_length
    bint is_trusted              # a trusted proxy
    bint is_tls

# Builds it in context.scratch and returns the number of fields: what came, in order, edited by the rule and the
# backendRef, with x-forwarded-for and x-forwarded-proto. A gRPC call's grpc-timeout is left out: call_request.pyx
# adds what is left of it.
cdef Py_ssize_t build_request(
    Context context, RouteTable table, const RuleRecord* rule, const BackendRefRecord* ref,
    const Field* fields, Py_ssize_t count, TrustedProxies proxies, Client* client, bint is_grpc
) except -1
