from typing import Any

BOUNDS: tuple[float, ...]
"""Upper bounds of the duration histogram in seconds; +Inf follows."""

LIMITS: tuple[str, ...]
"""Values of the label `limit`."""

HELP: dict[str, tuple[str, str]]
"""Every metric's name: (Prometheus type, help)."""

class CallMetrics:
    """The series of one worker's calls, at most about twice `max_series` of them whatever peers send."""

    max_series: int
    series_count: int
    other_count: int
    overflow_lookups: int
    def __init__(self, max_series: int) -> None: ...
    def collect(self) -> dict[str, Any]:
        """{"counters": [[name, {label: value}, number]...], "histograms": [[name, labels, bounds, counts, sum]...]}.

        A histogram's counts are one for each bound and one for +Inf, not cumulative; its sum is in seconds.
        """

def record_call(
    metrics: CallMetrics,
    path: bytes,
    route: bytes = b"",
    backend: bytes = b"",
    grpc_status: int = 0,
    duration_us: int = 0,
    ended: bool = True,
    received: int = 0,
    sent: int = 0,
    requests: int = 0,
    responses: int = 0,
) -> int:
    """Counts one call as the relay does and returns the address of its series."""

def count_everything() -> list[list[Any]]:
    """The rows of a RelayCounters that holds 1, 2, 3... in the order of its fields."""

def measure_series(metrics: CallMetrics, path: bytes, rounds: int) -> None:
    """Looks one series up `rounds` times, for benchmarks."""
