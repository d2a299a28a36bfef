"""Settings: the table that --list-settings prints must be whole and must match the class."""

import dataclasses
import re
from pathlib import Path

import pytest

from pygw.settings import Settings, describe

ROWS = describe()


def test_every_setting_is_described_in_order():
    assert [row["name"] for row in ROWS] == [item.name for item in dataclasses.fields(Settings)]
    for row in ROWS:
        assert row["default"] == getattr(Settings(), row["name"])


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_a_description_is_useful(row):
    assert set(row) >= {"name", "default", "unit", "reason", "metric"}
    assert row["unit"]
    assert row["reason"].endswith(".")
    assert row["reason"][0].isupper()
    assert row["metric"].startswith("pygw_") or "No metric: " in row["reason"]


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_units_and_types_agree(row):
    if row["unit"] == "seconds":
        assert isinstance(row["default"], float)
    elif row["unit"] == "boolean":
        assert isinstance(row["default"], bool)
    elif isinstance(row["default"], int):
        assert not isinstance(row["default"], bool)
    if isinstance(row["default"], int | float):
        assert row["default"] >= 0


def test_defaults_that_the_interface_promises():
    settings = Settings()
    assert settings.connect_timeout == 5
    assert settings.handshake_timeout == 10
    # No hidden end of idle or old connections, and none of calls: there is no setting for their total time.
    assert settings.max_connection_idle == settings.max_connection_age == settings.max_connection_age_grace == 0
    assert not any("call_timeout" in row["name"] or "message_size" in row["name"] for row in ROWS)


def test_windows_are_legal_and_fit_into_each_other():
    settings = Settings()
    # RFC 9113 §6.5.2 and §6.9.1: a window is at most 2**31 - 1.
    assert 0 < settings.stream_window <= settings.stream_window_max <= settings.connection_window <= 2**31 - 1
    assert 0 < settings.request_window <= settings.stream_window_max


def test_settings_do_not_change_after_they_are_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_concurrent_streams = 5  # type: ignore[misc]
    assert dataclasses.replace(Settings(), max_concurrent_streams=5).max_concurrent_streams == 5
    assert Settings() == Settings()


def test_metrics_that_settings_name_exist():
    from pygw.proxy.call_metrics import HELP

    named = {row["metric"].partition("{")[0] for row in ROWS} - {""}
    pages = (Path(__file__).parents[1] / "pygw/control/pages.py").read_text()
    shown = set(HELP) | {name for name in named if f'"{name}"' in pages}
    assert named <= shown, f"settings name metrics that nothing shows: {sorted(named - shown)}"


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_labels_that_settings_name_exist(row):
    from pygw.proxy.call_metrics import LIMITS, count_everything

    name, _, labels = row["metric"].partition("{")
    if not labels:
        return
    label, _, value = labels.removesuffix("}").partition("=")
    shown = [values[label] for known, values, _ in count_everything() if known == name]
    assert shown
    if label == "limit":
        assert (value.strip('"') or row["name"]) in shown
    assert set(LIMITS) <= {known["name"] for known in ROWS}


def test_the_limits_that_the_threat_model_names_exist():
    text = (Path(__file__).parents[1] / "SECURITY.md").read_text()
    names = {row["name"] for row in ROWS}
    named = re.findall(r"`([a-z]+(?:_[a-z]+)+|[a-z]+(?:_[a-z]+)*_\*)`", text)
    assert len(named) > 12
    for name in named:
        assert name in names or any(name[-1] == "*" and known.startswith(name[:-1]) for known in names), name
