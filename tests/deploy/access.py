"""What a request to the API server needs, and whether Roles and ClusterRoles permit it, by Kubernetes' own rules.

The authorizer is RBAC as in the Kubernetes documentation ("Using RBAC Authorization"); how a request becomes attributes
is apiserver's RequestInfo. Of a role's rules nothing is skipped: what a test does not see used, `unused` lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked for."""

    verb: str
    group: str
    resource: str  # with its subresource: gateways/status
    namespace: str = ""  # "": of the cluster, or of all namespaces
    name: str = ""  # "": not known, as for create


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, as one role gives it."""

    role: str  # as "Role a/pygw"
    namespace: str  # "": in all, and in the cluster
    verb: str
    group: str
    resource: str
    name: str  # "": whatever its name

    def permits(self, asked: Attributes) -> bool:
        """Whether it is enough."""
        return (
            self.namespace in ("", asked.namespace)
            and (self.verb, self.group, self.resource) == (asked.verb, asked.group, asked.resource)
            and self.name in ("", asked.name)
        )

    def __str__(self) -> str:
        return f"{self.role}: {self.verb} {self.resource}.{self.group or 'core'} {self.name}".rstrip()


class Access:
    """All that one ServiceAccount may do, by the roles and bindings among some objects."""

    def __init__(self, objects: Iterable[Object], account: str, namespace: str) -> None:
        """`account` is its name, `namespace` where it is."""
        self._objects = list(objects)
        self._subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        self.rights = list(self._rights())

    def permits(self, asked: Attributes) -> bool:
        """Whether any right is enough."""
        return any(right.permits(asked) for right in self.rights)

    def unused(self, asked: Iterable[Attributes]) -> list[str]:
        """The rights that none of these needed."""
        seen = list(asked)
        return [str(right) for right in self.rights if not any(map(right.permits, seen))]

    def _rights(self) -> Iterator[Right]:
        for binding in self._objects:
            if binding["kind"] in ("RoleBinding", "ClusterRoleBinding") and self._subject in binding["subjects"]:
                namespace = binding["metadata"].get("namespace", "")
                yield from _rights_of(self._role(binding["roleRef"], namespace), namespace)

    def _role(self, reference: Object, namespace: str) -> Object:
        wanted = (reference["kind"], reference["name"], namespace if reference["kind"] == "Role" else "")
        for item in self._objects:
            metadata = item["metadata"]
            if (item["kind"], metadata["name"], metadata.get("namespace", "")) == wanted:
                return item
        raise AssertionError(f"a binding to {wanted}, which does not exist")


def _rights_of(role: Object, namespace: str) -> Iterator[Right]:
    shown = f"{role['kind']} {namespace + '/' if namespace else ''}{role['metadata']['name']}"
    for rule in role["rules"]:
        names = rule.get("resourceNames") or [""]
        for verb, group, resource, name in product(rule["verbs"], rule["apiGroups"], rule["resources"], names):
            assert "*" not in (verb, group, resource), f"{shown} gives rights by wildcard: {rule}"
            yield Right(shown, namespace, verb, group, resource, name)


def attributes(method: str, path: str, query: dict[str, str], *, creates: bool = False) -> list[Attributes]:
    """What a request asks for; empty for discovery. `creates`: a patch that will find nothing, so it has to create."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:2]), parts[3:])
    if not rest:
        return []  # nonResourceURLs: system:discovery has them
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        rest = rest[2:] or rest  # a Namespace itself is asked for in its own name
    resource, *more = rest
    name = more[0] if more else query.get("fieldSelector", "").removeprefix("metadata.name=")
    if len(more) > 1:
        resource = f"{resource}/{more[1]}"
    verb = _verb(method, bool(more), bool(query.get("watch")))
    found = [Attributes(verb, group, resource, namespace, name)]
    if creates:
        found.append(Attributes("create", group, resource, namespace, name))
    return found


def _verb(method: str, has_name: bool, is_watch: bool) -> str:
    if method == "GET":
        return "watch" if is_watch else "get" if has_name else "list"
    if method == "DELETE":
        return "delete" if has_name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}[method]
