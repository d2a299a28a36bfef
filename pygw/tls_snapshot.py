"""TlsSnapshot: what of a GatewayConfig concerns TLS, beside the image of the routes, as it travels to the workers.
`tables` makes it.

Private keys are in it: it goes over the channel between our own processes, and nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pygw.model import Certificate, ClientValidation, TlsConfig, TlsUpstream

Site = tuple[str, int]  # local address ("": the shared ones) and port, as in the image


@dataclass(frozen=True, slots=True)
class TlsSnapshot:
    """All TLS settings of one configuration. Equal ones serve alike."""

    sites: dict[Site, dict[str, TlsConfig]] = field(default_factory=dict)  # by listener hostname; cleartext: absent
    upstreams: dict[str, TlsUpstream] = field(default_factory=dict)  # by BackendConfig.key
    # By the place of the listener in GatewayConfig.listeners; empty where no Gateway has one.
    client_certificates: tuple[Certificate | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; what many listeners share stands there once."""
        certificates: dict[Certificate, int] = {}
        configs: dict[TlsConfig, int] = {}

        def number(certificate: Certificate | None) -> int:
            return -1 if certificate is None else certificates.setdefault(certificate, len(certificates))

        for hostnames in self.sites.values():
            for config in hostnames.values():
                configs.setdefault(config, len(configs))
        return {
            "configs": [
                {
                    "certificates": [number(certificate) for certificate in config.certificates],
                    "validation": None if config.validation is None else asdict(config.validation),
                }
                for config in configs
            ],
            "sites": [
                [address, port, [[hostname, configs[config]] for hostname, config in hostnames.items()]]
                for (address, port), hostnames in self.sites.items()
            ],
            "upstreams": {key: asdict(upstream) for key, upstream in self.upstreams.items()},
            "clients": [number(certificate) for certificate in self.client_certificates],
            "certificates": [asdict(certificate) for certificate in certificates],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TlsSnapshot:
        """What to_json() gave, after its way through JSON."""
        certificates = [
            Certificate(**{**item, "names": tuple(item["names"])}) for item in values["certificates"]
        ]
        configs = [
            TlsConfig(
                tuple(certificates[place] for place in item["certificates"]),
                None if item["validation"] is None else ClientValidation(**item["validation"]),
            )
            for item in values["configs"]
        ]
        return cls(
            {
                (address, port): {hostname: configs[place] for hostname, place in hostnames}
                for address, port, hostnames in values["sites"]
            },
            {
                key: TlsUpstream(**{**item, "names": tuple((kind, name) for kind, name in item["names"])})
                for key, item in values["upstreams"].items()
            },
            tuple(certificates[place] if place >= 0 else None for place in values["clients"]),
        )
