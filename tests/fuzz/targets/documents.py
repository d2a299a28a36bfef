"""The YAML loader, and what is made of what it accepts: any text as standard input.

Nothing is raised, whatever stands there. Every problem has its place in the text; every accepted object can be
located; read again, nothing has changed. What is accepted resolves to a configuration, and that to an image.
"""

from __future__ import annotations

import io
from pathlib import Path

from pygw.control.problems import object_name
from pygw.control.resolve import ResolveOptions, resolve
from pygw.control.yaml_source import LoadResult, YamlSource
from pygw.tables import compile_image

_DATA = Path(__file__).parents[2] / "data"
_GATEWAY = b"""apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: &a b}
spec: {gatewayClassName: c, listeners: [{name: l, port: 80, protocol: HTTP}]}
"""
_EXAMPLES = Path(__file__).parents[3] / "examples"
SEEDS = (
    *((_EXAMPLES / "gateway.yaml").read_bytes() + b"---\n" + path.read_bytes()
      for path in sorted(_EXAMPLES.rglob("*.yaml")) if path.name != "services.yaml"),
    (_DATA / "yaml" / "good.yaml").read_bytes(),
    (_DATA / "yaml" / "bad_route.yaml").read_bytes(),
    _GATEWAY + b"---\n# nothing\n---\n" + _GATEWAY.replace(b"gw", b"*a"),
    b"%YAML 1.1\n---\nkind: List\nitems: [{<<: {apiVersion: v1}, kind: Service, metadata: {name: s}}]\n...\n",
    b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: !!binary YQ==, b: ! x}\ndata: {c: YQ==}\n",
    b"{\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\t\"metadata\": {\"name\": \"n\", \"labels\": {\"a\": 1.5}}}",
    b"a: &x [*x, 0o17, 0x_1, 1:30, 2001-01-01, .inf, 1_0e3, ~, yes]\n"
    b"b: |2-\n   x\n<<: [*x]\n? !!set {a}\n: \"\\x41\\u263a\"\n",
)  # fmt: skip
WORDS = (
    b"apiVersion: ", b"kind: ", b"metadata: ", b"name: ", b"namespace: ", b"spec: ", b"items:", b"List", b"\n---\n",
    b"\n...\n", b"gateway.networking.k8s.io/v1", b"GRPCRoute", b"HTTPRoute", b"Gateway", b"ReferenceGrant", b"Service",
    b"EndpointSlice", b"Secret", b"ConfigMap", b"backendRefs: ", b"matches: ", b"filters: ", b"rules: ", b"!!binary ",
    b"!!int ", b"!!float ", b"<<: ", b"&a ", b"*a", b"? ", b"|+\n", b">-\n", b"%YAML 1.1\n", b"\xef\xbb\xbf", b"\t",
    b"\xe2\x80\xa8", b"\xc2\x85", b"\xed\xa0\x80", b"\\ud800", b"1e400", b"0b1", b"-0x1", b"null", b"\0", b"\r\n",
)  # fmt: skip


def check(data: bytes) -> None:
    """See the module."""
    source = YamlSource(["-"], io.BytesIO(data))
    result = source.read()
    check_problems(result, data)
    for kind in result.state.kinds():
        for namespace, name in result.state.objects(kind):
            _, line = source.locate(object_name(kind, namespace, name), "spec.rules[0].matches")
            assert 1 <= line <= lines_of(data)
    again = source.read()
    assert again.problems == result.problems
    assert not again.changed
    resolution = resolve(result.state, ResolveOptions())
    for problem in map(source.place, resolution.problems):
        assert 0 <= problem.line <= lines_of(data), problem
    compile_image(resolution.config)


def check_problems(result: LoadResult, data: bytes) -> None:
    """Each problem says where it is."""
    for problem in result.problems:
        assert problem.severity in ("error", "warning"), problem
        assert problem.file == "<stdin>", problem
        assert 1 <= problem.line <= lines_of(data), problem
        assert problem.reason, problem
        assert problem.message, problem


def lines_of(data: bytes) -> int:
    """How many lines an editor shows."""
    return data.count(b"\n") + 1
