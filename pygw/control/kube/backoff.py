"""Backoff: how long to wait after a failure, growing and jittered.

Jitter is what keeps a thousand clients of a restarted API server from coming back in step.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays in seconds, from `first` doubling to `most`, each between half of it and all of it."""

    first: float = 0.2
    most: float = 30.0
    _failures: int = 0

    def next(self, at_least: float = 0.0) -> float:
        """The delay after one more failure; at least what the server asked for, where that is sane."""
        delay = min(self.most, self.first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return max(min(at_least, self.most), delay * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It worked."""
        self._failures = 0


def spread(seconds: float) -> float:
    """A period with a tenth of jitter to either side."""
    return seconds * random.uniform(0.9, 1.1)
