"""Kubernetes label selectors (metav1.LabelSelector), as allowedRoutes.namespaces.selector uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"

_NEEDS_VALUES = {"In": True, "NotIn": True, "Exists": False, "DoesNotExist": False}


def selector_fault(selector: Any) -> str | None:
    """Why this is no valid selector; None if it is. The schema of the CRD lets these faults pass."""
    if selector is None:
        return "a selector is needed where namespaces.from is Selector"
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        operator = expression.get("operator")
        needs_values = _NEEDS_VALUES.get(operator)
        if needs_values is None:
            return f"matchExpressions[{index}].operator {operator!r} is none of In, NotIn, Exists, DoesNotExist"
        if needs_values != bool(expression.get("values")):
            wants = "needs at least one value" if needs_values else "takes no values"
            return f"matchExpressions[{index}]: {operator} {wants}"
    return None


def labels_of(namespace: str, item: Mapping[str, Any] | None) -> dict[str, str]:
    """The labels of a namespace; its name is always one of them, whether the object is given or not."""
    return {**((item or {}).get("metadata", {}).get("labels") or {}), NAMESPACE_NAME_LABEL: namespace}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a valid selector selects these labels; an empty one selects everything."""
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    return all(_meets(expression, labels) for expression in selector.get("matchExpressions") or ())


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":  # also what does not have the label at all
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels
