"""The figures of the book: they draw what they are given."""

import matplotlib.pyplot as plt
import pytest
import torch
from helpers import rng

from ddpm_lib.figures import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_curves_draw_every_signal():
    x, signals = torch.linspace(-1, 1, 9), torch.randn(3, 9, generator=rng())
    _, ax = plt.subplots()
    for form in (signals, signals[:, None], list(signals)):
        plots.curves(ax, x, form)
    plots.curves(ax, x, signals[0], color=plots.MODEL)
    assert len(ax.lines) == 10
    assert ax.lines[4].get_ydata() == pytest.approx(signals[1].numpy())
    assert (ax.lines[0].get_color(), ax.lines[9].get_color()) == (plots.SIGNAL, plots.MODEL)


def test_losses_are_smoothed_over_the_window():
    values = torch.rand(200, generator=rng()) + 0.5
    _, ax = plt.subplots()
    plots.losses(ax, values, floor=0.1, linear=0.4, window=20)
    raw, smooth, linear, floor = ax.lines
    assert raw.get_ydata() == pytest.approx(values.numpy())
    assert len(smooth.get_xdata()) == 181 and smooth.get_xdata()[0] == 19
    assert smooth.get_ydata()[5] == pytest.approx(float(values[5:25].mean()))
    assert (linear.get_ydata()[0], floor.get_ydata()[0]) == (0.4, 0.1) and ax.get_yscale() == "log"


def test_loss_by_t_names_its_curves():
    _, ax = plt.subplots()
    t = torch.tensor([1, 10, 100])
    plots.loss_by_t(ax, t, {"exact": (torch.ones(3), plots.EXACT), "linear": (2 * torch.ones(3), plots.LINEAR)})
    assert [line.get_label() for line in ax.lines] == ["exact", "linear"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["exact", "linear"]


def test_panels_have_no_ticks():
    fig, axes = plots.panels(2, 3)
    assert axes.shape == (2, 3) and all(len(ax.get_xticks()) == len(ax.get_yticks()) == 0 for ax in axes.flat)
    assert tuple(fig.get_size_inches()) == (7.2, 2.6)


def test_style_sets_the_look(monkeypatch):
    with plt.rc_context():
        plots.style()
        assert plt.rcParams["figure.constrained_layout.use"] and not plt.rcParams["axes.spines.top"]


def test_colours_have_one_meaning():
    assert len({plots.SIGNAL, plots.NOISE, plots.MODEL, plots.EXACT, plots.LINEAR}) == 5
