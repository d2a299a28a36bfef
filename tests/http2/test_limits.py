"""The numbers of the engine: defaults, bounds, reasons."""

from types import SimpleNamespace

import pytest

from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.limits import LIMITS
from pygw.settings import Settings


def test_each_limit_has_a_unit_and_a_reason():
    names = [name for name, *_ in LIMITS]
    assert len(set(names)) == len(names)
    for _, default, unit, reason in LIMITS:
        assert default > 0
        assert unit.isalpha()
        assert reason.endswith(".")


def test_settings_have_the_same_defaults():
    settings = Settings()
    for name, default, *_ in LIMITS:
        assert getattr(settings, name, default) == default


@pytest.mark.parametrize("name", [name for name, *_ in LIMITS])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2**31, ValueError), ("1", TypeError)])
def test_limits_are_checked(name, value, error):
    with pytest.raises(error, match=name):
        ConnectionOptions(limits=SimpleNamespace(**{name: value}))
    ConnectionOptions(limits=SimpleNamespace(**{name: 1}))


@pytest.mark.parametrize(("options", "name"), [
    ({"stream_window": 0}, "stream_window"),
    ({"stream_window": 100, "stream_window_max": 99}, "stream_window"),
    ({"stream_window_max": 2**31}, "stream_window_max"),
    ({"connection_window": 65534}, "connection_window"),
    ({"connection_window": 2**31}, "connection_window"),
])  # fmt: skip
def test_windows_are_checked(options, name):
    with pytest.raises(ValueError, match=name):
        ConnectionOptions(**options)
