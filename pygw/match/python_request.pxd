# python_request.pxd: a request given as Python values, in the form that match() reads. For explain, tests, benchmarks.

from ..field cimport Field
from .request_target cimport Request

cdef class PythonRequest:
    cdef:
        Request request
        Field* fields            # the last one stands for :method
        tuple owner              # of their octets
