"""How long other proxies take until 10,000 changed rules are served, each in the way that its documentation names.

nginx: a signal to reload (https://nginx.org/en/docs/control.html, HUP). HAProxy: SIGUSR2 to the master of `-W`
(https://docs.haproxy.org/2.8/management.html, section 3). Envoy: its routes in a file of their own that is moved into
place (RDS by path_config_source; "Configuration: Dynamic from filesystem" in the quick start of its documentation,
https://www.envoyproxy.io/docs/envoy/latest/start/quick-start/configuration-dynamic-filesystem).
All files are written before the clock starts, as with pygw. A change is served when so many new connections in
a row get a call for the last rule through: nginx and HAProxy leave connections that exist to the old process.
"""

from __future__ import annotations

import dataclasses
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.caller import Caller, CallError
from bench.processes import BenchError, Placement, descendants, start_program
from bench.proxies import Variant, configure, start
from bench.rules import HOST, Rules

PEERS = ("nginx", "haproxy", "envoy")
SIGNALS = {"nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}  # Envoy watches its file
IN_A_ROW = 8
POLL = 0.002  # seconds
PATIENCE = 60.0  # seconds


def measure_peers(peers: Sequence[str], rules: int, changes: int) -> dict[str, list[float]]:
    """Seconds from each change of all rules to its being served."""
    with tempfile.TemporaryDirectory(prefix="pygw-reload-") as name:
        folder = Path(name)
        backend = start_program("backend", [], None, folder / "backend.log")
        try:
            return {peer: _measure(peer, rules, changes, backend.port, folder / peer) for peer in peers}
        finally:
            backend.stop()


def _measure(peer: str, count: int, changes: int, backend: int, folder: Path) -> list[float]:
    variant = Variant(peer, Rules("exact", count), reloads=True)
    proxy = start(variant, backend, folder, Placement(None, None))
    found = []
    try:
        if not _is_served(proxy.port, variant.rules):
            raise BenchError(f"{peer} does not serve the rules that it was started with")
        for edition in range(1, changes + 1):
            rules = dataclasses.replace(variant.rules, edition=edition)
            configure(dataclasses.replace(variant, rules=rules), proxy.port, proxy.admin, backend, folder)
            replaced = set(descendants(proxy.process.pid)) if peer in SIGNALS else set()
            begun = time.monotonic()
            if peer in SIGNALS:
                proxy.process.send_signal(SIGNALS[peer])
            else:
                (folder / "routes.yaml.new").rename(folder / "routes.yaml")
            _wait_until_served(proxy.port, rules, peer)
            found.append(round(time.monotonic() - begun, 3))
            _wait_until_ended(proxy.process.pid, replaced, peer)
        return found
    finally:
        proxy.stop()


def _wait_until_ended(master: int, replaced: set[int], peer: str) -> None:
    """Until the processes that served before are gone: the next change would compete with them."""
    deadline = time.monotonic() + PATIENCE
    while replaced & set(descendants(master)):
        if time.monotonic() > deadline:
            raise BenchError(f"{peer} does not end the processes that it has replaced")
        time.sleep(POLL)  # they are not our children: /proc is all that tells


def _wait_until_served(port: int, rules: Rules, peer: str) -> None:
    deadline = time.monotonic() + PATIENCE
    row = 0
    while row < IN_A_ROW:
        if time.monotonic() > deadline:
            raise BenchError(f"{peer} does not serve the change")
        row = row + 1 if _is_served(port, rules) else 0
        time.sleep(0 if row else POLL)  # only a call shows what is served


def _is_served(port: int, rules: Rules) -> bool:
    """Whether a new connection gets a call for the last rule through."""
    last = rules.count - 1
    try:
        caller = Caller(port)
    except OSError:
        return False
    try:
        return caller.call(HOST, rules.path(last), *rules.fields(last))
    except (CallError, OSError):  # the process that listens ended in between
        return False
    finally:
        caller.close()
