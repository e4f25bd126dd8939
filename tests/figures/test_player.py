"""The Python side of the interactive figures; their front end is tried in tests/book/test_browser.py."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ddpm_lib.figures.player import PathPlayer


def player(frames=None, **options):
    frames = {"x_t": np.linspace(-1, 1, 5 * 8).reshape(5, 8)} if frames is None else frames
    return PathPlayer(frames, **({"description": "A line."} | options))


def decoded(widget):
    low, high = widget.meta["low"], widget.meta["high"]
    return low + (np.frombuffer(widget.values, "<i2") + 32767.0) * (high - low) / 65534


def test_values_survive_the_journey():
    x = np.random.default_rng(0).standard_normal((6, 40))
    y = torch.randn(40, generator=torch.Generator().manual_seed(0))
    widget = player({"x": x, "y": y})
    expected = np.concatenate([x.ravel(), y.numpy()])
    assert np.abs(decoded(widget) - expected).max() < np.ptp(expected) / 65534 + 2e-6
    assert [curve["frames"] for curve in widget.meta["curves"]] == [6, 1]


def test_curves_that_share_a_name():
    x = np.random.default_rng(0).standard_normal((6, 3, 40))
    widget = player({"draws": x, "flat": np.zeros(40)}, colors={"draws": "red"})
    assert [(c["name"], c["color"]) for c in widget.meta["curves"]] == [
        ("draws", "red"),
        ("", "red"),
        ("", "red"),
        ("flat", ""),
    ]
    assert np.abs(decoded(widget)[: 6 * 40] - x[:, 0].ravel()).max() < 1e-3
    assert "frames of draws, flat" in repr(widget)


def test_a_constant_curve_has_a_range():
    widget = player({"flat": np.full((2, 4), 3.0)})
    assert widget.meta["low"] < 3 < widget.meta["high"]
    assert np.allclose(decoded(widget), 3, atol=1e-4)


def test_saved_state_is_small():
    widget = player({"x_t": np.random.default_rng(0).standard_normal((60, 128)), "x0": np.zeros((60, 128))})
    assert len(widget.values) * 4 / 3 + len(widget._esm) + len(str(widget.meta)) < 60_000


def test_repr_is_stable():
    assert repr(player(title="A path")) == repr(player(title="A path")) == "PathPlayer('A path': 5 frames of x_t)"


def test_places_are_sent_only_when_uneven():
    assert player(x=np.linspace(0, 1, 8)).meta["places"] == []
    assert len(player(x=np.linspace(0, 1, 8) ** 2).meta["places"]) == 8


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ({}, {}, "at least one curve"),
        ({"a": np.zeros((1, 2, 3, 4))}, {}, r"Curve 'a' is \(1, 2, 3, 4\)"),
        ({"a": np.zeros((0, 4))}, {}, "none of them 0"),
        ({"a": np.zeros((3, 4)), "b": np.zeros((2, 4))}, {}, r"Curve 'b' is \(2, 4\); \(3, 4\)"),
        ({"a": np.zeros((3, 4)), "b": np.zeros((3, 5))}, {}, r"Curve 'b' is \(3, 5\)"),
        ({"a": np.array([[0.0, np.nan]])}, {}, "not finite"),
        (None, {"labels": ["one"]}, "labels has 1 texts; 5"),
        (None, {"x": np.arange(3)}, "x must be 8 finite numbers"),
        (None, {"colors": {"b": "red"}}, "colors names 'b'"),
        (None, {"start": 5}, "start is 5"),
        (None, {"description": " "}, "description is empty"),
    ],
)
def test_bad_input_gets_one_sentence(frames, options, message):
    with pytest.raises(ValueError, match=message):
        player(frames, **options)


@pytest.mark.slow
def test_the_library_does_not_need_the_widgets():
    code = "import sys, ddpm_lib; sys.exit('anywidget' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
