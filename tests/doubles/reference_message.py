"""Is a header section well-formed? RFC 9113 §8.2 and §8.3 once more, in regular expressions: slow, and easy to read.

The oracle of pygw.http2.message. Says only whether, not why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Fields = Sequence[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")
_AUTHORITY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
_PATH = re.compile(rb"/[^\x00-\x20\x7f]*")
_STATUS = re.compile(rb"[1-9][0-9][0-9]")
_CONNECTION_SPECIFIC = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


def is_request(fields: Fields) -> bool:
    """Whether these fields are a request that we take."""
    pseudo, regular = _sorted(fields)
    if pseudo is None or not _are_regular(regular, may_have_te=True):
        return False
    if not {b":method", b":scheme", b":path"} <= set(pseudo) <= {b":method", b":scheme", b":path", b":authority"}:
        return False
    method, scheme = pseudo[b":method"], pseudo[b":scheme"]
    hosts = [value for name, value in regular if name == b"host"]
    return bool(
        _METHOD.fullmatch(method)
        and method != b"CONNECT"
        and _SCHEME.fullmatch(scheme)
        and (_PATH.fullmatch(pseudo[b":path"]) or (method, pseudo[b":path"]) == (b"OPTIONS", b"*"))
        and len(hosts) <= 1
        and _is_target(scheme.lower(), pseudo.get(b":authority"), hosts[0] if hosts else None)
    )


def is_response(fields: Fields) -> bool:
    """Whether these fields open a response that we take."""
    pseudo, regular = _sorted(fields)
    if pseudo is None or set(pseudo) != {b":status"} or not _are_regular(regular):
        return False
    return bool(_STATUS.fullmatch(pseudo[b":status"])) and pseudo[b":status"] != b"101"


def is_trailers(fields: Fields) -> bool:
    """Whether these fields are trailers that we take; content-length in them says nothing."""
    pseudo, regular = _sorted(fields)
    return pseudo == {} and _are_regular([field for field in regular if field[0] != b"content-length"])


def _sorted(fields: Fields) -> tuple[dict[bytes, bytes] | None, list[tuple[bytes, bytes]]]:
    """Pseudo-header fields and the others; None where the former are repeated, misplaced or have bad values."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if not _VALUE.fullmatch(value):
            return None, regular
        if not name.startswith(b":"):
            regular.append((name, value))
        elif regular or name in pseudo:
            return None, regular
        else:
            pseudo[name] = value
    return pseudo, regular


def _are_regular(fields: Fields, *, may_have_te: bool = False) -> bool:
    lengths = set()
    for name, value in fields:
        if not _NAME.fullmatch(name) or name in _CONNECTION_SPECIFIC:
            return False
        if name == b"te" and not (may_have_te and value.lower() == b"trailers"):
            return False
        if name == b"content-length":
            if not re.fullmatch(rb"[0-9]+", value) or int(value) >= 2**63:
                return False
            lengths.add(int(value))
    return len(lengths) <= 1


def _is_target(scheme: bytes, authority: bytes | None, host: bytes | None) -> bool:
    """:authority and host name one entity; one of them is there in http and https."""
    is_http = scheme in _DEFAULT_PORTS
    given = host if authority is None else authority
    if given is None:
        return not is_http
    if not _AUTHORITY.fullmatch(given) or (is_http and (not given or given.startswith(b":"))):
        return False
    return host is None or _entity(scheme, given) == _entity(scheme, host)


def _entity(scheme: bytes, authority: bytes) -> bytes:
    name, colon, port = authority.rpartition(b":")
    if colon and port in (b"", _DEFAULT_PORTS.get(scheme, b"")):
        return name.lower()
    return authority.lower()
