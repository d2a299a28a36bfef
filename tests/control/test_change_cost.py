"""What a change costs, counted: documents that are parsed, routes that are compiled, references that are judged.

Times are in bench/reload.py. Counts hold on every machine.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.reload import RULES_PER_FILE, Folder
from pygw.control import backends, controller, resolve, yaml_source
from pygw.control.resolve import Resolution, ResolveOptions
from pygw.control.yaml_source import YamlSource

FILES, SERVICES = 30, 3


class Counts:
    """How often functions were called since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._calls: dict[str, int] = {}

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            self._calls[name] = self._calls.get(name, 0) + 1
            return function(*arguments, **options)

        return counting

    def taken(self) -> dict[str, int]:
        taken, self._calls = self._calls, {}
        return taken


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts(monkeypatch)
    monkeypatch.setattr(yaml_source, "parse_document", found.wrap("parsed", yaml_source.parse_document))
    compilers = {kind: found.wrap("compiled", function) for kind, function in resolve.COMPILERS.items()}
    monkeypatch.setattr(resolve, "COMPILERS", compilers)
    monkeypatch.setattr(backends.Targets, "_judge", found.wrap("judged", backends.Targets._judge))
    monkeypatch.setattr(resolve, "backend_of", found.wrap("backends", resolve.backend_of))
    return found


def test_a_change_costs_what_it_touches(tmp_path: Path, counts: Counts) -> None:
    folder = Folder(tmp_path, 1, FILES, SERVICES)
    source = YamlSource([str(tmp_path)])
    previous: Resolution | None = None

    def cycle() -> dict[str, int]:
        nonlocal previous
        previous = resolve.resolve(source.read().state, ResolveOptions(previous=previous))
        assert len(previous.config.routes) == FILES + 1
        assert len(previous.config.routes["GRPCRoute/default/route-0"].rules) == RULES_PER_FILE
        return counts.taken()

    # The Gateway, a Service and an EndpointSlice each, the victim's route; hundreds of rules, three Services.
    documents = FILES + 2 * SERVICES + 2
    assert cycle() == {"parsed": documents, "compiled": FILES + 1, "judged": SERVICES, "backends": SERVICES}
    assert cycle() == {}
    folder.change(range(7, 8))
    assert cycle() == {"parsed": 1, "compiled": 1, "judged": 1}
    folder.change(range(FILES))
    assert cycle() == {"parsed": FILES, "compiled": FILES, "judged": SERVICES}


def test_the_garbage_collector_rests_while_a_cycle_runs_and_works_after_one_that_broke() -> None:
    assert gc.isenabled()
    seen = []

    def break_in_a_cycle() -> None:
        with controller._collector_at_rest():
            seen.append(gc.isenabled())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_in_a_cycle()
    assert seen == [False]
    assert gc.isenabled()
