# constants.pxd: the numbers of RFC 9113: frame types (§6), flags, error codes (§7), settings (§6.5.2), bounds.

cdef enum FrameType:
    FRAME_DATA = 0x0
    FRAME_HEADERS = 0x1
    FRAME_PRIORITY = 0x2
    FRAME_RST_STREAM = 0x3
    FRAME_SETTINGS = 0x4
    FRAME_PUSH_PROMISE = 0x5
    FRAME_PING = 0x6
    FRAME_GOAWAY = 0x7
    FRAME_WINDOW_UPDATE = 0x8
    FRAME_CONTINUATION = 0x9

cdef enum FrameFlag:
    FLAG_ACK = 0x1               # SETTINGS, PING
    FLAG_END_STREAM = 0x1        # DATA, HEADERS
    FLAG_END_HEADERS = 0x4
    FLAG_PADDED = 0x8
    FLAG_PRIORITY = 0x20

cdef enum ErrorCode:
    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xa
    ENHANCE_YOUR_CALM = 0xb
    INADEQUATE_SECURITY = 0xc
    HTTP_1_1_REQUIRED = 0xd

cdef enum SettingId:
    SETTINGS_HEADER_TABLE_SIZE = 0x1
    SETTINGS_ENABLE_PUSH = 0x2
    SETTINGS_MAX_CONCURRENT_STREAMS = 0x3
    SETTINGS_INITIAL_WINDOW_SIZE = 0x4
    SETTINGS_MAX_FRAME_SIZE = 0x5
    SETTINGS_MAX_HEADER_LIST_SIZE = 0x6

cdef enum:
    FRAME_HEAD_LENGTH = 9        # §4.1
    PREFACE_LENGTH = 24          # §3.4
    SETTING_LENGTH = 6
    PRIORITY_LENGTH = 5
    DEFAULT_WINDOW = 65535       # §6.9.2
    DEFAULT_MAX_FRAME_SIZE = 16384
    LARGEST_MAX_FRAME_SIZE = 16777215
    LARGEST_WINDOW = 0x7fffffff  # §6.9.1
    LARGEST_STREAM_ID = 0x7fffffff

# What a client sends first (§3.4).
cdef inline const char* preface() noexcept:
    return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
