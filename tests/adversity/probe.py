"""Sends something to a proxy over a connection of its own, and says what became of it in one word and a few details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.doubles import frames as wire
from tests.doubles.frames import Field

from .case import CaseError, expect
from .raw import RawClient, Seen, code_name
from .rig import MESSAGE, ScriptRig, request

ANSWERED = "answered"    # grpc-status 0
REFUSED = "refused"      # reset, or another status: that request alone
ENDED = "ended"          # the connection
PENDING = "pending"      # nothing came of it, and the connection lives


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a probe; `reached` are the requests that came to the backend."""

    kind: str
    told: str
    seen: Seen
    reached: Sequence[Seen]
    serves: bool            # a good call on the same connection, afterwards
    code: str = ""          # of the reset or the GOAWAY


def probe(rig: ScriptRig, octets: bytes, *, client: RawClient | None = None, stream_id: int = 1,
          patience: float = 3.0, next_id: int = 101) -> Verdict:  # fmt: skip
    """Send octets on a connection and see what comes of the stream, the connection, and to the backend."""
    with client or rig.client() as connection:
        connection.send(octets)
        seen = connection.stream(stream_id)
        fenced = connection.fence(patience)
        if fenced and not connection.is_lost:
            connection.wait(lambda: seen.is_over, 0.3 if patience < 3 else patience / 6)
        serves = False
        if not connection.is_lost:
            try:
                rig.check_serves(connection, next_id)
                serves = True
            except CaseError:
                serves = False
        ending = connection.ending()
    kind, code = PENDING, ""
    if not serves and (connection.goaway or ending == "closed"):
        kind, code = ENDED, ending
    elif seen.reset is not None:
        kind, code = REFUSED, code_name(seen.reset)
    elif seen.ended:
        good = seen.grpc_status == 0 and seen.value(b":status") == b"200"
        kind = ANSWERED if good else REFUSED
    # Another connection, so that what was on its way has arrived.
    with rig.client() as other:
        rig.check_serves(other, 1, "a good call on another connection")
    return Verdict(kind, f"{seen.told()}; connection {ending}", seen, rig.backend.reached(), serves, code)


def probe_request(rig: ScriptRig, fields: Sequence[Field] | None = None, *,
                  data: bytes | None = MESSAGE, trailers: Sequence[Field] | None = None) -> Verdict:  # fmt: skip
    """Send a whole request with these fields."""
    chosen = request() if fields is None else list(fields)
    octets = wire.headers(1, chosen, end_stream=data is None and trailers is None)
    if data is not None:
        octets += wire.data(1, data, end_stream=trailers is None)
    if trailers is not None:
        octets += wire.headers(1, trailers, end_stream=True)
    return probe(rig, octets)


def expect_kept_out(verdict: Verdict) -> None:
    """The request was refused (or its connection ended), and the backend never heard of it."""
    expect(verdict.kind in (REFUSED, ENDED), f"it was not refused: {verdict.told}")
    # What is only found out at its end may have begun, but must not end well.
    whole = [seen for seen in verdict.reached if seen.ended and not seen.reset]
    expect(not whole, f"it reached the backend: {whole and whole[0].blocks}")
