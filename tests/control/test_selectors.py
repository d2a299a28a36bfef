"""Label selectors, as kubectl and the API server understand them."""

import pytest

from pygw.control.selectors import selector_fault, selects


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": "1"}}, {}, False),
        ({"matchLabels": {"a": "1", "b": "2"}}, {"a": "1"}, False),
        (expression("a", "In", "1", "2"), {"a": "2"}, True),
        (expression("a", "In", "1", "2"), {"a": "3"}, False),
        (expression("a", "In", "1"), {}, False),
        (expression("a", "NotIn", "1"), {"a": "2"}, True),
        (expression("a", "NotIn", "1"), {"a": "1"}, False),
        (expression("a", "NotIn", "1"), {}, True),
        (expression("a", "Exists"), {"a": ""}, True),
        (expression("a", "Exists"), {"b": ""}, False),
        (expression("a", "DoesNotExist"), {"b": ""}, True),
        (expression("a", "DoesNotExist"), {"a": ""}, False),
        ({"matchLabels": {"a": "1"}, **expression("b", "Exists")}, {"a": "1"}, False),
    ],
)
def test_selects(selector, labels, expected):
    assert selector_fault(selector) is None
    assert selects(selector, labels) is expected


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        (None, "a selector is needed"),
        (expression("a", "Equals", "1"), "'Equals' is none of"),
        (expression("a", "In"), "In needs at least one value"),
        (expression("a", "NotIn"), "NotIn needs at least one value"),
        (expression("a", "Exists", "1"), "Exists takes no values"),
        (expression("a", "DoesNotExist", "1"), "takes no values"),
    ],
)
def test_faults(selector, says):
    assert says in selector_fault(selector)
