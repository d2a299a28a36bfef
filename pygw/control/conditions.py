"""The conditions that pygw writes, one constructor each (Gateway API: gateway_types.go, grpcroute_types.go,
gatewayclass_types.go).

A Condition here is only the verdict. observedGeneration and lastTransitionTime belong to the object that carries it
and are added by `status`.
"""

from __future__ import annotations

from dataclasses import dataclass

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"

# What the API server allows a condition's message to hold (metav1.Condition: maxLength 32768).
MAX_MESSAGE = 32768

# The condition types that are ours to write and to remove on each kind; all others are somebody else's.
GATEWAY_CLASS_TYPES = frozenset({"Accepted", "SupportedVersion"})
GATEWAY_TYPES = frozenset({"Accepted", "Programmed", "ResolvedRefs", "InsecureFrontendValidationMode"})
LISTENER_TYPES = frozenset({"Accepted", "Programmed", "ResolvedRefs", "Conflicted", "OverlappingTLSConfig"})
LISTENER_SET_TYPES = frozenset({"Accepted", "Programmed"})
ROUTE_TYPES = frozenset({"Accepted", "ResolvedRefs", "PartiallyInvalid"})
POLICY_TYPES = frozenset({"Accepted", "ResolvedRefs"})


@dataclass(frozen=True, slots=True)
class Condition:
    """A verdict: `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str = ""

    @property
    def is_true(self) -> bool:
        """Whether the status is "True"."""
        return self.status == TRUE


def join_messages(messages: list[str]) -> str:
    """Several findings as one message, cut where the API server would refuse a longer one."""
    text = "; ".join(messages)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


# GatewayClass


def class_accepted() -> Condition:
    """The class is served by this controller."""
    return Condition("Accepted", TRUE, "Accepted", "Gateways of this class are served")


def class_invalid_parameters(message: str) -> Condition:
    """spec.parametersRef names something that pygw cannot use."""
    return Condition("Accepted", FALSE, "InvalidParameters", message)


def class_supported_version() -> Condition:
    """The Gateway API definitions in use are of a version that pygw knows."""
    return Condition("SupportedVersion", TRUE, "SupportedVersion", "The Gateway API version is supported")


def class_unsupported_version(message: str) -> Condition:
    """The Gateway API definitions in use are of a version that pygw does not know; it does its best with them."""
    return Condition("SupportedVersion", FALSE, "UnsupportedVersion", message)


# Gateway


def gateway_accepted() -> Condition:
    """Every listener is valid."""
    return Condition("Accepted", TRUE, "Accepted", "The Gateway is served")


def gateway_partly_accepted(message: str) -> Condition:
    """Some listeners are valid, others are not: the valid ones are served."""
    return Condition("Accepted", TRUE, "ListenersNotValid", message)


def gateway_not_accepted(reason: str, message: str) -> Condition:
    """Nothing of it is served: Invalid, InvalidParameters, UnsupportedAddress or ListenersNotValid."""
    return Condition("Accepted", FALSE, reason, message)


def gateway_programmed() -> Condition:
    """Its valid listeners are in the data plane."""
    return Condition("Programmed", TRUE, "Programmed", "The Gateway is programmed in the data plane")


def gateway_not_programmed(reason: str, message: str) -> Condition:
    """Invalid, AddressNotAssigned or AddressNotUsable."""
    return Condition("Programmed", FALSE, reason, message)


def gateway_resolved_refs() -> Condition:
    """Nothing that the Gateway and its listeners refer to is missing."""
    return Condition("ResolvedRefs", TRUE, "ResolvedRefs", "All references are resolved")


def gateway_unresolved_refs(reason: str, message: str) -> Condition:
    """RefNotPermitted or InvalidClientCertificateRef (spec.tls.backend), or ListenersNotResolved."""
    return Condition("ResolvedRefs", FALSE, reason, message)


def gateway_insecure_validation(message: str) -> Condition:
    """AllowInsecureFallback stands somewhere in spec.tls.frontend; absent where it does not."""
    return Condition("InsecureFrontendValidationMode", TRUE, "ConfigurationChanged", message)


# Listener


def listener_accepted() -> Condition:
    """The listener can be served."""
    return Condition("Accepted", TRUE, "Accepted", "The listener is valid")


def listener_not_accepted(reason: str, message: str) -> Condition:
    """UnsupportedProtocol, UnsupportedValue, PortUnavailable, NoValidCACertificate, or the reason of a conflict."""
    return Condition("Accepted", FALSE, reason, message)


def listener_programmed() -> Condition:
    """The listener is in the data plane."""
    return Condition("Programmed", TRUE, "Programmed", "The listener is programmed in the data plane")


def listener_not_programmed(message: str, reason: str = "Invalid") -> Condition:
    """The listener is not in the data plane."""
    return Condition("Programmed", FALSE, reason, message)


def listener_resolved_refs() -> Condition:
    """Nothing that the listener refers to is missing."""
    return Condition("ResolvedRefs", TRUE, "ResolvedRefs", "All references are resolved")


def listener_unresolved_refs(reason: str, message: str) -> Condition:
    """InvalidRouteKinds, RefNotPermitted, InvalidCertificateRef, InvalidCACertificateRef, InvalidCACertificateKind."""
    return Condition("ResolvedRefs", FALSE, reason, message)


def listener_conflicted(reason: str, message: str) -> Condition:
    """HostnameConflict or ProtocolConflict with another listener of the same Gateway."""
    return Condition("Conflicted", TRUE, reason, message)


def listener_not_conflicted() -> Condition:
    """No other listener of the Gateway wants the same."""
    return Condition("Conflicted", FALSE, "NoConflicts", "No other listener of the Gateway conflicts")


def listener_overlapping(reason: str, message: str) -> Condition:
    """OverlappingHostnames or OverlappingCertificates with other listeners of the port; absent where there is none."""
    return Condition("OverlappingTLSConfig", TRUE, reason, message)


# ListenerSet


def listener_set_accepted() -> Condition:
    """It is attached to its Gateway, and every listener is valid."""
    return Condition("Accepted", TRUE, "Accepted", "The ListenerSet is attached to its Gateway")


def listener_set_partly_accepted(message: str) -> Condition:
    """It is attached; some listeners are valid, others are not."""
    return Condition("Accepted", TRUE, "ListenersNotValid", message)


def listener_set_not_accepted(reason: str, message: str) -> Condition:
    """Nothing of it is served: NotAllowed, ParentNotAccepted or ListenersNotValid."""
    return Condition("Accepted", FALSE, reason, message)


def listener_set_programmed() -> Condition:
    """Its valid listeners are in the data plane."""
    return Condition("Programmed", TRUE, "Programmed", "The ListenerSet is programmed in the data plane")


def listener_set_not_programmed(reason: str, message: str) -> Condition:
    """NotAllowed, ParentNotProgrammed, ListenersNotValid or Invalid."""
    return Condition("Programmed", FALSE, reason, message)


# Route, one set for each parent


def route_accepted() -> Condition:
    """At least one rule is served through this parent."""
    return Condition("Accepted", TRUE, "Accepted", "The route is accepted")


def route_not_accepted(reason: str, message: str) -> Condition:
    """NoMatchingParent, NotAllowedByListeners, NoMatchingListenerHostname or UnsupportedValue."""
    return Condition("Accepted", FALSE, reason, message)


def route_resolved_refs() -> Condition:
    """Every backendRef is valid."""
    return Condition("ResolvedRefs", TRUE, "ResolvedRefs", "All references are resolved")


def route_unresolved_refs(reason: str, message: str) -> Condition:
    """RefNotPermitted, InvalidKind, BackendNotFound or UnsupportedProtocol."""
    return Condition("ResolvedRefs", FALSE, reason, message)


def route_partially_invalid(message: str) -> Condition:
    """Some rules are not served as written; by the specification the message starts with "Dropped Rule"."""
    return Condition("PartiallyInvalid", TRUE, "UnsupportedValue", message)


# BackendTLSPolicy, one set for each Gateway that reaches its Service


def policy_accepted() -> Condition:
    """Endpoints are spoken to as the policy says."""
    return Condition("Accepted", TRUE, "Accepted", "The policy is in effect")


def policy_not_accepted(reason: str, message: str) -> Condition:
    """Conflicted, Invalid, TargetNotFound or NoValidCACertificate."""
    return Condition("Accepted", FALSE, reason, message)


def policy_resolved_refs() -> Condition:
    """Every CA certificate reference is valid."""
    return Condition("ResolvedRefs", TRUE, "ResolvedRefs", "All references are resolved")


def policy_unresolved_refs(reason: str, message: str) -> Condition:
    """InvalidCACertificateRef or InvalidKind."""
    return Condition("ResolvedRefs", FALSE, reason, message)
