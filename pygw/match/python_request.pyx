# python_request.pyx: see python_request.pxd.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from ..field cimport TOKEN_OTHER, TOKEN_UNKNOWN_PSEUDO, Field


cdef class PythonRequest:

    def __cinit__(self, authority, bytes path not None, list fields not None, bint is_grpc, bytes method not None):
        cdef Py_ssize_t count = len(fields)
        cdef Py_ssize_t i
        cdef bytes host = b"" if authority is None else authority
        self.owner = (host, path, tuple(fields), method)
        self.fields = <Field*>calloc(<size_t>count + 1, sizeof(Field))
        if self.fields == NULL:
            raise MemoryError()
        for i in range(count):
            name, value = fields[i]
            set_field(&self.fields[i], name, value)
        set_field(&self.fields[count], b":method", method)
        self.request.authority = NULL if authority is None else octets(host)
        self.request.authority_length = PyBytes_GET_SIZE(host)
        self.request.path = octets(path)
        self.request.path_length = PyBytes_GET_SIZE(path)
        self.request.fields = self.fields
        self.request.field_count = count
        self.request.is_grpc = is_grpc
        self.request.method = &self.fields[count]

    def __dealloc__(self):
        free(self.fields)


cdef uint8_t* octets(bytes value) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(value)


cdef int set_field(Field* field, bytes name, bytes value) except -1:
    if name is None or value is None:
        raise TypeError("a field is a pair of bytes")
    field.name = octets(name)
    field.name_length = <uint32_t>PyBytes_GET_SIZE(name)
    field.value = octets(value)
    field.value_length = <uint32_t>PyBytes_GET_SIZE(value)
    field.token = TOKEN_UNKNOWN_PSEUDO if name.startswith(b":") else TOKEN_OTHER
    return 0
