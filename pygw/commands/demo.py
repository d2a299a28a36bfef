"""`pygw demo`: example backends, a gateway in front of them, calls through it, an account of where they went."""

from __future__ import annotations

import argparse
import os
import sys

SUMMARY = "show calls being routed: example backends, a gateway in front of them, calls through it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pygw demo` to its parser."""
    parser.add_argument("--once", action="store_true", help="end after the calls instead of staying up until Ctrl-C")
    parser.epilog = (
        "Needs nothing prepared and listens on free ports of 127.0.0.1 alone. "
        "Exit code 0, or 1 if a call did not go where it should."
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    # Before grpcio is imported, or it writes to the terminal about its own starts and stops.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Here and not above: no other command should pay for importing grpcio.
    from pygw.demo.show import DemoError, show

    try:
        return show(stay=not arguments.once)
    except DemoError as error:
        print(f"pygw demo: {error}", file=sys.stderr)
        return 1
