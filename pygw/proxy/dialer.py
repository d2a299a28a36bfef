"""Opens connections to endpoints: TCP connect, then TLS and the peer's SETTINGS, each within its time. No calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pygw.proxy.upstream import Upstream

logger = logging.getLogger(__name__)

# Seconds that a connection may still show itself after its time: a process that was stopped for a while hears of its
# timers before its sockets (timer_wheel.pyx).
LAST_LOOK = 0.05


class Dialer:
    """Dials for all Endpoints of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Any) -> None:
        self._loop = loop
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, endpoint: Any) -> None:
        """Open one connection; endpoint.dial_done() or dial_failed(text) tells how it went."""
        task = self._loop.create_task(self._connect(endpoint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, endpoint: Any) -> None:
        settled: asyncio.Future[Any] = self._loop.create_future()

        def on_settled(upstream: Any) -> None:
            # Before the endpoint serves its queue on this connection, so that it may dial another one.
            if upstream.failure is None:
                endpoint.dial_done()
            if not settled.done():
                settled.set_result(upstream)

        timeout = self._context.settings.connect_timeout
        try:
            await self._open(endpoint, on_settled, timeout)
        except TimeoutError:
            self._context.count_connect_timeout()
            endpoint.dial_failed(f"no TCP connection within {timeout:g} s (connect_timeout)")
            return
        except (OSError, ValueError) as error:  # ValueError, ssl.SSLError: our certificate, or a bad server name
            endpoint.dial_failed(getattr(error, "strerror", None) or str(error))
            return
        except Exception as error:
            # Whatever it is, the endpoint must hear of it: it dials once at a time.
            logger.exception("dialling failed", extra={"endpoint": endpoint.label.decode()})
            endpoint.dial_failed(str(error) or type(error).__name__)
            return
        # The wheel ends a handshake that takes too long (handshake_timeout), so this always ends.
        upstream = await settled
        if upstream.failure is not None:
            endpoint.dial_failed(upstream.failure.decode(errors="replace"))

    async def _open(self, endpoint: Any, on_settled: Callable[[Any], None], seconds: float) -> None:
        opening = self._loop.create_task(
            self._loop.create_connection(
                lambda: Upstream(self._context, endpoint, on_settled), endpoint.host, endpoint.port
            )
        )
        try:
            for patience in (seconds, LAST_LOOK):
                await asyncio.wait({opening}, timeout=patience)
                if opening.done():
                    await opening
                    return
        finally:
            opening.cancel()
        raise TimeoutError

    def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
