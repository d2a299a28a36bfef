# buffer.pxd: a growing octet buffer whose contents are handed over as one `bytes` without a copy.
#
# Backed by a bytes object that nobody else sees until buffer_take(). A zeroed Buffer is a valid empty
# one and holds no memory, so idle connections cost nothing.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    PyObject* _PyBytes_New "PyBytes_FromStringAndSize"(const char* value, Py_ssize_t length)
    char* _PyBytes_Octets "PyBytes_AS_STRING"(PyObject* value)
    int _PyBytes_Resize(PyObject** value, Py_ssize_t length) except -1
    void Py_XDECREF(PyObject* value)

cdef extern from *:
    """
    /* The length of a bytes object that nobody else has seen yet. Its memory stays what it is: that of the object is
       freed by its address alone. */
    static void _pygw_shorten(PyObject *value, Py_ssize_t length) {
        Py_SET_SIZE((PyVarObject *)value, length);
        PyBytes_AS_STRING(value)[length] = 0;
    }
    """
    void _shorten "_pygw_shorten"(PyObject* value, Py_ssize_t length) noexcept

cdef struct Buffer:
    PyObject* owner              # bytes object of `capacity` octets, or NULL
    uint8_t* data                # its octets
    Py_ssize_t length            # octets in use
    Py_ssize_t capacity

cdef enum:
    BUFFER_FIRST_CAPACITY = 2048
    BUFFER_LONG_STEP = 16384
    # What DATA collects in for one write: OUTPUT_FULL and one more frame fit. StreamPool lends it, take_output() hands
    # it over and recycle() takes it back where the transport was done with it at once.
    OUTPUT_BLOCK = 294912

# Makes room for `more` octets behind `length` and returns where they go. Raises MemoryError.
cdef inline uint8_t* buffer_reserve(Buffer* self, Py_ssize_t more) except NULL:
    cdef Py_ssize_t needed = self.length + more
    cdef Py_ssize_t capacity
    if needed > self.capacity or self.owner == NULL:
        # A buffer that grows large is a bulk stream's: fewer, longer steps spare most of the moving.
        capacity = self.capacity * (4 if self.capacity >= BUFFER_LONG_STEP else 2)
        if capacity < BUFFER_FIRST_CAPACITY:
            capacity = BUFFER_FIRST_CAPACITY
        if capacity < needed:
            capacity = needed
        if self.owner == NULL:
            self.owner = _PyBytes_New(NULL, capacity)
            if self.owner == NULL:
                raise MemoryError()
        else:
            # On failure CPython frees the object and sets owner to NULL: nothing dangles.
            self.capacity = 0
            _PyBytes_Resize(&self.owner, capacity)
        self.data = <uint8_t*>_PyBytes_Octets(self.owner)
        self.capacity = capacity
    return self.data + self.length

cdef inline int buffer_append(Buffer* self, const void* octets, Py_ssize_t length) except -1:
    cdef uint8_t* end = buffer_reserve(self, length)
    memcpy(end, octets, <size_t>length)
    self.length += length
    return 0

# Hands the contents over as one bytes object and leaves the buffer empty.
cdef inline bytes buffer_take(Buffer* self):
    cdef bytes taken
    if self.owner == NULL:
        return b""
    if self.capacity == OUTPUT_BLOCK and self.length >= OUTPUT_BLOCK // 4:
        # (With less in it, a transport that cannot write at once would hold too much for too little.)
        _shorten(self.owner, self.length)
    elif self.length != self.capacity:
        self.capacity = 0
        _PyBytes_Resize(&self.owner, self.length)
    taken = <bytes>self.owner
    Py_XDECREF(self.owner)
    self.owner = NULL
    self.data = NULL
    self.length = 0
    self.capacity = 0
    return taken

cdef inline void buffer_free(Buffer* self) noexcept:
    Py_XDECREF(self.owner)
    self.owner = NULL
    self.data = NULL
    self.length = 0
    self.capacity = 0
