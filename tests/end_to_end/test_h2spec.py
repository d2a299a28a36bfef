"""h2spec, strict: every case passes and none is skipped."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.doubles.gateway import Gateway
from tests.doubles.go_tools import go_tool, run

pytestmark = [pytest.mark.full, pytest.mark.h2spec]

CASES = 146  # 145 and one that --strict adds


@pytest.mark.timeout(300)
def test_h2spec(gateway: Gateway, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    done = run(
        go_tool("h2spec"), "--strict", "--port", str(gateway.port), "--junit-report", str(report), timeout=240.0
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None or case.find("skipped") is not None
    ]
    assert not failed, "\n".join([*failed, done.stdout[-4000:]])
    assert len(cases) == CASES
    assert done.returncode == 0
