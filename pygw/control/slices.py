"""EndpointSlices by the Service that they belong to (discovery.k8s.io/v1), kept up to date slice by slice.

The label kubernetes.io/service-name says whose a slice is; one Service may have many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pygw.control.cluster_state import Key, Object

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Slices:
    """The index, and which Services the last update touched."""

    services: Mapping[Key, dict[Key, Object]]  # Service -> its slices
    owners: Mapping[Key, Key]  # slice -> its Service
    changed: frozenset[Key] = frozenset()

    @classmethod
    def of(cls, slices: Mapping[Key, Object]) -> Slices:
        """Index all slices."""
        return cls({}, {}).updated(slices, slices)

    def get(self, service: Key) -> list[Object] | None:
        """The slices of a Service in the order of their names; None where it has none at all."""
        slices = self.services.get(service)
        return [slices[key] for key in sorted(slices)] if slices else None

    def updated(self, slices: Mapping[Key, Object], changed: Iterable[Key]) -> Slices:
        """The index after the slices named in `changed` came, went or changed; `slices` has them all."""
        changed = tuple(changed)
        if not changed:
            return Slices(self.services, self.owners)
        services, owners = dict(self.services), dict(self.owners)
        touched: set[Key] = set()
        for key in changed:
            old, item = owners.pop(key, None), slices.get(key)
            if old is not None:
                services[old] = {name: slice_ for name, slice_ in services[old].items() if name != key}
                touched.add(old)
            name = ((item or {}).get("metadata", {}).get("labels") or {}).get(SERVICE_NAME_LABEL)
            if item is not None and name:
                owner = (key[0], name)
                owners[key] = owner
                services[owner] = {**services.get(owner, {}), key: item}
                touched.add(owner)
        return Slices(services, owners, frozenset(touched))
