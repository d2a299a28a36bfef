"""The rig's own parts that need no rig: what it says where it cannot run, what it reads and rewrites."""

from __future__ import annotations

from pathlib import Path

import pytest

from pygw.errors import UsageError
from tests.conformance.rig import suite, tools
from tests.conformance.rig.rest import path_of, path_of_object
from tests.conformance.rig.volumes import expanded, moved

LOG = """
=== RUN   TestConformance/GRPCRouteWeight
    --- PASS: TestConformance/GRPCRouteWeight (2.15s)
        --- FAIL: TestConformance/GRPCRouteWeight/inner (0.15s)
    --- FAIL: TestConformance/GatewayModifyListeners (30.00s)
    --- SKIP: TestConformance/GatewayStaticAddresses (0.00s)
    --- PASS: TestConformance/GRPCRouteNamedRule (0.40s)
--- FAIL: TestConformance (40.00s)
"""


def outcome(tmp_path: Path) -> suite.Outcome:
    counted = {
        "GRPCRouteWeight": {suite.PROFILE: "core"},
        "GatewayModifyListeners": {suite.PROFILE: "core", "GATEWAY-HTTP": "core"},
        "GatewayStaticAddresses": {suite.PROFILE: "extended"},
        "GRPCRouteNamedRule": {},
        "HTTPRouteSimple": {"GATEWAY-HTTP": "core"},
    }
    return suite.Outcome(1, 40.0, tmp_path / "log", tmp_path / "report", counted, suite.results_in(LOG))


def test_results_are_counted_by_top_level_test(tmp_path: Path) -> None:
    ended = outcome(tmp_path)
    assert ended.passed("core") == 1
    assert ended.of_kind("core") == ["GRPCRouteWeight", "GatewayModifyListeners"]
    assert ended.failures() == ["GatewayModifyListeners"]
    assert ended.not_run() == ["GatewayStaticAddresses"]


def test_summary_says_what_failed_and_what_was_left_out(tmp_path: Path) -> None:
    assert outcome(tmp_path).summary().splitlines() == [
        "GATEWAY-GRPC: core 1/2, extended 0/1, 40.0 s",
        "  passed beside the profile: GRPCRouteNamedRule",
        "  not run (feature not claimed): GatewayStaticAddresses",
        "  FAILED: GatewayModifyListeners",
    ]


def test_a_suite_that_did_not_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("panic: no cluster\n")
    ended = suite.Outcome(2, 0.1, tmp_path / "log", tmp_path / "report", {})
    assert "panic: no cluster" in ended.summary()


@pytest.mark.parametrize(
    ("kind", "name", "namespace", "path"),
    [
        ("Pod", "", "", "/api/v1/pods"),
        ("Pod", "p", "n", "/api/v1/namespaces/n/pods/p"),
        ("Namespace", "n", "ignored", "/api/v1/namespaces/n"),
        ("GRPCRoute", "", "n", "/apis/gateway.networking.k8s.io/v1/namespaces/n/grpcroutes"),
        ("BackendTLSPolicy", "p", "n", "/apis/gateway.networking.k8s.io/v1/namespaces/n/backendtlspolicies/p"),
        ("GatewayClass", "c", "", "/apis/gateway.networking.k8s.io/v1/gatewayclasses/c"),
    ],
)
def test_paths(kind: str, name: str, namespace: str, path: str) -> None:
    assert path_of(kind, name, namespace) == path


def test_path_of_object() -> None:
    item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    assert path_of_object(item) == "/apis/apps/v1/namespaces/default/deployments/d"


def test_paths_of_volumes_are_moved() -> None:
    mounts = {"/etc/tls": Path("/run/a"), "/etc/tls/client/": Path("/run/b")}
    text = "--cert=/etc/tls/tls.crt --client '/etc/tls/client/ca.crt' /etc/tlsx /etc/tls"
    assert moved(text, mounts) == "--cert=/run/a/tls.crt --client '/run/b/ca.crt' /etc/tlsx /run/a"


def test_variables_are_expanded_where_known() -> None:
    assert expanded("$(NAME)-$(OTHER)-$NAME", {"NAME": "pod"}) == "pod-$(OTHER)-$NAME"


def test_without_root_or_programs_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    lacks = "\n".join(tools.missing())
    assert "ip is not on the PATH" in lacks
    assert "openssl is not on the PATH" in lacks
    assert "not root" in lacks
    assert "Go 1." in tools.go_is_missing()


def test_an_old_go_is_not_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\necho go1.19.2\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert "go1.19.2 is there" in tools.go_is_missing()


def test_a_program_that_is_not_built_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONFORMANCE_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"bin/kubebox is not there: python -m tests\.conformance build"):
        tools.program("kubebox")
