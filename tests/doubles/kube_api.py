"""A Kubernetes API server as far as pygw talks to one: real HTTP on loopback, objects in memory, faults on demand.

List with pages and selectors, watch with bookmarks and a history that can be compacted, resourceVersions that conflict,
the status subresource, merge patch and (as a mere replacement of what it names) server-side apply. It validates
nothing; tests/conformance has the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from pygw.control.kube.api import Api

GATEWAY_GROUP = "gateway.networking.k8s.io"
Object = dict[str, Any]

CUSTOM = ("gatewayclasses", "gateways", "grpcroutes", "httproutes", "listenersets", "backendtlspolicies",
          "referencegrants")  # fmt: skip
BUILT_IN = {
    ("", "v1"): ("namespaces", "services", "secrets", "configmaps", "serviceaccounts", "pods"),
    ("discovery.k8s.io", "v1"): ("endpointslices",),
    ("coordination.k8s.io", "v1"): ("leases",),
    ("events.k8s.io", "v1"): ("events",),
    ("apiextensions.k8s.io", "v1"): ("customresourcedefinitions",),
}
KINDS = {
    "gatewayclasses": "GatewayClass", "gateways": "Gateway", "grpcroutes": "GRPCRoute", "httproutes": "HTTPRoute",
    "listenersets": "ListenerSet", "backendtlspolicies": "BackendTLSPolicy", "referencegrants": "ReferenceGrant",
    "namespaces": "Namespace", "services": "Service", "secrets": "Secret", "configmaps": "ConfigMap",
    "serviceaccounts": "ServiceAccount", "pods": "Pod", "endpointslices": "EndpointSlice", "leases": "Lease",
    "events": "Event", "customresourcedefinitions": "CustomResourceDefinition",
}  # fmt: skip
PLURALS = {kind: plural for plural, kind in KINDS.items()}


@dataclass
class Fault:
    """An answer other than the right one, for requests that fit, so many times (None: always)."""

    status: int
    method: str
    path: str
    times: int | None
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class Watcher:
    """One open watch."""

    plural: str
    fits: Callable[[Object], bool]
    queue: asyncio.Queue[Object | str] = field(default_factory=asyncio.Queue)


class KubeApi:
    """`async with KubeApi() as api`; then `api.url`."""

    def __init__(self) -> None:
        self.served = {place: list(plurals) for place, plurals in BUILT_IN.items()}
        self.served[GATEWAY_GROUP, "v1"] = list(CUSTOM)
        self.objects: dict[str, dict[tuple[str, str], Object]] = {plural: {} for plural in KINDS}
        self.requests: list[Seen] = []
        self.faults: list[Fault] = []
        self.watchers: list[Watcher] = []
        self.token = ""  # what a request must bear; "": anything
        self.largest_page = 10_000
        self.on_request: Callable[[Seen], None] = lambda seen: None
        self.port = 0
        self._version = 100
        self._history: list[tuple[int, str, Object]] = []  # version, plural, event
        self._oldest = 0
        self._runner: web.AppRunner | None = None
        self.install_bundle("v1.6.1")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> KubeApi:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of before where there was one."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and end every connection; the objects stay."""
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ===== what a test does =====

    def put(self, item: Object) -> Object:
        """Create or replace an object, as `kubectl apply` would."""
        plural = PLURALS[item["kind"]]
        key = _key(item)
        old = self.objects[plural].get(key)
        new = copy.deepcopy(item)
        metadata = new["metadata"]
        metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self._version}")
        metadata.setdefault("creationTimestamp", "2024-01-01T00:00:00Z")
        generation = old["metadata"].get("generation", 1) if old else 1
        if old is not None and old.get("spec") != new.get("spec"):
            generation += 1
        metadata.setdefault("generation", generation)
        metadata["managedFields"] = [{"manager": "test", "fieldsV1": {"f:spec": {}}}]
        if old is not None and "status" in old and "status" not in new:
            new["status"] = old["status"]
        return self._store(plural, key, new, "MODIFIED" if old else "ADDED")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object."""
        gone = self.objects[PLURALS[kind]].pop((namespace, name))
        self._store(PLURALS[kind], None, gone, "DELETED")

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """An object as it is now."""
        return self.objects[PLURALS[kind]][namespace, name]

    def refuse(
        self, status: int, *, method: str = "", path: str = "", times: int | None = None, body: bytes | None = None,
        reason: str = "Refused", **headers: str,
    ) -> Fault:  # fmt: skip
        """Answer so to requests whose path contains `path`; pass the Fault to mend()."""
        if body is None:
            body = _status(status, reason, f"told to say {status}")
        fault = Fault(status, method, path, times, body, {k.replace("_", "-"): v for k, v in headers.items()})
        self.faults.append(fault)
        return fault

    def mend(self, fault: Fault) -> None:
        """Undo refuse()."""
        self.faults.remove(fault)

    def install(self, *plurals: str, group: str = GATEWAY_GROUP, version: str = "v1") -> None:
        """Serve these resources."""
        self.served.setdefault((group, version), []).extend(plurals)

    def uninstall(self, *plurals: str, group: str = GATEWAY_GROUP, version: str = "v1") -> None:
        """Serve them no longer; the last one takes the version with it."""
        for plural in plurals:
            self.served[group, version].remove(plural)
        if not self.served[group, version]:
            del self.served[group, version]

    def install_bundle(self, version: str) -> None:
        """The definition of GatewayClass says that it is of this version of the Gateway API."""
        name, annotation = f"gatewayclasses.{GATEWAY_GROUP}", f"{GATEWAY_GROUP}/bundle-version"
        metadata = {"name": name, "annotations": {annotation: version, "other": "x"}}
        self.put({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata})

    def compact(self) -> None:
        """Forget the history: no watch can be resumed from before now."""
        self._history.clear()
        self._oldest = self._version

    def end_watches(self) -> None:
        """End every watch as the server does when its time is up."""
        self._tell_watchers("end")

    def expire_watches(self) -> None:
        """End every watch, and none can be resumed: 410."""
        self._version += 1
        self.compact()
        self.end_watches()

    def cut_watches(self) -> None:
        """End every watch amid an event."""
        self._tell_watchers("cut")

    def send_to_watches(self, event: Object, plural: str = "") -> None:
        """Send an event of the test's own."""
        for watcher in self.watchers:
            if plural in ("", watcher.plural):
                watcher.queue.put_nowait(event)

    def bookmark(self, plural: str = "") -> None:
        """Send a bookmark for the current version."""
        self._version += 1
        item = {"metadata": {"resourceVersion": str(self._version)}}
        self.send_to_watches({"type": "BOOKMARK", "object": item}, plural)

    def count(self, method: str, text: str) -> int:
        """How many such requests came whose path contains `text`; WATCH and LIST are methods."""
        return sum(_verb(seen) == method and text in seen.path for seen in self.requests)

    # ===== HTTP =====

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        query = dict(request.query)
        seen = Seen(request.method, request.path, query, json.loads(text) if text else None, dict(request.headers))
        self.requests.append(seen)
        self.on_request(seen)
        for fault in self.faults:
            if fault.method in ("", request.method, _verb(seen)) and fault.path in request.path_qs and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return _refusal(401, "Unauthorized", "Unauthorized")
        return await self._answer(request, seen)

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        parts = seen.path.strip("/").split("/")
        if parts == ["apis"]:
            return web.json_response(self._groups())
        root = 2 if parts[0] == "api" else 3
        group, version = ("", parts[1]) if root == 2 else (parts[1], parts[2] if len(parts) > 2 else "")
        plurals = self.served.get((group, version))
        rest = parts[root:]
        if plurals is not None and not rest:
            return web.json_response({"kind": "APIResourceList", "resources": [{"name": name} for name in plurals]})
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if plurals is None or rest[0] not in plurals:
            return web.Response(status=404, text="404 page not found\n")
        plural, *more = rest
        if not more and seen.query.get("watch"):
            return await self._watch(request, plural, namespace)
        if not more and seen.method == "GET":
            return self._list(group, version, plural, namespace, seen.query)
        if not more:
            return self._create(plural, namespace, seen.body)
        return self._one(seen, group, version, plural, (namespace, more[0]), more[1:])

    def _groups(self) -> Object:
        found: dict[str, list[Object]] = {}
        for group, version in self.served:
            if group:
                found.setdefault(group, []).append({"groupVersion": f"{group}/{version}", "version": version})
        return {"kind": "APIGroupList", "groups": [{"name": name, "versions": item} for name, item in found.items()]}

    def _list(self, group: str, version: str, plural: str, namespace: str, query: dict[str, str]) -> web.Response:
        fits = _selector(namespace, query)
        items = [item for _, item in sorted(self.objects[plural].items()) if fits(item)]
        limit = min(int(query.get("limit", "0")) or len(items) or 1, self.largest_page)
        at, stamp = (int(part) for part in query.get("continue", f"0.{self._version}").split("."))
        if stamp < self._oldest:
            return _refusal(410, "Expired", "the continue token is too old")
        metadata = {"resourceVersion": str(stamp)}
        if at + limit < len(items):
            metadata["continue"] = f"{at + limit}.{stamp}"
        page = copy.deepcopy(items[at : at + limit])
        if group != GATEWAY_GROUP:  # as the real one: items of built-in lists do not say what they are
            for item in page:
                item.pop("kind", None)
                item.pop("apiVersion", None)
        return web.json_response({"kind": KINDS[plural] + "List", "metadata": metadata, "items": page})

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        fits = _selector(namespace, dict(request.query))
        start = int(request.query.get("resourceVersion", "0"))
        await response.prepare(request)
        if start < self._oldest:
            error = {"type": "ERROR", "object": json.loads(_status(410, "Expired", "too old resource version"))}
            await response.write(json.dumps(error).encode() + b"\n")
            return response
        watcher = Watcher(plural, fits)
        for version, where, event in self._history:
            if version > start and where == plural and fits(event["object"]):
                watcher.queue.put_nowait(event)
        self.watchers.append(watcher)
        try:
            await self._stream(request, response, watcher)
        finally:
            self.watchers.remove(watcher)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, watcher: Watcher) -> None:
        while (event := await watcher.queue.get()) != "end":
            if event == "cut":
                with contextlib.suppress(ConnectionError):
                    await response.write(b'{"type":"MODIFIED","object":{"met')
                if request.transport is not None:
                    request.transport.abort()
                return
            raw = event if isinstance(event, str) else json.dumps(event)
            await response.write(raw.encode() + b"\n")

    def _create(self, plural: str, namespace: str, body: Object) -> web.Response:
        key = (namespace, body["metadata"]["name"])
        if key in self.objects[plural]:
            return _refusal(409, "AlreadyExists", f"{plural} {key[1]} already exists")
        item = copy.deepcopy(body)
        item["metadata"].setdefault("namespace", namespace)
        return web.json_response(self.put({"kind": KINDS[plural], **item}), status=201)

    def _one(
        self, seen: Seen, group: str, version: str, plural: str, key: tuple[str, str], subresource: list[str]
    ) -> web.Response:
        body: Object = seen.body or {}
        content_type = seen.headers.get("Content-Type", "")
        old = self.objects[plural].get(key)
        if old is None and "apply" in content_type:
            return self._create(plural, key[0], body)
        if old is None:
            return _refusal(404, "NotFound", f"{plural} {key[1]} not found")
        if seen.method == "GET":
            return web.json_response(old)
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        precondition = (body.get("preconditions") or {}).get("uid")
        if (wanted and wanted != old["metadata"]["resourceVersion"]) or (
            precondition and precondition != old["metadata"]["uid"]
        ):
            return _refusal(409, "Conflict", "the object has been modified")
        if seen.method == "DELETE":
            self.delete(KINDS[plural], *key)
            return web.json_response({"kind": "Status", "status": "Success"})
        if subresource == ["status"]:
            new = copy.deepcopy(old)
            new["status"] = _merged(old.get("status") or {}, body["status"])
        elif seen.method == "PUT":
            new = body
        elif "apply" in content_type:
            new = {**old, **copy.deepcopy(body), "metadata": {**old["metadata"], **body["metadata"]}}
        else:
            new = _merged(copy.deepcopy(old), body)
        new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"]}
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        if new == old:
            return web.json_response(old)
        return web.json_response(self._store(plural, key, new, "MODIFIED"))

    def _store(self, plural: str, key: tuple[str, str] | None, item: Object, event: str) -> Object:
        self._version += 1
        item = copy.deepcopy(item)
        item["metadata"]["resourceVersion"] = str(self._version)
        if key is not None:
            self.objects[plural][key] = item
        told = {"type": event, "object": item}
        self._history.append((self._version, plural, told))
        for watcher in self.watchers:
            if watcher.plural == plural and watcher.fits(item):
                watcher.queue.put_nowait(told)
        return item

    def _tell_watchers(self, what: str) -> None:
        for watcher in self.watchers:
            watcher.queue.put_nowait(what)


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _verb(seen: Seen) -> str:
    if seen.query.get("watch"):
        return "WATCH"
    return "LIST" if seen.method == "GET" and seen.path.rsplit("/", 1)[1] in KINDS else seen.method


def _selector(namespace: str, query: dict[str, str]) -> Callable[[Object], bool]:
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")

    def fits(item: Object) -> bool:
        metadata = item["metadata"]
        if namespace and metadata.get("namespace") != namespace:
            return False
        if fields and metadata["name"] != fields.removeprefix("metadata.name="):
            return False
        has = metadata.get("labels") or {}
        return all(
            has.get(name) == value if equals else name in has
            for name, equals, value in (part.partition("=") for part in labels.split(",") if part)
        )

    return fits


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _status(code: int, reason: str, message: str) -> bytes:
    status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return json.dumps(status).encode()


def _refusal(code: int, reason: str, message: str) -> web.Response:
    return web.Response(status=code, body=_status(code, reason, message), content_type="application/json")


class KubeApiThread:
    """A KubeApi in a thread of its own, for a gateway that is another process; a context manager.

    Its attributes are the KubeApi's; its methods run in that thread, and give what they give.
    """

    def __init__(self) -> None:
        self._api = KubeApi()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> KubeApiThread:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._api, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            async def work() -> Any:
                result = found(*arguments, **options)
                return await result if asyncio.iscoroutine(result) else result

            return asyncio.run_coroutine_threadsafe(work(), self._loop).result(10)

        return call

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": "secret"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "pygw-system"}}],
        }  # fmt: skip
        path.write_text(json.dumps(config))
        return path


async def connect(server: KubeApi, token: str = "") -> Api:
    """An Api that talks to the double; close() it."""

    async def load(configuration: Any) -> str:
        configuration.host = server.url
        if token:
            configuration.api_key["BearerToken"] = f"Bearer {token}"
        return "default"

    api = Api(load)
    await api.reload()
    return api


class Alone:
    """A leadership that the test gives and takes."""

    def __init__(self) -> None:
        self.leading = asyncio.Event()
        self.is_leader = False
        self.win()

    def win(self) -> None:
        self.is_leader = True
        self.leading.set()

    def lose(self) -> None:
        self.is_leader = False
        self.leading.clear()


async def until(holds: Callable[[], bool], patience: float = 8.0) -> None:
    """Until it holds; asked again whenever the loop has nothing else to do."""
    async with asyncio.timeout(patience):
        while not holds():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the time of the block; its failure is the test's."""
    task = asyncio.ensure_future(work)
    try:
        yield task
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
