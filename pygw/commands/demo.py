"""`pygw demo`: example backends, a gateway in front of them, calls through it, an account of where they went."""

from __future__ import annotations

import argparse
import os

EPILOG = """\
Needs nothing prepared and listens on free ports of 127.0.0.1 alone.

exit codes:
  0   every call went where the routes say
  1   one did not, or the gateway did not start
  2   unusable arguments
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pygw demo` to its parser."""
    parser.add_argument("--once", action="store_true", help="end after the calls instead of staying up until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    # Before grpcio is imported, or it writes to the terminal about its own starts and stops.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Here and not above: no other command should pay for importing grpcio.
    from pygw.demo.show import show

    return show(stay=not arguments.once)
