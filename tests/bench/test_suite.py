"""The parts of the benchmark suite: arguments, rules, what h2load says; and one short run of the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.__main__ import chosen_scenarios, is_late, parse_arguments
from bench.builds import build_ghz
from bench.caller import request_message
from bench.ghz import field_message, parse_ghz
from bench.measure import parse_h2load, reload_samples
from bench.processes import BenchError, NotMeasurableError
from bench.proxies import Variant, configure
from bench.rules import Rules, envoy_routes, haproxy_map, nginx_map, pygw_files
from bench.scenarios import SCENARIOS
from bench.workers import measure_workers

ROOT = Path(__file__).parents[2]
H2LOAD = """
finished in 250.00ms, 8000.00 req/s, 1.00MB/s
requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 112.45KB (115147) total, 21.55KB (22067) headers (space savings 90.38%), 41.02KB (42000) data
"""
LOG = "1700000000000000\t200\t100\n" * 1000 + "1700000000000000\t200\t300\n" * 1000


def test_h2load_s_figures() -> None:
    figures = parse_h2load(H2LOAD, LOG, 2000, 16)
    assert figures == {"calls": 2000, "seconds": 0.25, "p50_us": 100, "p99_us": 300, "p999_us": 300}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (H2LOAD.replace("2000 succeeded, 0 failed", "1999 succeeded, 1 failed"), "1999 succeeded, 1 failed"),
        (H2LOAD.replace("(42000) data", "(41979) data"), "41979 octets"),
        ("Segmentation fault", "cannot read"),
    ],
)
def test_a_bad_answer_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse_h2load(text, LOG, 2000, 16)


def test_a_request_message_has_prefix_order_and_pattern() -> None:
    message = request_message(16, 1024)
    assert message[:13] == b"\0" + (16).to_bytes(4) + (1024).to_bytes(4) + (1).to_bytes(4)
    assert len(message) == 21
    assert message[13:15] == bytes([13 * 131 & 255, 14 * 131 & 255])


def test_a_message_of_ghz_is_protobuf_with_the_order_in_its_field() -> None:
    message = field_message(16, 16)
    assert len(message) == 16
    assert message[:2] == bytes([1 << 3 | 2, 14])  # field 1, length-delimited; its octets
    assert message[2:8] == (16).to_bytes(2) + (1).to_bytes(4)
    assert message[8:] == request_message(16, 16)[13:]
    with pytest.raises(ValueError, match="8 to 129 octets"):
        field_message(1024, 16)


def test_ghz_s_figures() -> None:
    details = [{"latency": 100_000}, {"latency": 300_000}]
    report = {"statusCodeDistribution": {"OK": 2}, "details": details, "total": 500_000_000}
    assert parse_ghz(json.dumps(report), 2) == {
        "calls": 2, "seconds": 0.5, "p50_us": 100, "p99_us": 100, "p999_us": 100,
    }
    with pytest.raises(BenchError, match="Unavailable"):
        parse_ghz(json.dumps(report | {"statusCodeDistribution": {"OK": 1, "Unavailable": 1}}), 2)
    with pytest.raises(BenchError, match="cannot read"):
        parse_ghz("panic", 2)


def test_what_cannot_be_built_has_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.builds.GHZ", tmp_path / "ghz")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_ghz() == "there is no go on the PATH to build it: install Go from https://go.dev/dl/"


@pytest.mark.parametrize("kind", ["exact", "headers", "regex"])
def test_rules_are_valid_yaml_of_at_most_16_a_route(kind: str) -> None:
    routes = [yaml.safe_load(text) for _, text in pygw_files(Rules(kind, 40))]
    assert [len(route["spec"]["rules"]) for route in routes] == [16, 16, 8]
    assert len({route["metadata"]["name"] for route in routes}) == 3
    assert len(yaml.safe_load(envoy_routes(Rules(kind, 40)))) == 40


def test_rules_in_maps_have_their_host_method_and_header() -> None:
    assert nginx_map(Rules("exact", 2)).split() == [
        '"bench.example.com|/bench.S0/Call|r0"', "backend;", '"bench.example.com|/bench.S1/Call|r1"', "backend;",
    ]
    assert haproxy_map(Rules("exact", 1)) == "bench.example.com/bench.S0/Call|r0 backend\n"


def test_each_edition_of_the_rules_has_other_methods() -> None:
    assert [Rules("exact", 2, edition).path(1) for edition in (0, 1, 2)] == [
        "/bench.S1/Call", "/bench.S1/Call1", "/bench.S1/Call2",
    ]
    assert Rules().path(0) == "/bench.Echo/Call"


def test_envoy_s_routes_from_a_file_are_those_of_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.proxies.find_program", lambda name: name)
    rules = Rules("exact", 3)
    hosts = []
    for reloads in (False, True):
        configure(Variant("envoy", rules, reloads=reloads), 1, 2, 3, tmp_path)
        document = yaml.safe_load((tmp_path / "envoy.yaml").read_text())
        chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
        manager = chain["filters"][0]["typed_config"]
        if reloads:
            assert manager["rds"]["config_source"]["path_config_source"]["path"] == str(tmp_path / "routes.yaml")
            [resource] = yaml.safe_load((tmp_path / "routes.yaml.new").read_text())["resources"]
            hosts.append(resource["virtual_hosts"])
        else:
            hosts.append(manager["route_config"]["virtual_hosts"])
    assert hosts[0] == hosts[1]
    assert len(hosts[0][0]["routes"]) == 3


def test_the_quick_choice_is_part_of_the_full_one() -> None:
    quick, full = (chosen_scenarios(parse_arguments(options)) for options in ([], ["--full"]))
    assert len(quick) < len(full) == len(SCENARIOS)
    assert {scenario.name for scenario in quick} <= {scenario.name for scenario in full}


def test_only_and_rounds() -> None:
    chosen = chosen_scenarios(parse_arguments(["--only", "unary-16b-8x*,metadata", "--rounds", "7"]))
    assert [scenario.name for scenario in chosen] == ["unary-16b-8x1", "unary-16b-8x10", "metadata"]
    assert {scenario.rounds for scenario in chosen} == {7}


def test_a_late_run_hurries_unless_rounds_were_asked_for() -> None:
    quick, full, asked = (parse_arguments(options) for options in ([], ["--full"], ["--rounds", "9"]))
    assert is_late(quick, 301)
    assert not is_late(quick, 299)
    assert not is_late(full, 899)
    assert is_late(full, 901)
    assert not is_late(asked, 9999)
    assert is_late(parse_arguments(["--rounds", "9", "--minutes", "1"]), 61)


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--peers", "apache"], ["--rounds", "0"]])
def test_unusable_arguments(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(options)
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_figures_of_a_change_of_configuration() -> None:
    changes = {
        "one_file": {"served": [0.2, 0.3], "applied": [0.035, 0.04]},
        "all_files": {"served": [2.0, 3.0], "applied": [0.35, 0.45]},
        "victim_us": {"quiet": {"worst": 900}, "one_file": {"worst": 4000}, "all_files": {"worst": 7000}},
    }
    first, second = reload_samples(changes)
    assert first == {
        "one_file_s": 0.2, "all_files_s": 2.0, "one_object_s": 0.035, "all_objects_s": 0.35, "pause_ms": 7.0,
        "quiet_pause_ms": 0.9,
    }
    assert second == first | {"one_file_s": 0.3, "all_files_s": 3.0, "one_object_s": 0.04, "all_objects_s": 0.45}


def test_two_workers_need_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    with pytest.raises(NotMeasurableError, match="needs 4 cores, this machine has 3"):
        measure_workers(1, 0.1)


@pytest.mark.slow
def test_a_short_run_beside_the_raw_relay(tmp_path: Path) -> None:
    only = "unary-16b-8x10,unary-64kib-8x10,metadata,server-streaming,ping-pong,download,upload,latency,fairness"
    command = [sys.executable, "-m", "bench", "--smoke", "--only", only, "--peers", "tcp", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "16 B unary, 8 x 10 | not measured: left out by --peers" in done.stdout
    [samples] = tmp_path.glob("*.json")
    results = json.loads(samples.read_text())["results"]
    assert set(results) == set(only.split(","))
    assert all(set(by_proxy) == {"tcp", "pygw"} for by_proxy in results.values())


def test_another_build_is_measured_behind_each_of_ours(tmp_path: Path) -> None:
    (tmp_path / "pygw").mkdir()
    (tmp_path / "pygw" / "__init__.py").touch()
    plain, beside = (
        chosen_scenarios(parse_arguments(["--only", "rules-exact,metadata", *options]))
        for options in ([], ["--beside", str(tmp_path)])
    )
    assert [scenario.proxies for scenario in plain] == [
        scenario.proxies for scenario in SCENARIOS if scenario.name in ("rules-exact", "metadata")
    ]
    assert [variant.label for variant in beside[0].variants()][:3] == ["tcp", "pygw", f"pygw, {tmp_path}"]
    assert len(beside[1].proxies) == 2 * len(plain[1].proxies)
