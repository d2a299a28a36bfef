"""The stand-in: the launcher answers probes while the control process does not.

A control process that hangs, or crashes again and again, must not get a gateway restarted or taken out of a load
balancer whose workers serve. So after a moment of silence the launcher accepts on the same admin sockets, and says
what it knows: that the workers live, whether they serve, and since when the configuration is stale.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pygw.admin import AdminServer, Request, Response


@dataclass(frozen=True, slots=True)
class Standing:
    """What the launcher knows of its children."""

    has_workers: bool  # at least one that has come up
    not_ready: str  # why /readyz is 503; "": it is 200
    control_restarts: int
    silent_since: float  # when the control process was last heard, Unix time


@dataclass(slots=True)
class StandIn:
    """Serves between start() and stop(); `standing()` is asked for each answer."""

    standing: Callable[[], Standing]
    _servers: list[AdminServer] = field(default_factory=list)

    @property
    def is_serving(self) -> bool:
        """Whether it answers now."""
        return bool(self._servers)

    async def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Answer on copies of these sockets."""
        # Here and not above: a launcher that never needs it is smaller by some megabytes.
        from pygw.admin import AdminServer

        pages: dict[str, Any] = {
            "GET /healthz": self.healthz, "GET /readyz": self.readyz, "GET /metrics": self.metrics,
        }  # fmt: skip
        for sock in sockets.values():
            server = AdminServer(pages)
            self._servers.append(server)
            await server.start(sock.dup())

    async def stop(self) -> None:
        """Leave the sockets to the control process; who has asked us is answered by us."""
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.finish() for server in servers))

    async def healthz(self, request: Request) -> Response:
        """Workers live, which is what a restart of everything would end."""
        from pygw.admin import Response

        if self.standing().has_workers:
            return Response.text(200, "ok; the control process does not answer, workers serve on")
        return Response.text(503, "no worker lives, and the control process does not answer")

    async def readyz(self, request: Request) -> Response:
        """As the control process would say."""
        from pygw.admin import Response

        reason = self.standing().not_ready
        if reason:
            return Response.text(503, f"not ready: {reason}")
        return Response.text(200, "ready\nthe control process does not answer; changes of the configuration wait")

    async def metrics(self, request: Request) -> Response:
        """The few that the launcher knows; the workers' own wait for the control process."""
        from pygw.admin import Response

        standing = self.standing()
        return Response.text(
            200,
            "# TYPE pygw_ready gauge\n"
            f"pygw_ready {int(not standing.not_ready)}\n"
            "# TYPE pygw_control_restarts_total counter\n"
            f"pygw_control_restarts_total {standing.control_restarts}\n"
            "# TYPE pygw_config_stale_since_timestamp_seconds gauge\n"
            f"pygw_config_stale_since_timestamp_seconds {standing.silent_since:.3f}",
        )
