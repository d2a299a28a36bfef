"""Certificates and authorities: what Secrets and ConfigMaps hold, checked before anything is served with it.

A Secret's tls.crt and tls.key become a Certificate only where OpenSSL can load them and they fit each other; a
ConfigMap's ca.crt becomes the PEM text of what in it is a certificate. Whoever refers to them turns a Fault into the
condition that is right there. A certificate that has expired is still one: clients judge that, and a warning tells.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pygw.control.cluster_state import Key, Object
from pygw.control.references import GATEWAY_GROUP, Grants
from pygw.model import Certificate
from pygw.tls_context import server_context

if TYPE_CHECKING:
    from cryptography import x509

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CERTIFICATE")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a reference gives nothing."""

    kind: str  # NOT_PERMITTED, WRONG_KIND or NOT_USABLE
    message: str


NOT_PERMITTED = "not permitted"  # another namespace, without a ReferenceGrant
WRONG_KIND = "wrong kind"  # not a Secret, not a ConfigMap
NOT_USABLE = "not usable"  # it does not exist, or what it holds is of no use


@dataclass(frozen=True, slots=True)
class LoadedCertificate:
    """A Secret's certificate, and how long it is valid."""

    certificate: Certificate
    begins: datetime
    ends: datetime

    def warning(self, now: datetime) -> str:
        """What is wrong with it by the clock; "" if nothing."""
        if now > self.ends:
            return f"the certificate expired at {self.ends:%Y-%m-%dT%H:%M:%SZ}"
        return f"the certificate is not valid before {self.begins:%Y-%m-%dT%H:%M:%SZ}" if now < self.begins else ""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates of a ConfigMap's ca.crt."""

    pem: str
    warning: str = ""  # what was left out, and why


@dataclass(slots=True)
class Certificates:
    """Looks references up in one state. `previous` spares reading again what has not changed."""

    secrets: Mapping[Key, Object]
    config_maps: Mapping[Key, Object]
    grants: Grants
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    previous: Certificates | None = None
    _read: dict[tuple[str, str, str], tuple[Object, Any]] = field(default_factory=dict)

    def certificate(self, referrer: str, namespace: str, reference: Mapping[str, Any]) -> LoadedCertificate | Fault:
        """What a SecretObjectReference of a `referrer` (a kind of the Gateway API) in `namespace` leads to."""
        reference = {"kind": "Secret", **reference}
        found: LoadedCertificate | Fault = self._find(
            "Secret", self.secrets, referrer, namespace, reference, read_secret
        )
        return found

    def authorities(self, referrer: str, namespace: str, reference: Mapping[str, Any]) -> Authorities | Fault:
        """What a reference to a ConfigMap with CA certificates leads to."""
        found: Authorities | Fault = self._find(
            "ConfigMap", self.config_maps, referrer, namespace, reference, read_config_map
        )
        return found

    def forget_previous(self) -> None:
        """Let go of the one before; what was of use is taken over."""
        self.previous = None

    def _find(
        self,
        kind: str,
        objects: Mapping[Key, Object],
        referrer: str,
        namespace: str,
        reference: Mapping[str, Any],
        read: Any,
    ) -> Any:
        group, found_kind = reference.get("group") or "", reference.get("kind") or ""
        name, place = reference.get("name") or "", reference.get("namespace") or namespace
        if group or found_kind != kind:
            what = f"{group}/{found_kind}" if group else found_kind
            return Fault(WRONG_KIND, f"{what} {name} is not a {kind}")
        if not self.grants.permit((GATEWAY_GROUP, referrer, namespace), ("", kind), place, name):
            return Fault(
                NOT_PERMITTED,
                f"no ReferenceGrant in namespace {place} lets a {referrer} of namespace {namespace} refer to "
                f"{kind} {name}",
            )
        item = objects.get((place, name))
        if item is None:
            return Fault(NOT_USABLE, f"{kind} {place}/{name} does not exist")
        key = (kind, place, name)
        for known in (self._read, self.previous._read if self.previous is not None else {}):
            if key in known and known[key][0] is item:
                self._read[key] = known[key]
                return known[key][1]
        try:
            result = read(item)
        except ValueError as error:
            result = Fault(NOT_USABLE, f"{kind} {place}/{name}: {error}")
        self._read[key] = item, result
        return result


def read_secret(secret: Object) -> LoadedCertificate:
    """The certificate in a Secret's tls.crt and tls.key; raises ValueError with the reason where there is none."""
    data = secret.get("data") or {}
    missing = [name for name in ("tls.crt", "tls.key") if not data.get(name)]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    chain = _certificates(_decoded(data["tls.crt"], "tls.crt"))
    private_key, public_key = _private_key(_decoded(data["tls.key"], "tls.key"))
    if _public_octets(chain[0].public_key()) != public_key:
        raise ValueError("tls.key is not the key of the first certificate in tls.crt")
    certificate = Certificate(
        "".join(_pem(item) for item in chain), private_key, _dns_names(chain[0]), type(chain[0].public_key()).__name__
    )
    try:
        server_context([certificate], None)
    except ssl.SSLError as error:
        raise ValueError(f"OpenSSL cannot load it: {(error.reason or str(error)).lower().replace('_', ' ')}") from None
    return LoadedCertificate(certificate, chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)


def read_config_map(config_map: Object) -> Authorities:
    """The certificates in a ConfigMap's ca.crt; raises ValueError with the reason where there are none."""
    text = (config_map.get("data") or {}).get("ca.crt")
    octets = text.encode() if text is not None else None
    if octets is None and (binary := (config_map.get("binaryData") or {}).get("ca.crt")) is not None:
        octets = _decoded(binary, "ca.crt")
    if octets is None:
        raise ValueError("it has no ca.crt")
    from cryptography import x509

    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    good: dict[str, None] = {}
    bad: list[str] = []
    for place, block in enumerate(_BLOCK.finditer(octets), 1):
        if block.group(1) not in _CERTIFICATE_LABELS:
            bad.append(f"block {place} is no certificate but {block.group(1).decode()}")
            continue
        try:
            pem = _pem(x509.load_pem_x509_certificate(block.group()))
            trust.load_verify_locations(cadata=pem)
            good[pem] = None
        except (ValueError, ssl.SSLError):
            bad.append(f"block {place} is not a certificate that can be read")
    if not good:
        raise ValueError(f"ca.crt holds no certificate{': ' + bad[0] if bad else ''}")
    warning = f"of ca.crt {len(bad)} of {len(bad) + len(good)} blocks are left out: {bad[0]}" if bad else ""
    return Authorities("".join(good), warning)


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64") from None


def _certificates(octets: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(octets)
    except ValueError:
        raise ValueError("tls.crt holds no certificate in PEM that can be read") from None


def _private_key(octets: bytes) -> tuple[str, bytes]:
    """The key as PEM text, and the octets of its public part."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

    try:
        key = load_pem_private_key(octets, None)
    except TypeError:
        raise ValueError("tls.key is encrypted; a Secret holds it in the clear") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("tls.key holds no private key in PEM that can be read") from None
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text, _public_octets(key.public_key())


def _public_octets(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    octets: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(dict.fromkeys(name.lower() for name in names.get_values_for_type(x509.DNSName)))
