"""HTTPRoutes and ListenerSets through `pygw run`: another implementation of HTTP/2 at both ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from tests.doubles.backend import Backend
from tests.doubles.client import unary_unary
from tests.doubles.gateway import Gateway
from tests.doubles.raw_peers import H2Client, H2Peer, Headers, Stream, h2_server

CONFIG = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: default}
spec:
  gatewayClassName: pygw
  listeners: [{name: main, port: 80, protocol: HTTP, hostname: "*.example.com"}]
  allowedListeners: {namespaces: {from: Same}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: team, namespace: default}
spec:
  parentRef: {name: gateway}
  listeners: [{name: main, port: 80, protocol: HTTP, hostname: team.example.com}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc, namespace: default}
spec:
  parentRefs: [{name: gateway}]
  rules: [{matches: [{method: {service: shop.Orders}}], backendRefs: [{name: grpc, port: 50051}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: gateway}]
  rules:
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com, statusCode: 301}}]
  - matches: [{path: {value: /http1}}]
    backendRefs: [{name: http1, port: 50051}]
  - matches: [{path: {value: /shop}, method: GET, queryParams: [{name: beta, value: "1"}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-beta, value: "yes"}]}}]
    backendRefs: [{name: web, port: 50051}]
  - matches: [{path: {value: /shop}}]
    backendRefs: [{name: web, port: 50051}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: team, namespace: default}
spec:
  parentRefs: [{kind: ListenerSet, name: team}]
  rules: [{backendRefs: [{name: web, port: 50051}]}]
---
apiVersion: v1
kind: Service
metadata: {name: http1, namespace: default}
spec: {ports: [{port: 50051}]}
"""


def request(path: str, method: str = "GET", host: str = "web.example.com", **fields: str) -> Headers:
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", host)]
    pairs = [*pseudo, *((name.replace("_", "-"), value) for name, value in fields.items())]
    return [(name.encode(), value.encode()) for name, value in pairs]


def echo(peer: H2Peer, stream: Stream) -> None:
    """Answer with what came, or where that is long with its digest."""
    peer.read_until(lambda: stream.is_over)
    fields = stream.fields()
    if len(stream.data) > 16384:
        stream.data = hashlib.sha256(stream.data).hexdigest().encode()
    seen = fields[b":path"] + b" beta=" + fields.get(b"x-beta", b"no") + b" " + stream.data
    peer.send_headers(stream.stream_id, [(b":status", b"200"), (b"content-length", str(len(seen)).encode())])
    peer.send_data(stream.stream_id, seen, end_stream=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.yaml").write_text(CONFIG)
    with ExitStack() as stack:
        backend = stack.enter_context(Backend("grpc"))
        port = stack.enter_context(h2_server(echo))
        resolve = {"default/grpc": backend.port, "default/web": port}
        yield stack.enter_context(Gateway(folder, resolve=resolve))


@pytest.fixture
def client(served: Gateway) -> Iterator[H2Client]:
    with H2Client(served.port) as opened:
        yield opened


@pytest.mark.parametrize(
    ("path", "body", "seen"),
    [
        ("/shop/cart?x=1", b"", b"/shop/cart?x=1 beta=no "),
        ("/shop?beta=1", b"", b"/shop?beta=1 beta=yes "),
        ("/shop?beta=2&beta=1", b"", b"/shop?beta=2&beta=1 beta=no "),
        ("/shop", b"hello", b"/shop beta=no hello"),
    ],
)
def test_requests_are_relayed(client: H2Client, path: str, body: bytes, seen: bytes) -> None:
    answer = client.call(request(path, "POST" if body else "GET"), body)
    assert answer.fields()[b":status"] == b"200"
    assert answer.data == seen


def test_a_body_of_many_windows(client: H2Client) -> None:
    """Half a megabyte, eight times the first window."""
    body = bytes(range(256)) * 2048
    stream_id = client.h2.get_next_available_stream_id()
    client.send_headers(stream_id, request("/shop", "PUT"))
    left = body
    while left:
        client.read_until(lambda: client.h2.local_flow_control_window(stream_id) > 0)
        room = min(client.h2.local_flow_control_window(stream_id), 16384)
        client.send_data(stream_id, left[:room], end_stream=room >= len(left))
        left = left[room:]
    assert client.finish(stream_id).data == b"/shop beta=no " + hashlib.sha256(body).hexdigest().encode()


def test_answers_of_the_gateway_itself(client: H2Client) -> None:
    moved = client.call(request("/old?x=1"), b"").fields()
    assert (moved[b":status"], moved[b"location"]) == (b"301", b"http://new.example.com/old?x=1")
    assert client.call(request("/nowhere"), b"").fields()[b":status"] == b"404"
    assert client.call(request("/shop/../http1"), b"").fields()[b":status"] == b"404"
    assert client.call(request("/http1"), b"").fields()[b":status"] == b"502"
    assert client.call(request("/shop", host="other.org"), b"").fields()[b":status"] == b"415"


def test_a_listener_set_serves_its_own_routes_alone(client: H2Client) -> None:
    answer = client.call(request("/anything", host="team.example.com"), b"")
    assert answer.data == b"/anything beta=no "
    # GRPCRoute grpc and HTTPRoute web belong to the Gateway's listener; isolation keeps them out of this one.
    assert client.call(request("/old", host="team.example.com"), b"").data == b"/old beta=no "


def test_grpc_goes_to_its_own_route_first(served: Gateway) -> None:
    options = [("grpc.default_authority", "grpc.example.com")]
    with grpc.insecure_channel(f"127.0.0.1:{served.port}", options=options) as channel:
        assert unary_unary(channel, "shop.Orders/Get")(b"", timeout=10).endswith(b"by grpc")
        with pytest.raises(grpc.RpcError) as error:
            unary_unary(channel, "other.Service/Get")(b"", timeout=10)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_statuses_and_metrics_name_the_routes(served: Gateway, client: H2Client) -> None:
    client.call(request("/shop"), b"")
    problems = {(item["object"], item["reason"]) for item in served.admin_json("/status")["problems"]}
    assert ("HTTPRoute default/web", "UnsupportedProtocol") in problems
    served.eventually(lambda: b'route="default/web"' in served.admin("/metrics")[1], "a metric of the route")
