# connection_options.pyx: what the connections of one end are made with. See connection_options.pxd.

from .constants cimport DEFAULT_WINDOW, LARGEST_WINDOW
from .limits cimport read_limits


cdef class ConnectionOptions:

    def __init__(
        self,
        *,
        bint is_client=False,
        uint32_t max_concurrent_streams=1000,
        uint32_t stream_window=65535,
        uint32_t stream_window_max=1048576,
        uint32_t window_growth_total=33554432,
        uint32_t connection_window=4194304,
        bint credit_at_receipt=False,
        uint32_t max_header_list_size=131072,
        uint32_t max_header_fields=1000,
        uint32_t header_table_size=4096,
        uint32_t encoder_table_size=4096,
        object limits=None,
    ):
        self.is_client = is_client
        self.max_concurrent_streams = max_concurrent_streams
        self.stream_window = stream_window
        self.stream_window_max = stream_window_max
        self.window_growth_total = window_growth_total
        self.connection_window = connection_window
        self.credit_at_receipt = credit_at_receipt
        self.max_header_list_size = max_header_list_size
        self.max_header_fields = max_header_fields
        self.header_table_size = header_table_size
        self.encoder_table_size = encoder_table_size
        self.limits = limits
        self.prepare()

    cdef int prepare(self) except -1:
        if not 1 <= self.stream_window <= self.stream_window_max:
            raise ValueError(
                f"stream_window must be from 1 to stream_window_max ({self.stream_window_max}), "
                f"not {self.stream_window}"
            )
        if self.stream_window_max > LARGEST_WINDOW:
            raise ValueError(f"stream_window_max must be at most {LARGEST_WINDOW}, not {self.stream_window_max}")
        # §6.9.2: nothing but use lowers a connection's window, so the first one is the least that can be had.
        if not DEFAULT_WINDOW <= self.connection_window <= LARGEST_WINDOW:
            raise ValueError(
                f"connection_window must be from {DEFAULT_WINDOW} to {LARGEST_WINDOW}, not {self.connection_window}"
            )
        if not self.values_read or self.values_of is not self.limits:
            read_limits(self.limits, &self.values)
            self.values_of = self.limits
            self.values_read = True
        return 0
