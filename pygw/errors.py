"""Errors whose text is meant for the user: one clear line that says what is wrong and what to do.

The command line prints them without a traceback and exits with `exit_code`. A fault of the configuration is
data (a Problem, a Condition), never an exception; protocol errors live in http2. Imports nothing of pygw.
"""

from __future__ import annotations


class PygwError(Exception):
    """Something that the user can mend; str() is the whole message."""

    exit_code = 1


class UsageError(PygwError):
    """Unusable arguments or environment variables."""

    exit_code = 2


class StartError(PygwError):
    """The gateway cannot start: a port is taken, no valid Gateway, workers that do not come up."""
