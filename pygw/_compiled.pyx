# _compiled.pyx: the names of the modules that are linked into this one's shared object. See compiled.py.

cdef extern from *:
    """
    #ifndef PYGW_MODULES
    #error "setup.py tells which modules are linked together"
    #endif
    """
    const char* PYGW_MODULES

MODULES = frozenset(PYGW_MODULES.decode().split())
