"""The demo as a whole: backends up, gateway up, the tour, then the stay until Ctrl-C."""

from __future__ import annotations

import importlib.resources
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from pygw.demo.backend import ExampleBackend
from pygw.demo.gateway import GatewayProcess
from pygw.demo.tour import Tour
from pygw.errors import StartError

BACKEND_NAMES = ("greeter-v1", "greeter-v2")
WATCH_INTERVAL = 0.2  # seconds between looks at whether the gateway still runs


def show(stay: bool) -> int:
    """Run the demo, up to Ctrl-C with `stay`; return the exit code. Raises StartError with text for the user."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            return _show(stack, stay)
    except KeyboardInterrupt:
        _say("\nStopped.")
        return 0


def _show(stack: ExitStack, stay: bool) -> int:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pygw-demo-")))
    config = _copy_of_config(folder)
    backends = [stack.enter_context(ExampleBackend(name)) for name in BACKEND_NAMES]
    for backend in backends:
        _say(f"backend {backend.name} on 127.0.0.1:{backend.port}")
    resolve = [f"demo/{backend.name}:50051=127.0.0.1:{backend.port}" for backend in backends]
    gateway = stack.enter_context(GatewayProcess(config, folder / "gateway.log", resolve))
    _say(f"gateway on 127.0.0.1:{gateway.port}, admin on http://127.0.0.1:{gateway.admin_port}, routes in {config}\n")

    wrong = Tour(gateway.port, _say).run()
    if wrong:
        _say(f"\n{wrong} of these did not go where they should; the gateway said:\n{gateway.last_log_lines()}")
    else:
        _say("\nEvery call went where the routes say.")
    if stay:
        _say(_what_to_try(gateway.port, gateway.admin_port, config))
        while not gateway.has_ended:
            time.sleep(WATCH_INTERVAL)
        raise StartError("the gateway ended; it said:\n" + gateway.last_log_lines())
    return 1 if wrong else 0


def _copy_of_config(folder: Path) -> Path:
    """The demo's YAML in a folder of its own, so that a user can edit it and watch the change being served."""
    config = folder / "config" / "gateway.yaml"
    config.parent.mkdir()
    config.write_bytes(importlib.resources.files("pygw.demo").joinpath("gateway.yaml").read_bytes())
    return config


def _what_to_try(port: int, admin_port: int, config: Path) -> str:
    return f"""
Try it yourself (grpcurl: https://github.com/fullstorydev/grpcurl):
  grpcurl -plaintext 127.0.0.1:{port} list
  grpcurl -plaintext -d '{{"name": "World"}}' 127.0.0.1:{port} helloworld.Greeter/SayHello
  grpcurl -plaintext -d '{{"name": "World"}}' -H 'x-canary: true' 127.0.0.1:{port} helloworld.Greeter/SayHello
Ask why a call goes where it goes, and what was counted:
  pygw explain --admin http://127.0.0.1:{admin_port} --port 80 --authority 127.0.0.1 --path /helloworld.Greeter/SayHello
  curl http://127.0.0.1:{admin_port}/metrics
Change the weights in {config} and call again: the change is served at once.

Ctrl-C stops everything."""


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does, so that no process of it is left behind."""
    raise KeyboardInterrupt


def _say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)
