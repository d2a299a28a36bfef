"""resolve over random objects, sensible and not: it never raises, and what it gives hangs together."""

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from pygw import tables
from tests.doubles.objects import (
    GROUP,
    allow,
    endpoint,
    endpoint_slice,
    gateway,
    gateway_class,
    grant,
    listener,
    resolve_items,
    service,
    state_of,
)

names = st.sampled_from(["a", "b"])
spaces = st.sampled_from(["default", "other"])
ports = st.sampled_from([80, 81, 443, 50051])
hostnames = st.sampled_from(["a.com", "*.a.com", "x.a.com", "*.com", "b.org"])
patterns = st.sampled_from([*"abcdefgh", "a.*", "a|b", "", "x" * 50, "(", "[z", "\\1"])


def optional(**fields):
    return st.fixed_dictionaries({}, optional=fields)


def objects(kind, spec, **rest):
    return st.builds(
        lambda name, space, spec, status, rest: {
            "kind": kind,
            "metadata": {"name": name, "namespace": space, "generation": 1, **rest.pop("metadata", {})},
            "spec": spec,
            **status,
            **rest,
        },
        names, spaces, spec, optional(status=st.sampled_from([{}, {"conditions": []}, {"parents": []}])),
        st.fixed_dictionaries({}, optional=rest),
    )  # fmt: skip


selectors = st.one_of(
    st.none(),
    optional(
        matchLabels=st.dictionaries(names, names, max_size=2),
        matchExpressions=st.lists(
            st.builds(
                lambda key, operator, values: {"key": key, "operator": operator, "values": values},
                names, st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "What"]), st.lists(names, max_size=2),
            ),
            max_size=2,
        ),
    ),
)  # fmt: skip
listeners = st.builds(
    lambda name, port, protocol, rest: {"name": name, "port": port, "protocol": protocol, **rest},
    names, ports, st.sampled_from(["HTTP", "HTTP", "HTTPS", "TLS", "TCP", "UDP", "example.com/x"]),
    optional(
        hostname=hostnames,
        allowedRoutes=optional(
            namespaces=st.builds(
                lambda source, selector: {"from": source, "selector": selector},
                st.sampled_from(["All", "Same", "Selector", "None"]), selectors,
            ),
            kinds=st.lists(optional(group=st.sampled_from([GROUP, "x"]), kind=st.sampled_from(["GRPCRoute", "X"]))),
        ),
    ),
)  # fmt: skip
gateways = objects("Gateway", st.builds(
    lambda name, listeners, rest: {"gatewayClassName": name, "listeners": listeners, **rest},
    names, st.lists(listeners, max_size=4, unique_by=lambda listener: listener["name"]),
    optional(
        addresses=st.lists(optional(
            type=st.sampled_from(["IPAddress", "Hostname"]), value=st.sampled_from(["", "192.0.2.1", "fe80::1%e", "x"]),
        ), max_size=2),
        infrastructure=optional(parametersRef=st.just({"kind": "X", "name": "x"})),
    ),
))  # fmt: skip
edits = st.lists(
    st.builds(
        lambda name, value: {"name": name, "value": value},
        st.sampled_from(["X-A", "x-a", "te", "grpc-x", ":path"]), st.text(max_size=5),
    ),
    max_size=3,
)  # fmt: skip
modifiers = optional(set=edits, add=edits, remove=st.lists(st.sampled_from(["X-A", "x-b", "Host"]), max_size=3))
targets = st.builds(
    lambda name, rest: {"name": name, **rest}, names,
    st.one_of(
        st.builds(lambda port: {"port": port}, ports),
        st.builds(lambda port, space: {"port": port, "namespace": space}, ports, spaces),
        optional(
            port=ports, namespace=spaces, kind=st.sampled_from(["Service", "X"]), group=st.sampled_from(["", "x"])
        ),
    ),
)  # fmt: skip
filters = st.lists(
    st.one_of(
        st.builds(lambda edit: {"type": "RequestHeaderModifier", "requestHeaderModifier": edit}, modifiers),
        st.builds(lambda edit: {"type": "ResponseHeaderModifier", "responseHeaderModifier": edit}, modifiers),
        st.builds(
            lambda target, rest: {"type": "RequestMirror", "requestMirror": {"backendRef": target, **rest}},
            targets,
            optional(percent=st.integers(0, 100), fraction=optional(numerator=st.integers(0, 9))),
        ),
        st.just({"type": "ExtensionRef"}),
        st.just({"type": "Other"}),
    ),
    max_size=3,
)
headers = st.lists(st.builds(
    lambda name, value, rest: {"name": name, "value": value, **rest},
    st.sampled_from(["A", "a", "b"]), patterns,
    optional(type=st.sampled_from(["Exact", "RegularExpression"])),
), max_size=3)  # fmt: skip
# What the schemas let through: the method is an object in one kind and a text in the other.
matches = {
    "GRPCRoute": optional(
        method=optional(
            type=st.sampled_from([*["Exact", "RegularExpression"] * 3, "Glob"]), service=patterns, method=patterns
        ),
        headers=headers,
    ),
    "HTTPRoute": optional(
        method=st.sampled_from(["GET", "POST"]), headers=headers, queryParams=headers,
        path=st.builds(
            lambda kind, value: {"type": kind, "value": value},
            st.sampled_from(["Exact", "PathPrefix", "RegularExpression"]), st.sampled_from(["/", "/a", "/a/b"]),
        ),
    ),
}  # fmt: skip
rules = {
    kind: optional(
        name=names, matches=st.lists(choices, max_size=2), filters=filters,
        backendRefs=st.lists(st.builds(
            lambda target, rest: {**target, **rest}, targets,
            optional(weight=st.integers(0, 1_000_000), filters=filters),
        ), max_size=3),
    )
    for kind, choices in matches.items()
}  # fmt: skip
parents = st.builds(
    lambda name, rest: {"name": name, **rest},
    names,
    st.one_of(
        st.just({"namespace": "default"}),
        optional(
            namespace=spaces, sectionName=names, port=ports,
            kind=st.sampled_from(["Gateway", "Service", "ListenerSet"]), group=st.sampled_from([GROUP, ""]),
        ),
    ),
)  # fmt: skip
routes = st.one_of(*(
    objects(
        kind,
        st.fixed_dictionaries(
            {
                "rules": st.lists(rules[kind], min_size=1, max_size=3),
                "parentRefs": st.lists(parents, min_size=1, max_size=3),
            },
            optional={"hostnames": st.lists(hostnames, max_size=3)},
        ),
        metadata=st.sampled_from([{}, {"creationTimestamp": "2024-01-01T00:00:00Z"}, {"creationTimestamp": None}]),
    )
    for kind in ("GRPCRoute", "GRPCRoute", "HTTPRoute")
))  # fmt: skip
services = objects("Service", optional(
    ports=st.lists(st.builds(lambda port, rest: {"port": port, **rest}, ports, optional(
        name=names, protocol=st.sampled_from(["TCP", "UDP", None]), targetPort=st.one_of(ports, names),
        appProtocol=st.sampled_from(["kubernetes.io/h2c", "kubernetes.io/ws", ""]),
    )), max_size=3),
    type=st.sampled_from(["ClusterIP", "ExternalName"]), externalName=hostnames,
    ipFamilies=st.lists(st.sampled_from(["IPv4", "IPv6"]), max_size=2), clusterIP=st.sampled_from(["None", ""]),
))  # fmt: skip
slices = objects(
    "EndpointSlice", st.just({}),
    addressType=st.sampled_from(["IPv4", "IPv6", "FQDN"]),
    ports=st.one_of(st.none(), st.lists(optional(name=names, port=st.one_of(st.none(), ports)), max_size=2)),
    endpoints=st.one_of(st.none(), st.lists(optional(
        addresses=st.lists(st.sampled_from(["10.0.0.1", "fd00::1", "nowhere"]), max_size=2),
        conditions=optional(ready=st.sampled_from([True, False, None]), terminating=st.booleans()),
        targetRef=optional(name=names, kind=st.just("Pod")),
    ), max_size=3)),
    metadata=st.sampled_from([{}, {"labels": None}, *({"labels": {"kubernetes.io/service-name": n}} for n in "ab")]),
)  # fmt: skip
grants = objects("ReferenceGrant", st.builds(
    lambda space, rest: {
        "from": [{"group": GROUP, "kind": "GRPCRoute", "namespace": space}], "to": [{"kind": "Service", **rest}],
    },
    spaces, optional(group=st.just(""), name=names),
))  # fmt: skip
classes = st.builds(
    lambda name, controller, rest: {
        "kind": "GatewayClass", "metadata": {"name": name}, "spec": {"controllerName": controller, **rest}},
    names, st.sampled_from(["pygw.dev/gateway-controller", "example.com/x"]),
    optional(parametersRef=st.just({"group": "", "kind": "ConfigMap", "name": "x"})),
)  # fmt: skip
namespaces = st.builds(
    lambda name, labels: {"kind": "Namespace", "metadata": {"name": name, "labels": labels}},
    spaces, st.one_of(st.none(), st.dictionaries(names, names, max_size=2)),
)  # fmt: skip
# A ground on which much is valid, so that the objects on top of it get somewhere.
GROUND = [
    gateway_class(),
    gateway(listener("a", **allow("All")), listener("b", 81, hostname="*.a.com", **allow("All")), name="a"),
    *(service(name, 80, 81, 443, 50051, namespace=space) for name in "ab" for space in ("default", "other")),
    endpoint_slice(endpoint("10.0.0.1"), service="a"),
    grant("other"),
]
everything = st.builds(
    lambda *parts: [*GROUND, *(item for part in parts for item in part)],
    st.lists(routes, min_size=1, max_size=4), st.lists(st.one_of(gateways, classes, namespaces), max_size=1),
    st.lists(st.one_of(services, slices, slices, grants), max_size=5),
)  # fmt: skip


def all_conditions(status):
    for part in [status, *status.get("listeners", ()), *status.get("parents", ())]:
        yield from part.get("conditions", ())


@settings(max_examples=80)
@given(everything, st.booleans())
def test_any_state_resolves_to_something_sound(items, file_mode):
    resolution = resolve_items(*items, file_mode=file_mode)
    config = resolution.config

    listed = {key for listener in config.listeners for key in listener.routes}
    assert listed == set(config.routes)
    used = set()
    for key, route in config.routes.items():
        assert route.key == key
        assert route.rules
        for rule in route.rules:
            assert rule.matches or rule.http_matches
            assert rule.backends or rule.failure
            used |= {ref.backend for ref in rule.backends if ref.reason is None}
            used |= {mirror.backend for part in (rule, *rule.backends) for mirror in part.mirrors}
            for mirror in (mirror for part in (rule, *rule.backends) for mirror in part.mirrors):
                assert 0 < mirror.numerator <= mirror.denominator
    assert used <= set(config.backends)
    image = tables.compile_image(config)
    assert set(image.backend_keys) <= set(config.backends)

    state = state_of(*items)
    for (kind, namespace, name), status in resolution.statuses.items():
        assert state.find(kind, namespace, name) is not None
        json.dumps(status)
        for condition in all_conditions(status):
            assert condition["status"] in ("True", "False", "Unknown")
            assert re.fullmatch("[A-Z][A-Za-z]+", condition["reason"])
            assert condition["message"]
    for problem in resolution.problems:
        assert problem.severity in ("error", "warning")
        assert problem.object
        assert problem.message
