"""The CRDs' defaults, schemas, list types and CEL rules, and our schemas of built-in kinds."""

import copy

import pytest
import yaml

from pygw.control.cel_rules import CelRules, _compile
from pygw.control.schema import _CRDS, GATEWAY_API, KindSchema, find_schema, known_kinds

GATEWAY = {
    "apiVersion": f"{GATEWAY_API}/v1",
    "kind": "Gateway",
    "metadata": {"name": "gw", "namespace": "default"},
    "spec": {
        "gatewayClassName": "pygw",
        "listeners": [
            {"name": "a", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"},
            {"name": "b", "port": 80, "protocol": "HTTP"},
            {"name": "c", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}]}},
            {"name": "d", "port": 444, "protocol": "HTTPS", "tls": {"options": {"example.com/a": "b"}}},
        ],
        "addresses": [{"value": "127.0.0.1"}, {"value": "::1"}, {"type": "Hostname", "value": "gw.example.com"}],
        "infrastructure": {"labels": {"example.com/a": "b"}, "annotations": {"example.com/a": "b"}},
        "tls": {
            "frontend": {
                "default": {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}},
                "perPort": [
                    {"port": 443, "tls": {"validation": {"caCertificateRefs": [
                        {"group": "", "kind": "ConfigMap", "name": "ca"}]}}},
                ],
            }
        },
    },
}  # fmt: skip
FILTERS = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}},
    {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a"]}},
    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 1}, "percent": 50}},
    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 1}, "fraction": {"numerator": 1}}},
    {"type": "ExtensionRef", "extensionRef": {"group": "x", "kind": "Y", "name": "z"}},
]
ROUTE = {
    "apiVersion": f"{GATEWAY_API}/v1",
    "kind": "GRPCRoute",
    "metadata": {"name": "r", "namespace": "default"},
    "spec": {
        "parentRefs": [{"name": "gw", "sectionName": "a"}, {"name": "gw", "sectionName": "b"}, {"name": "other"}],
        "hostnames": ["*.example.com"],
        "rules": [
            {
                "matches": [
                    {"method": {"service": "helloworld.Greeter", "method": "SayHello"}},
                    {"method": {"service": "Hello.*", "type": "RegularExpression"}, "headers": [
                        {"name": "a", "value": "b"}, {"name": "c", "value": "d.*", "type": "RegularExpression"}]},
                ],
                "filters": FILTERS,
                "backendRefs": [{"name": "greeter", "port": 50051, "filters": FILTERS}],
            },
            {},
        ],
    },
}  # fmt: skip


def check(item):
    """(the object after pruning and defaulting, its faults) without changing the one given."""
    item = copy.deepcopy(item)
    schema = find_schema(item["apiVersion"], item["kind"])
    assert isinstance(schema, KindSchema), schema
    return item, schema.check(item)


def changed(item, path, value):
    """A copy with one field set, or deleted where the value is None; the path's lists grow by one at most."""
    item = copy.deepcopy(item)
    *parents, last = path
    place = item
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return item


def messages(faults):
    return [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in faults]


def rules_of(kind):
    """All (rule, message) of a kind that are enforced."""
    with open(_CRDS / find_file(kind), encoding="utf-8") as stream:
        crd = next(item for item in yaml.safe_load_all(stream) if item["spec"]["names"]["kind"] == kind)
    version = next(version for version in crd["spec"]["versions"] if version["name"] == version_of(kind))
    found = []

    def walk(schema):
        rules = schema.get("x-kubernetes-validations", ())
        found.extend((rule["rule"], rule["message"]) for rule in rules if "oldSelf" not in rule["rule"])
        for child in schema.get("properties", {}).values():
            walk(child)
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                walk(schema[name])

    schema = version["schema"]["openAPIV3Schema"]
    for name, child in schema["properties"].items():
        if name != "status":
            walk(child)
    walk({"x-kubernetes-validations": schema.get("x-kubernetes-validations", ())})
    return found


def version_of(kind):
    return "v1alpha1" if kind == "GatewayConfig" else "v1"


def find_file(kind):
    from pygw.control.schema import _FILES

    return next(file for (_, name), file in _FILES.items() if name == kind)


@pytest.mark.parametrize("kind", [kind for _, kind in known_kinds()])
def test_every_rule_of_every_kind_compiles_and_is_in_the_program(kind):
    rules = rules_of(kind)
    for rule, _ in rules:
        _compile(rule)
    group = next(group for group, name in known_kinds() if name == kind)
    version = version_of(kind)
    schema = find_schema(f"{group}/{version}" if group else version, kind)
    assert schema.rules() == len(rules)


def test_a_rule_that_does_not_compile_is_an_error_of_ours():
    with pytest.raises(ValueError, match="undeclared reference to 'nonsense'"):
        CelRules({"x-kubernetes-validations": [{"rule": "self.nonsense()"}]})


@pytest.mark.parametrize("item", [GATEWAY, ROUTE], ids=["Gateway", "GRPCRoute"])
def test_good_objects_are_accepted(item):
    assert check(item)[1] == []


LISTENERS = ("spec", "listeners")
METHOD = ("spec", "rules", 0, "matches", 0, "method")
BROKEN_RULES = [
    (GATEWAY, ("spec", "addresses", 3), {"value": "127.0.0.1"}, "spec.addresses: IPAddress values must be unique"),
    (GATEWAY, ("spec", "addresses", 3), {"type": "Hostname", "value": "gw.example.com"},
     "spec.addresses: Hostname values must be unique"),
    (GATEWAY, ("spec", "addresses", 2, "value"), "a b", "spec.addresses.2: Hostname value must be empty or contain"),
    (GATEWAY, ("spec", "infrastructure", "annotations"), {"a b": "c"},
     "spec.infrastructure.annotations: Annotation keys must be in the form"),
    (GATEWAY, ("spec", "infrastructure", "annotations"), {"a" * 253 + "/b": "c"},
     "spec.infrastructure.annotations: If specified, the annotation key's prefix must be"),
    (GATEWAY, ("spec", "infrastructure", "labels"), {"a b": "c"},
     "spec.infrastructure.labels: Label keys must be in the form"),
    (GATEWAY, ("spec", "infrastructure", "labels"), {"a" * 253 + "/b": "c"},
     "spec.infrastructure.labels: If specified, the label key's prefix must be"),
    (GATEWAY, (*LISTENERS, 0, "tls"), {"certificateRefs": [{"name": "x"}]},
     "spec.listeners: tls must not be specified"),
    (GATEWAY, (*LISTENERS, 2, "tls", "mode"), "Passthrough", "spec.listeners: tls mode must be Terminate for protocol"),
    (GATEWAY, (*LISTENERS, 4), {"name": "e", "port": 1, "protocol": "TLS"},
     "spec.listeners: tls mode must be set for protocol TLS"),
    (GATEWAY, (*LISTENERS, 0, "protocol"), "TCP", "spec.listeners: hostname must not be specified for protocols"),
    (GATEWAY, (*LISTENERS, 1, "name"), "a", "spec.listeners: Listener name must be unique"),
    (GATEWAY, (*LISTENERS, 1, "hostname"), "a.example.com",
     "spec.listeners: Combination of port, protocol and hostname"),
    (GATEWAY, (*LISTENERS, 2, "tls"), {}, "spec.listeners.2.tls: certificateRefs or options must be specified"),
    (GATEWAY, (*LISTENERS, 2, "tls"), {"certificateRefs": []},
     "spec.listeners.2.tls: certificateRefs or options must be specified"),
    (GATEWAY, ("spec", "tls", "frontend", "perPort", 1), GATEWAY["spec"]["tls"]["frontend"]["perPort"][0],
     "spec.tls.frontend.perPort: Port for TLS configuration must be unique"),
    (ROUTE, ("spec", "parentRefs", 1, "sectionName"), None, "spec.parentRefs: sectionName must be specified when"),
    (ROUTE, ("spec", "parentRefs", 1, "sectionName"), "a", "spec.parentRefs: sectionName must be unique when"),
    (ROUTE, ("spec", "rules"), [{"matches": [{"headers": [{"name": "a", "value": f"{rule}-{index}"}]}
                                             for index in range(43)]} for rule in range(3)],
     "spec.rules: While 16 rules and 64 matches per rule are allowed"),
    (ROUTE, METHOD, {}, "spec.rules.0.matches.0.method: One or both of 'service' or 'method' must be specified"),
    (ROUTE, (*METHOD, "service"), "a b", "spec.rules.0.matches.0.method: service must only contain valid characters"),
    (ROUTE, (*METHOD, "service"), "", "spec.rules.0.matches.0.method: service must only contain valid characters"),
    (ROUTE, (*METHOD, "method"), "a.b", "spec.rules.0.matches.0.method: method must only contain valid characters"),
    (ROUTE, ("spec", "rules", 0, "backendRefs", 0, "port"), None,
     "spec.rules.0.backendRefs.0: Must have port for Service reference"),
    (ROUTE, ("spec", "rules", 0, "filters", 2, "requestMirror", "backendRef", "port"), None,
     "spec.rules.0.filters.2.requestMirror.backendRef: Must have port for Service reference"),
    *[
        (ROUTE, (*place, *step), value, f"{'.'.join(map(str, place))}{says}")
        for place in (("spec", "rules", 0, "filters"), ("spec", "rules", 0, "backendRefs", 0, "filters"))
        for step, value, says in [
            ((5,), FILTERS[0], ": RequestHeaderModifier filter cannot be repeated"),
            ((5,), FILTERS[1], ": ResponseHeaderModifier filter cannot be repeated"),
            ((0, "type"), "ExtensionRef", ".0: filter.requestHeaderModifier must be nil if"),
            ((0, "requestHeaderModifier"), None, ".0: filter.requestHeaderModifier must be specified for"),
            ((1, "type"), "ExtensionRef", ".1: filter.responseHeaderModifier must be nil if"),
            ((1, "responseHeaderModifier"), None, ".1: filter.responseHeaderModifier must be specified for"),
            ((2, "type"), "ExtensionRef", ".2: filter.requestMirror must be nil if"),
            ((2, "requestMirror"), None, ".2: filter.requestMirror must be specified for"),
            ((4, "type"), "RequestMirror", ".4: filter.extensionRef must be nil if"),
            ((4, "extensionRef"), None, ".4: filter.extensionRef must be specified for"),
            ((2, "requestMirror", "fraction"), {"numerator": 1}, ".2.requestMirror: Only one of percent or fraction"),
            ((3, "requestMirror", "fraction", "numerator"), 101, ".3.requestMirror.fraction: numerator must be less"),
        ]
    ],
]  # fmt: skip


@pytest.mark.parametrize(("item", "path", "value", "says"), BROKEN_RULES)
def test_a_broken_rule_is_named_with_its_place(item, path, value, says):
    faults = check(changed(item, path, value))[1]
    assert [fault for fault in faults if fault.reason == "RuleViolation" and fault.severity == "error"]
    assert any(message.startswith(says) for message in messages(faults)), messages(faults)


@pytest.mark.parametrize("kind", ["Gateway", "GRPCRoute"])
def test_the_table_breaks_every_rule(kind):
    broken = {says.partition(": ")[2] for item, _, _, says in BROKEN_RULES if item["kind"] == kind}
    for _, message in rules_of(kind):
        assert any(message.startswith(says) for says in broken), message


def test_defaults_come_before_rules():
    # "service or method" bites only because the default fills in the type.
    item, faults = check(ROUTE)
    assert faults == []
    rule = item["spec"]["rules"][0]
    assert rule["matches"][0]["method"]["type"] == "Exact"
    assert rule["matches"][1]["headers"][0]["type"] == "Exact"
    assert rule["backendRefs"][0] | {"filters": []} == {
        "group": "", "kind": "Service", "name": "greeter", "port": 50051, "weight": 1, "filters": []
    }  # fmt: skip
    assert rule["filters"][3]["requestMirror"]["fraction"] == {"numerator": 1, "denominator": 100}
    parent = item["spec"]["parentRefs"][2]
    assert parent == {"group": GATEWAY_API, "kind": "Gateway", "name": "other"}


def test_a_gateway_gets_its_defaults():
    listener = check(GATEWAY)[0]["spec"]["listeners"][0]
    assert listener["allowedRoutes"] == {"namespaces": {"from": "Same"}}
    assert check(GATEWAY)[0]["spec"]["listeners"][2]["tls"]["mode"] == "Terminate"
    assert check(GATEWAY)[0]["spec"]["addresses"][0]["type"] == "IPAddress"


def test_null_counts_as_absent():
    item, faults = check(changed(changed(ROUTE, ("spec", "hostnames"), []), ("spec", "rules", 1, "name"), "x"))
    assert faults == []
    nulls = copy.deepcopy(ROUTE)
    nulls["spec"]["hostnames"] = None
    nulls["spec"]["rules"][0]["backendRefs"][0]["weight"] = None
    item, faults = check(nulls)
    assert faults == []
    assert "hostnames" not in item["spec"]
    assert item["spec"]["rules"][0]["backendRefs"][0]["weight"] == 1


def test_a_status_that_comes_along_is_not_taken():
    item, faults = check({**ROUTE, "status": {"nonsense": 1}})
    assert faults == []
    assert "status" not in item


def test_a_defaulted_value_is_the_objects_own():
    first, second = check(GATEWAY)[0], check(GATEWAY)[0]
    first["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["from"] = "All"
    assert second["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["from"] == "Same"


@pytest.mark.parametrize(
    ("item", "path", "value", "says"),
    [
        (GATEWAY, (*LISTENERS, 0, "port"), "80", 'must be an integer, not a string ("80"); leave out the quotes'),
        (GATEWAY, (*LISTENERS, 0, "port"), 0, "0 is less than 1"),
        (GATEWAY, (*LISTENERS, 0, "port"), 65536, "65536 is greater than 65535"),
        (GATEWAY, (*LISTENERS, 0, "port"), 1.5, "must be an integer, not a number (1.5)"),
        (GATEWAY, (*LISTENERS, 0, "port"), None, "required, and missing"),
        (GATEWAY, (*LISTENERS, 0), "x", 'must be a mapping, not a string ("x")'),
        (GATEWAY, LISTENERS, {}, "must be a list, not a mapping ({})"),
        (GATEWAY, LISTENERS, [], "fewer than 1 items"),
        (GATEWAY, ("spec",), None, "required, and missing"),
        (GATEWAY, ("spec", "addresses", 0, "value"), "1.2.3", "is none of the forms allowed here (ipv4, ipv6)"),
        (GATEWAY, (*LISTENERS, 0, "hostname"), "A.b", '"A.b" does not match ^'),
        (GATEWAY, (*LISTENERS, 0, "hostname"), "a\n", "does not match ^"),  # $ is the end, not before a newline
        (GATEWAY, (*LISTENERS, 0, "allowedRoutes"), {"namespaces": {"from": "same"}},
         '"same" is not supported, only All, Selector, Same; did you mean Same?'),
        (GATEWAY, ("metadata", "name"), "A", "a name is a lowercase RFC 1123 subdomain"),
        (GATEWAY, ("metadata", "name"), "a" * 254, "at most 253 characters"),
        (ROUTE, ("spec", "parentRefs", 0, "name"), "a" * 254, "is longer than 253 characters"),
        (GATEWAY, ("metadata", "namespace"), "a.b", "a namespace is a lowercase RFC 1123 label"),
        (GATEWAY, ("metadata", "labels"), {"a": 1}, "must be a string, not an integer (1); put it in quotes"),
        (GATEWAY, ("metadata", "labels"), {"a": "-"}, "a label's value is at most 63"),
        (GATEWAY, ("metadata", "annotations"), {"a": True}, "in YAML, yes, no, on, off, y and n are booleans"),
        (GATEWAY, ("metadata", "creationTimestamp"), "yesterday", '"yesterday" is no date-time'),
        (ROUTE, ("spec", "rules", 0, "backendRefs", 0, "weight"), 1_000_001, "1000001 is greater than 1000000"),
        (ROUTE, ("spec", "rules"), [{}] * 17, "more than 16 items"),
        (ROUTE, ("spec", "hostnames"), ["a"] * 17, "more than 16 items"),
        (ROUTE, ("spec", "rules", 0, "matches", 1, "headers", 1, "name"), "a", 'duplicate of item [0]: {"name": "a"}'),
        (ROUTE, ("spec", "rules", 0, "filters", 1, "responseHeaderModifier", "remove"), ["a", "a"],
         'duplicate of item [0]: "a"'),
    ],
)  # fmt: skip
def test_a_violation_says_what_to_do(item, path, value, says):
    faults = check(changed(item, path, value))[1]
    assert any(fault.severity == "error" and says in fault.message for fault in faults), messages(faults)


def test_a_missing_field_is_named_by_its_own_path():
    (fault,) = check(changed(GATEWAY, (*LISTENERS, 0, "port"), None))[1]
    assert fault.path == ("spec", "listeners", 0, "port")


def test_rules_do_not_run_over_wrong_types():
    broken = changed(changed(ROUTE, METHOD, {}), ("spec", "rules", 0, "backendRefs", 0, "weight"), "x")
    assert [fault.reason for fault in check(broken)[1]] == ["SchemaViolation"]


def test_rules_do_run_beside_other_violations():
    broken = changed(changed(ROUTE, METHOD, {}), ("spec", "rules", 0, "backendRefs", 0, "weight"), -1)
    assert sorted(fault.reason for fault in check(broken)[1]) == ["RuleViolation", "SchemaViolation"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (("spec", "hostname"), ", did you mean hostnames?"),
        (("spec", "rules", 0, "xyz"), ""),
        (("specs",), "did you mean spec?"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_removed_with_a_warning(path, hint):
    item, faults = check(changed(ROUTE, path, {"a": 1}))
    (fault,) = faults
    assert (fault.severity, fault.path, fault.reason) == ("warning", path, "UnknownField")
    assert fault.message.startswith("unknown field, ignored")
    assert fault.message.endswith(hint)
    assert item == check(ROUTE)[0]


def test_a_namespace_on_a_cluster_scoped_kind_is_ignored():
    item, (fault,) = check(
        {
            "apiVersion": f"{GATEWAY_API}/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "gc", "namespace": "x"},
            "spec": {"controllerName": "pygw.dev/gateway-controller"},
        }
    )
    assert fault.severity == "warning"
    assert item["metadata"] == {"name": "gc"}


def test_older_versions_become_v1():
    grant = {
        "apiVersion": f"{GATEWAY_API}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {
            "from": [{"group": GATEWAY_API, "kind": "GRPCRoute", "namespace": "a"}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }
    item, faults = check(grant)
    assert faults == []
    assert item["apiVersion"] == f"{GATEWAY_API}/v1"


@pytest.mark.parametrize(
    ("api_version", "kind", "says"),
    [
        (f"{GATEWAY_API}/v1alpha2", "GRPCRoute", "GRPCRoute has no version 'v1alpha2' (known: v1), ignored"),
        (f"{GATEWAY_API}/v1", "GRPCRout", "unknown kind, ignored; did you mean GRPCRoute?"),
        (f"{GATEWAY_API}/v1", "TLSRoute", "pygw serves no TLSRoute, ignored"),
        ("apps/v1", "Deployment", "unknown kind, ignored"),
        ("gateway.k8s.io/v1", "Gateway", f"did you mean apiVersion {GATEWAY_API}/v1?"),
        ("core/v1", "Service", "did you mean apiVersion v1?"),
        ("", "", "unknown kind, ignored"),
    ],
)
def test_kinds_that_are_not_known(api_version, kind, says):
    found = find_schema(api_version, kind)
    assert isinstance(found, str)
    assert says in found


def core(kind, api_version="v1", **rest):
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "default"}, **rest}


SLICE = core(
    "EndpointSlice",
    "discovery.k8s.io/v1",
    addressType="IPv4",
    endpoints=[{"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "any": 1}}],
    ports=[{"port": 50051}],
)
SERVICE = core(
    "Service", spec={"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": "grpc", "nodePort": 30000}]}
)


def test_services_and_slices_get_their_defaults():
    item, faults = check(SERVICE)
    assert faults == []
    assert item["spec"]["type"] == "ClusterIP"
    assert item["spec"]["ports"][0]["protocol"] == "TCP"
    item, faults = check(SLICE)
    assert faults == []
    assert item["ports"][0] == {"name": "", "port": 50051, "protocol": "TCP"}


@pytest.mark.parametrize(
    ("item", "path", "value", "says"),
    [
        (SERVICE, ("metadata", "name"), "a.b", "a Service's name is a lowercase DNS label"),
        (SERVICE, ("spec", "ports"), [], "a Service needs ports"),
        (SERVICE, ("spec", "type"), "ExternalName", "needs an externalName"),
        (SERVICE, ("spec", "ports", 1), {"port": 80}, "duplicate of item [0]"),
        (SERVICE, ("spec", "ports", 1), {"port": 81}, "each port needs a name"),
        (SERVICE, ("spec", "ports", 0, "port"), 0, "0 is less than 1"),
        (SERVICE, ("spec", "ports", 0, "targetPort"), True, "none of the forms"),
        (SLICE, ("addressType",), "IPv6", "an IP address of the addressType"),
        (SLICE, ("endpoints", 0, "addresses", 0), "localhost", "an IP address of the addressType"),
        (SLICE, ("endpoints", 0, "addresses"), [], "fewer than 1 items"),
        (SLICE, ("endpoints", 0, "conditions", "ready"), "yes", "must be a boolean, not a string"),
        (SLICE, ("ports", 1), {"port": 1}, "the names of ports must differ"),
        (core("Secret", type="kubernetes.io/tls"), ("data",), {"tls.crt": ""}, "needs data tls.crt and tls.key"),
        (core("Secret"), ("data",), {"a": "*"}, "the value: must be base64"),
        (core("ConfigMap"), ("data",), {"a": 5}, "put it in quotes"),
    ],
)
def test_built_in_kinds_are_checked(item, path, value, says):
    faults = check(changed(item, path, value))[1]
    assert any(fault.severity == "error" and says in fault.message for fault in faults), messages(faults)


def test_what_is_headless_or_external_needs_no_ports():
    assert check(core("Service", spec={"clusterIP": "None"}))[1] == []
    assert check(core("Service", spec={"type": "ExternalName", "externalName": "example.com"}))[1] == []


def test_string_data_becomes_data():
    item, faults = check(core("Secret", stringData={"a": "hello"}, data={"b": "aGk="}))
    assert faults == []
    assert item["data"] == {"a": "aGVsbG8=", "b": "aGk="}
    assert "stringData" not in item


def test_no_message_shows_what_is_in_a_secret():
    for field in ("data", "stringData"):
        for value in ({"a": ["hunter2"]}, {"a": "hunter2*"}, "hunter2", ["hunter2"]):
            for fault in check(core("Secret", **{field: value}))[1]:
                assert "hunter2" not in fault.message
