"""RegularExpression as pygw understands it: RE2 syntax, a full match, time linear in the input.

The one place that knows which library does it (google-re2, the binding that RE2's authors maintain). The control plane
asks check() before it serves a pattern; the matcher compiles it once for each worker, on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def _library() -> tuple[Any, Any]:
    # Imported late: a gateway without regexes does not pay for it.
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True  # only "does it match?" is asked
    return re2, options


def check(pattern: str) -> str | None:
    """Why this is not a regular expression of RE2 syntax; None where it is one."""
    try:
        matcher(pattern.encode())
    except ValueError as error:
        return str(error)
    return None


def matcher(pattern: bytes) -> Callable[[bytes], Any]:
    """A function that is true where all of its argument matches. Raises ValueError for an invalid pattern.

    The pattern is compiled on its own and both ends anchored by the engine, so alternatives need no grouping: "a|b" is
    (?:a|b), and "a)(b" is refused although "(?:a)(b)" would pass.
    """
    re2, options = _library()
    # Not re2.compile(): its cache of 128 would keep patterns that no configuration has any more.
    try:
        compiled = re2._Regexp(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "invalid regular expression"
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
    match: Callable[[bytes], Any] = compiled.fullmatch
    return match
