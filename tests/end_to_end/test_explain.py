"""`pygw explain --batch` says what the relay does: the same random requests, asked and made."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.backend import SERVED_BY
from tests.doubles.gateway import ROOT, Gateway
from tests.doubles.manifests import GATEWAY, route, to
from tests.doubles.raw_peers import GRPC_RESPONSE, Answer, H2Client, H2Peer, Stream, h2_server

SERVICES = ("a.A", "a.B", "b.A", "longer.name.of.a.Service")
METHODS = ("Get", "Set", "List")
HOSTNAMES = ("a.example.com", "*.example.com", "*.a.example.com", "example.org")
AUTHORITIES = ("a.example.com", "A.Example.COM:80", "b.example.com", "x.a.example.com", "example.org", "example.net")
HEADERS = ("x-one", "x-two")
VALUES = ("1", "2", "1,2")


def random_match(choose: random.Random) -> str:
    parts = []
    kind = choose.choice(["exact", "exact", "service", "method", "regex", "none"])
    if kind == "regex":
        service = choose.choice(["a\\\\..*", "(a|b)\\\\.A", ".*Service", "[^.]+\\\\.B"])
        parts.append(f'method: {{type: RegularExpression, service: "{service}"}}')
    elif kind != "none":
        named = [] if kind == "method" else [f"service: {choose.choice(SERVICES)}"]
        named += [] if kind == "service" else [f"method: {choose.choice(METHODS)}"]
        parts.append(f"method: {{{', '.join(named)}}}")
    names = choose.sample(HEADERS, choose.choice([0, 0, 1, 1, 2]))
    if names:
        headers = ", ".join(f'{{name: {name}, value: "{choose.choice(VALUES)}"}}' for name in names)
        parts.append(f"headers: [{headers}]")
    return f"{{{', '.join(parts)}}}"


def random_config(choose: random.Random, routes: int) -> tuple[str, list[str]]:
    """YAML, and the names of its backends: one for each rule, so that the answer tells which rule won."""
    text, backends = GATEWAY, []
    for number in range(routes):
        rules = []
        for index in range(choose.randint(1, 4)):
            backends.append(f"b-{number}-{index}")
            matches = ", ".join(random_match(choose) for _ in range(choose.randint(1, 3)))
            rules.append(to(backends[-1], matches=f"[{matches}]"))
        hostnames = choose.sample(HOSTNAMES, choose.choice([0, 1, 1, 2]))
        text += route(*rules, name=f"r-{number}", hostnames=hostnames)
    return text, backends


def random_question(choose: random.Random, number: int) -> dict[str, Any]:
    path = f"/{choose.choice([*SERVICES, 'no.Such'])}/{choose.choice([*METHODS, 'Other'])}"
    if choose.random() < 0.1:
        path = choose.choice(["/", "/a", "/a.A/Get/", "//Get", "/a.A/..", "/a.A/Get?x", "/a.A%2fGet", "/a.A/get"])
    headers = [
        [choose.choice(HEADERS), choose.choice([*VALUES, "", "3"])] for _ in range(choose.choice([0, 1, 1, 2, 3]))
    ]
    return {"id": number, "port": 80, "authority": choose.choice(AUTHORITIES), "path": path, "headers": headers}


def explain(config: Path, questions: list[dict[str, Any]], timeout: float = 60.0) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "pygw", "explain", "--batch", "-f", str(config)],
        cwd=ROOT,
        input="".join(json.dumps(question) + "\n" for question in questions),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def make(client: H2Client, question: dict[str, Any]) -> str:
    """Make the call; the backend that answered, or the grpc-status that the gateway gave."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", question["path"].encode()),
        (b":authority", question["authority"].encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *((name.encode(), value.encode()) for name, value in question["headers"]),
    ]
    answer = client.call(fields)
    if not answer.header_blocks:
        return "reject"
    got = answer.fields()
    return got.get(SERVED_BY.encode(), b"grpc-status " + got.get(b"grpc-status", b"?")).decode()


def told(answer: dict[str, Any]) -> str:
    """What explain says, in the words of `make`."""
    if answer["outcome"] == "route":
        (backend,) = answer["backends"]
        return str(backend["name"])
    return "reject" if answer["outcome"] == "reject" else f"grpc-status {answer['grpc_status']}"


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_explain_agrees_with_the_relay(seed: int, tmp_path: Path) -> None:
    choose = random.Random(seed)
    config, names = random_config(choose, routes=8)
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    questions = [random_question(choose, number) for number in range(500)]
    answers = explain(folder, questions)
    assert [answer["id"] for answer in answers] == list(range(500))

    with ExitStack() as stack:
        ports = {f"default/{name}": stack.enter_context(h2_server(names_itself(name))) for name in names}
        gateway = stack.enter_context(Gateway(folder, resolve=ports, workers=1))
        client = stack.enter_context(H2Client(gateway.port))
        made = [make(client, question) for question in questions]
    differing = [
        (question, told(answer), done)
        for question, answer, done in zip(questions, answers, made, strict=True)
        if told(answer) != done
    ]
    assert not differing, f"{len(differing)} differ: (question, explain, relay)\n" + "\n".join(map(str, differing[:5]))
    assert len(set(made)) > len(names) / 2  # the requests do reach many rules


def names_itself(name: str) -> Answer:
    def answer(peer: H2Peer, stream: Stream) -> None:
        fields = [*GRPC_RESPONSE, (SERVED_BY.encode(), name.encode()), (b"grpc-status", b"0")]
        peer.send_headers(stream.stream_id, fields, end_stream=True)

    return answer


@pytest.mark.slow
def test_100_000_requests_within_a_minute(tmp_path: Path) -> None:
    choose = random.Random(5)
    config, _ = random_config(choose, routes=50)
    (tmp_path / "config.yaml").write_text(config)
    questions = [random_question(choose, number) for number in range(100_000)]
    started = time.monotonic()
    assert len(explain(tmp_path, questions)) == 100_000
    assert time.monotonic() - started < 60.0


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GATEWAY)
    done = subprocess.run(
        [sys.executable, "-m", "pygw", "explain", "--batch", "-f", str(tmp_path)],
        cwd=ROOT,
        input='{"id": 1, "port": 80, "authority": "a", "path": "/a/b"}\nnot json\n',
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert done.returncode != 0
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["outcome"] for answer in told] == ["none", "error"]
    assert "line 2" in told[1]["message"]
