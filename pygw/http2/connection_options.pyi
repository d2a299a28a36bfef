class ConnectionOptions:
    """What the connections of one end are made with. Windows and sizes are in octets."""

    is_client: bool
    max_concurrent_streams: int
    stream_window: int
    stream_window_max: int
    window_growth_total: int
    connection_window: int
    credit_at_receipt: bool
    max_header_list_size: int
    max_header_fields: int
    header_table_size: int
    encoder_table_size: int
    limits: object
    def __init__(
        self,
        *,
        is_client: bool = False,
        max_concurrent_streams: int = 1000,
        stream_window: int = 65535,
        stream_window_max: int = 1048576,
        window_growth_total: int = 33554432,
        connection_window: int = 4194304,
        credit_at_receipt: bool = False,
        max_header_list_size: int = 131072,
        max_header_fields: int = 1000,
        header_table_size: int = 4096,
        encoder_table_size: int = 4096,
        limits: object = None,
    ) -> None:
        """`limits` has the int attributes that pygw.http2.limits.LIMITS names; what it lacks has its default.

        Raises ValueError or TypeError that name the value which is out of bounds.
        """
