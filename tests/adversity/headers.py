"""Header checks: field sections by RFC 9113 §8 and §10.3, in requests and in responses.

What is malformed must be refused (a stream error, HTTP 4xx, or at worst the end of the connection) and never reach
the other side. What is merely odd must pass, or be refused: never be turned into something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tests.doubles import frames as wire
from tests.doubles.frames import Field

from .case import add, expect
from .probe import ANSWERED, expect_kept_out, probe_request
from .raw import Seen
from .rig import MESSAGE, Rig, ScriptRig, request
from .scripted_backend import OK, RESPONSE, BackendConnection

PATH = b"/adversity.Test/Call"
Fields = Sequence[Field]


def without(name: bytes) -> Fields:
    """A request that lacks a field."""
    return [field for field in request() if field[0] != name]


def first(*fields: Field) -> Fields:
    """A request with fields in front of all others."""
    return [*fields, *request()]


# ===== requests that are malformed =====

MALFORMED: list[tuple[str, Fields]] = [
    ("upper-case-name", request(PATH, (b"X-Upper", b"1"))),
    ("upper-case-in-name", request(PATH, (b"x-uPper", b"1"))),
    ("empty-name", request(PATH, (b"", b"1"))),
    ("space-in-name", request(PATH, (b"x y", b"1"))),
    ("colon-in-name", request(PATH, (b"x:y", b"1"))),
    ("cr-in-name", request(PATH, (b"x\ry", b"1"))),
    ("lf-in-name", request(PATH, (b"x\ny", b"1"))),
    ("nul-in-name", request(PATH, (b"x\0y", b"1"))),
    ("high-octet-in-name", request(PATH, (b"x\xc3\xa9", b"1"))),
    ("cr-in-value", request(PATH, (b"x-a", b"1\rx-b: 2"))),
    ("lf-in-value", request(PATH, (b"x-a", b"1\nx-b: 2"))),
    ("crlf-in-value", request(PATH, (b"x-a", b"1\r\n\r\nGET / HTTP/1.1"))),
    ("nul-in-value", request(PATH, (b"x-a", b"1\0"))),
    ("cr-in-path", request(b"/adversity.Test/Ca\rll")),
    ("lf-in-authority", request(authority=b"adversity.example.com\nx: y")),
    ("nul-in-method", request(method=b"PO\0ST")),
    ("method-missing", without(b":method")),
    ("scheme-missing", without(b":scheme")),
    ("path-missing", without(b":path")),
    ("path-empty", request(b"")),
    ("method-twice", first((b":method", b"POST"))),
    ("path-twice", first((b":path", b"/adversity.Test/Other"))),
    ("authority-twice", first((b":authority", b"other.example.com"))),
    ("scheme-twice", first((b":scheme", b"https"))),
    ("pseudo-late", [*without(b":path"), (b":path", PATH)]),
    ("pseudo-unknown", first((b":protocol-x", b"1"))),
    ("pseudo-of-response", first((b":status", b"200"))),
    ("connection", request(PATH, (b"connection", b"close"))),
    ("connection-names-field", request(PATH, (b"connection", b"x-a"), (b"x-a", b"1"))),
    ("keep-alive", request(PATH, (b"keep-alive", b"timeout=5"))),
    ("proxy-connection", request(PATH, (b"proxy-connection", b"close"))),
    ("transfer-encoding", request(PATH, (b"transfer-encoding", b"chunked"))),
    ("upgrade", request(PATH, (b"upgrade", b"h2c"))),
    ("te-other", request(te=b"gzip")),
    ("te-list", request(te=b"trailers, deflate")),
    ("content-length-short", request(PATH, (b"content-length", b"3"))),
    ("content-length-long", request(PATH, (b"content-length", b"300"))),
    ("content-length-twice", request(PATH, (b"content-length", b"10"), (b"content-length", b"11"))),
    ("content-length-signed", request(PATH, (b"content-length", b"+10"))),
    ("content-length-negative", request(PATH, (b"content-length", b"-1"))),
    ("content-length-text", request(PATH, (b"content-length", b"ten"))),
    ("content-length-list", request(PATH, (b"content-length", b"10, 11"))),
    ("content-length-huge", request(PATH, (b"content-length", b"99999999999999999999999"))),
    ("host-differs", request(PATH, (b"host", b"other.example.com"))),
    ("user-in-authority", request(authority=b"user@adversity.example.com")),
    ("authority-with-path", request(authority=b"adversity.example.com/x")),
    ("authority-with-space", request(authority=b"adversity example.com")),
    ("path-relative", request(b"adversity.Test/Call")),
    ("path-with-space", request(b"/adversity.Test/Ca ll")),
    ("path-with-fragment", request(b"/adversity.Test/Call#x")),
    ("path-dot-dot", request(b"/adversity.Test/../adversity.Test/Call")),
    ("connect-with-path", request(method=b"CONNECT")),
]


def malformed(fields: Fields, rig: Rig) -> None:
    """The case of a malformed request."""
    assert isinstance(rig, ScriptRig)
    verdict = probe_request(rig, fields)
    rig.measures["ended_by"] = verdict.code or verdict.kind
    expect_kept_out(verdict)


for name, fields in MALFORMED:
    add("headers", name, partial(malformed, fields), "The request is refused and never reaches the backend.")


# ===== blanks: refused, or taken off =====

BLANKS: list[tuple[str, bytes]] = [
    ("leading-space", b" v"), ("trailing-space", b"v "), ("leading-tab", b"\tv"), ("trailing-tab", b"v\t"),
]  # fmt: skip


def blank(value: bytes, rig: Rig) -> None:
    """The case of a value with a blank at an end (RFC 9113 §8.2.1)."""
    assert isinstance(rig, ScriptRig)
    verdict = probe_request(rig, request(PATH, (b"x-blank", value)))
    came = [seen.value(b"x-blank") for seen in verdict.reached]
    expect(not came or came == [b"v"], f"the backend got {came}")
    expect(came or verdict.kind != ANSWERED, "it was answered and nothing came to the backend")


for name, value in BLANKS:
    add("headers", f"value-{name}", partial(blank, value), "A blank at an end of a value is not passed on.")


# ===== requests that are good, however odd =====

Check = Callable[[dict[bytes, bytes]], bool]
GOOD: list[tuple[str, Fields, Check]] = [
    ("good-value-high-octets", request(PATH, (b"x-a", b"\xc3\xa9\xff")), lambda got: got[b"x-a"] == b"\xc3\xa9\xff"),
    ("good-value-empty", request(PATH, (b"x-a", b"")), lambda got: got[b"x-a"] == b""),
    ("good-value-long", request(PATH, (b"x-a", b"v" * 6000)), lambda got: got[b"x-a"] == b"v" * 6000),
    ("good-name-symbols", request(PATH, (b"x!#$%&'*+-.^`|~0", b"1")), lambda got: b"x!#$%&'*+-.^`|~0" in got),
    ("good-binary-metadata", request(PATH, (b"x-a-bin", b"AAEC")), lambda got: got[b"x-a-bin"] == b"AAEC"),
    ("good-content-length", request(PATH, (b"content-length", b"10")), lambda got: got[b":path"] == PATH),
    ("good-host-same", request(PATH, (b"host", b"adversity.example.com")),
     lambda got: got.get(b":authority") == b"adversity.example.com"),
    ("good-host-alone", [*without(b":authority"), (b"host", b"adversity.example.com")],
     lambda got: b"adversity.example.com" in (got.get(b":authority"), got.get(b"host"))),
    ("good-cookie-crumbs", request(PATH, (b"cookie", b"a=1"), (b"cookie", b"b=2")),
     lambda got: b"b=2" in got[b"cookie"]),
    ("good-authority-port", request(authority=b"adversity.example.com:8080"), lambda got: got[b":path"] == PATH),
    ("good-many-fields", request(PATH, *((b"x-%02d" % number, b"v") for number in range(60))),
     lambda got: got[b"x-59"] == b"v"),
]  # fmt: skip


def good(fields: Fields, check: Check, rig: Rig) -> None:
    """The case of a good request."""
    assert isinstance(rig, ScriptRig)
    verdict = probe_request(rig, fields)
    expect(verdict.kind == ANSWERED, f"it was not answered: {verdict.told}")
    [seen] = verdict.reached
    got = dict(seen.blocks[0])
    expect(got[b":method"] == b"POST" and check(got), f"the backend got {seen.blocks[0]}")


for name, fields, check in GOOD:
    add("headers", name, partial(good, fields, check), "The request comes to the backend as it is.")


# ===== trailers =====

TRAILERS: list[tuple[str, Fields]] = [
    ("trailers-pseudo", [(b":path", b"/x")]),
    ("trailers-upper-case", [(b"X-A", b"1")]),
    ("trailers-crlf", [(b"x-a", b"1\r\nb: 2")]),
    ("trailers-connection", [(b"connection", b"close")]),
]


def bad_trailers(trailers: Fields, rig: Rig) -> None:
    """The case of malformed trailers: the request before them may have begun, but must not end well."""
    assert isinstance(rig, ScriptRig)
    verdict = probe_request(rig, trailers=trailers)
    expect(verdict.kind != ANSWERED, f"it was answered: {verdict.told}")
    whole = [seen for seen in verdict.reached if len(seen.blocks) > 1]
    expect(not whole, f"the trailers reached the backend: {whole and whole[0].blocks[1]}")


for name, trailers in TRAILERS:
    add("headers", name, partial(bad_trailers, trailers), "Malformed trailers never reach the backend.")


def good_trailers(rig: Rig) -> None:
    """Trailers of a request are relayed, or left out (RFC 9110 §6.5.1); the call goes on."""
    assert isinstance(rig, ScriptRig)
    verdict = probe_request(rig, trailers=[(b"x-sum", b"1")])
    expect(verdict.kind == ANSWERED and verdict.serves, f"it was not answered: {verdict.told}")


add("headers", "good-trailers", good_trailers, (good_trailers.__doc__ or "").strip())

# ===== responses =====

# (name, the response's header section, what must not come to the client)
RESPONSES: list[tuple[str, Fields, bytes]] = [
    ("response-crlf", [*RESPONSE, (b"x-a", b"1\r\nx-evil: 1")], b"\r\n"),
    ("response-nul", [*RESPONSE, (b"x-a", b"1\0")], b"\0"),
    ("response-upper-case", [*RESPONSE, (b"X-Upper", b"1")], b"X-Upper"),
    ("response-connection", [*RESPONSE, (b"connection", b"close")], b"connection"),
    ("response-status-missing", RESPONSE[1:], b"never"),
    ("response-status-twice", [(b":status", b"200"), *RESPONSE], b"never"),
    ("response-status-text", [(b":status", b"OK"), RESPONSE[1]], b"OK"),
    ("response-pseudo-of-request", [(b":path", b"/x"), *RESPONSE], b":path"),
    ("response-pseudo-late", [RESPONSE[1], RESPONSE[0]], b"never"),
]


def bad_response(fields: Fields, evil: bytes, rig: Rig) -> None:
    """The case of a malformed response: the client is told of an error, and sees nothing of it."""
    assert isinstance(rig, ScriptRig)

    def answer(peer: BackendConnection, seen: Seen) -> None:
        number = seen.stream_id
        peer.send(
            wire.headers(number, fields), wire.data(number, MESSAGE), wire.headers(number, OK, end_stream=True)
        )

    rig.backend.script(answer=answer)
    with rig.client() as client:
        seen = client.call(1, request(), MESSAGE, 4)
        told = f"{seen.told()}; connection {client.ending()}"
    expect(seen.is_over, f"the client hangs: {told}")
    failed = seen.reset is not None or seen.grpc_status not in (0, None) or seen.value(b":status") != b"200"
    # A connection-specific field may also be taken off.
    expect(failed or evil == b"connection", f"it passed: {seen.blocks}")
    octets = b"".join(name + value for block in seen.blocks for name, value in block)
    expect(evil not in octets, f"the client got {seen.blocks}")


for name, fields, evil in RESPONSES:
    add("headers", name, partial(bad_response, fields, evil), "A malformed response becomes an error, and is not seen.")


