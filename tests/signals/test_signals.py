"""Families of signals: formulas against NumPy and PyWavelets, laws against SciPy, refusals."""

import math
import warnings

import numpy as np
import pytest
import torch
from helpers import assert_mean, rng
from scipy import stats

from ddpm_lib import BenchmarkMorlet, Family, Finite, Morlet, morlet, report_grid
from ddpm_lib.checks import check_signals
from ddpm_lib.signals import finite, wavelets

every = pytest.mark.parametrize("make", [*wavelets.ALL, *finite.ALL], ids=lambda f: f.__name__)
families = pytest.mark.parametrize(
    "family", [f for f in (make() for make in wavelets.ALL) if isinstance(f, Family)], ids=lambda f: type(f).__name__
)


# --- the formulas -------------------------------------------------------------------------------------


def test_morlet_is_the_wavelet_of_pywavelets():
    pywt = pytest.importorskip("pywt")
    psi, x = pywt.ContinuousWavelet("morl").wavefun(level=10)
    ours = morlet(torch.tensor(x), frequency=5 / (2 * math.pi)).numpy()
    assert np.abs(ours - psi).max() < 1e-12 and np.abs(psi).max() > 0.99


def test_morlet_with_every_parameter():
    x = np.linspace(-2, 2, 101)
    d = x - 0.3
    expected = 0.7 * np.exp(-(d**2) / (2 * 0.4**2)) * np.cos(2 * np.pi * 1.5 * d + 0.9)
    ours = morlet(torch.tensor(x), amplitude=0.7, frequency=1.5, width=0.4, shift=0.3, phase=0.9)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-15)


def test_benchmark_formula():
    family = BenchmarkMorlet()
    _, params = family.sample(20, rng())
    params = params.double()
    b, s, w = params.T[:, :, None].numpy()
    u = (np.linspace(-4, 4, 128) - b) / s
    assert (
        np.abs(family.render(params)[:, 0].numpy() - np.exp(-(u**2) / 2) * np.cos(w * u)).max() < 2e-6
    )  # x is float32


def test_benchmark_power():
    """Against Gauss-Legendre quadrature in NumPy, and that against the number of the literature."""
    gauss = np.polynomial.legendre.leggauss
    (b, p), (s, q), (w, r) = gauss(80), gauss(40), gauss(12)
    b, s, w = (2 * b)[:, None, None, None], (0.7 + 0.3 * s)[:, None, None], (5.5 + 1.5 * w)[:, None]
    u = (np.linspace(-4, 4, 128) - b) / s
    square = (np.exp(-(u**2) / 2) * np.cos(w * u)) ** 2
    power = np.einsum("bswx,b,s,w->", square, p / 2, q / 2, r / 2) / 128
    assert power == pytest.approx(0.0769363232, abs=1e-9)
    x0, _ = BenchmarkMorlet().sample(20_000, rng())
    assert_mean(x0.square().mean((1, 2)), power)


def test_report_grid():
    grid = report_grid()
    assert grid.signals.shape == (60, 1, 2000) and grid.names == ("amplitude", "frequency", "width")
    expected = {(a, f, s) for a in (0.5, 1, 1.5) for f in (5, 10, 15, 20, 25) for s in (0.05, 0.1, 0.15, 0.2)}
    assert {tuple(round(v, 4) for v in row) for row in grid.params.tolist()} == expected
    a, f, s = grid.params.double().T[:, :, None].numpy()
    t = np.linspace(-1, 1, 2000)
    np.testing.assert_allclose(
        grid.signals[:, 0].numpy(), a * np.cos(2 * np.pi * f * t) * np.exp(-(t**2) / (2 * s**2)), atol=3e-5
    )
    distances = torch.pdist(grid.signals[:, 0])
    assert distances.min() > 0.5


def test_a_signal_does_not_change_with_the_length():
    params = torch.tensor([[1.0, 10.0, 0.1]])
    torch.testing.assert_close(
        Morlet(length=501).render(params)[..., ::5], Morlet(length=101).render(params), atol=3e-5, rtol=0
    )


# --- laws of every family -----------------------------------------------------------------------------


@every
def test_sample(make):
    family = make()
    x0, params = family.sample(7, rng(1))
    assert x0.shape == (7, 1, family.length) and params.shape == (7, len(family.names))
    assert x0.dtype == params.dtype == torch.float32 and x0.isfinite().all()
    again, other = family.sample(7, rng(1)), family.sample(7, rng(2))
    assert torch.equal(x0, again[0]) and torch.equal(params, again[1])
    assert not torch.equal(params, other[1])
    with pytest.raises(ValueError, match=r"number of signals must be an integer from 1 .* got 0"):
        family.sample(0)


@every
def test_shipped_families_do_not_alias(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


@families
def test_parameters_are_uniform_and_independent_in_the_box(family):
    x0, params = family.sample(4000, rng(3))
    assert (params >= family.low).all() and (params <= family.high).all()
    for column, low, high in zip(params.T, family.low, family.high, strict=True):
        assert stats.kstest(column.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    correlation = torch.corrcoef(params.T) - torch.eye(len(params.T))
    assert correlation.abs().max() < 4.5 / math.sqrt(4000)
    assert torch.equal(family.render(params), x0)


def test_a_finite_set_is_drawn_evenly():
    grid = report_grid(128)
    x0, params = grid.sample(6000, rng(4))
    which = torch.cdist(params, grid.params).argmin(1)
    assert torch.equal(x0, grid.signals[which])
    assert stats.chisquare(torch.bincount(which, minlength=60).numpy()).pvalue > 1e-3


@families
@pytest.mark.parametrize("length", [2, 7, 100, 127, 513])
def test_any_length(family, length):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short ones alias
        other = type(family)(length=length)
    x0, _ = other.sample(3, rng())
    assert x0.shape == (3, 1, length) and other.x.shape == (length,)
    assert other.x[0] == family.x[0] and other.x[-1] == family.x[-1]
    torch.testing.assert_close(other.x.diff(), other.x.diff()[:1].expand(length - 1), atol=1e-6, rtol=0)


@families
@pytest.mark.parametrize("cells", [10, 1000])
def test_grid_covers_the_box_once(family, cells):
    middles, size = family.grid(cells)
    assert cells <= len(middles) < 30 * cells**0.7 + 2 * cells
    assert ((middles - size / 2 > family.low - 1e-5) & (middles + size / 2 < family.high + 1e-5)).all()
    assert len(middles) * size.prod().item() == pytest.approx((family.high - family.low).prod().item(), rel=1e-4)
    assert len({tuple(row) for row in middles.tolist()}) == len(middles)


def test_cells_are_as_long_in_every_direction_as_the_signal_changes():
    family = BenchmarkMorlet()
    _, size = family.grid(100_000)
    _, theta = family.sample(500, rng())
    steps = (1e-2 * size).diag()
    change = [(family.render(theta + h) - family.render(theta)).square().sum((1, 2)).mean().sqrt() for h in steps]
    assert max(change) < 1.2 * min(change)


@pytest.mark.parametrize("box", [{"w": (5.5, 5.501)}, {"w": (5.5, 5.501), "b": (0.0, 1e-4)}])
def test_a_box_that_is_narrow_in_one_direction_has_no_more_cells_than_another(box):
    middles, size = BenchmarkMorlet(**box).grid(16384)
    assert 16384 <= len(middles) < 2 * 16384
    for name, (low, high) in box.items():
        assert size[BenchmarkMorlet().names.index(name)] == pytest.approx((high - low) / 2, rel=1e-3)


def test_your_own_family_in_five_lines():
    class Chirp(Family):
        def formula(self, x, rate, phase):
            return torch.sin(rate * x**2 + phase)

    chirp = Chirp(dict(rate=(1.0, 5.0), phase=(0.0, 3.0)), length=50, domain=(0.0, 2.0))
    x0, params = chirp.sample(4, rng())
    torch.testing.assert_close(x0[2, 0], torch.sin(params[2, 0] * chirp.x**2 + params[2, 1]))
    assert repr(chirp) == "Chirp(rate 1…5, phase 0…3; 50 samples on 0…2)"


def test_any_subset_of_the_parameters_is_free():
    family = Morlet(amplitude=2.0, frequency=5.0, shift=(-0.5, 0.5), phase=(0.0, 1.0), width=0.1)
    assert family.names == ("shift", "phase")
    params = torch.tensor([[0.25, 0.5]])
    expected = morlet(family.x, 2.0, 5.0, 0.1, 0.25, 0.5)
    torch.testing.assert_close(family.render(params)[0, 0], expected)


def test_a_finite_set_keeps_what_it_is_given():
    x = torch.randn(5, 2, 9, generator=rng())
    mine = Finite(x)
    assert mine.signals is x and mine.params[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (mine.names, mine.length) == (("index",), 9) and repr(mine) == "Finite(5 signals of shape (2, 9))"


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({}, "at least one free parameter, got an empty box"),
        ({"a": (0.0, 1.0), "b": (2.0, 1.0)}, r"'b' needs finite limits low < high, got \(2\.0, 1\.0\)"),
        ({"a": (1.0, 1.0)}, r"'a' needs finite limits low < high"),
        ({"a": (0.0, math.inf)}, r"got \(0\.0, inf\)"),
        ({"a": (math.nan, 1.0)}, r"got \(nan, 1\.0\)"),
    ],
)
def test_boxes_that_are_refused(box, message):
    with pytest.raises(ValueError, match=message):
        Family(box, 16, (0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Morlet(length=1), "length must be an integer from 2"),
        (lambda: Morlet(domain=(1.0, -1.0)), "The domain needs finite limits low < high"),
        (lambda: Morlet(amplitude=1.0, frequency=5.0, width=0.1), "at least one free parameter"),
        (lambda: Morlet(width=(0.0, 0.1)), r"width must be positive, got \(0\.0, 0\.1\)"),
        (lambda: Morlet(width=-0.1), r"width must be positive, got -0\.1"),
        (lambda: Morlet(frequency=(25.0, 5.0)), r"'frequency' needs finite limits low < high, got \(25\.0, 5\.0\)"),
        (lambda: Morlet(frequency=[5.0, 15.0, 25.0]), r"'frequency' needs a pair \(low, high\), got \[5\.0"),
        (lambda: BenchmarkMorlet(b=0.0), r"'b' needs a pair \(low, high\), got 0\.0"),
        (lambda: BenchmarkMorlet(s=(-1.0, 1.0)), "width s must be positive"),
        (lambda: BenchmarkMorlet(w=(7.0, 4.0)), "'w' needs finite limits low < high"),
    ],
)
def test_families_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_list_is_a_pair_too():
    one, other = Morlet(frequency=[5.0, 25.0], shift=0), Morlet(frequency=(5.0, 25.0))
    assert one.names == other.names and repr(one) == repr(other)
    assert torch.equal(one.sample(3, rng())[0], other.sample(3, rng())[0])


def test_a_family_without_a_formula_says_so():
    with pytest.raises(NotImplementedError, match=r"Family needs a method formula\(x, a, b\)"):
        Family(dict(a=(0.0, 1.0), b=(0.0, 1.0)), 16, (0.0, 1.0)).sample(1)


@pytest.mark.parametrize(
    ("make", "frequency", "nyquist"),
    [
        (lambda: Morlet(length=51), "25", "12.5"),
        (lambda: Morlet(length=11, frequency=3.0), "3", "2.5"),
        (lambda: BenchmarkMorlet(length=33), "2.79", "2"),
    ],
)
def test_frequencies_above_nyquist_are_warned_about(make, frequency, nyquist):
    with pytest.warns(UserWarning, match=f"highest frequency {frequency} lies above the Nyquist frequency {nyquist} "):
        make()


BAD_SIGNALS = [
    (np.zeros((2, 1, 4)), TypeError, r"be a tensor of shape \(\w, C, L\), got ndarray"),
    (torch.zeros(3, 4), ValueError, r"have shape \(\w, C, L\), none of them 0, got \(3, 4\)"),
    (torch.zeros(0, 1, 4), ValueError, r"none of them 0, got \(0, 1, 4\)"),
    (torch.zeros(2, 1, 4, dtype=torch.int64), TypeError, r"be floating point.* got torch\.int64; .*\.float\(\)"),
    (torch.tensor([[[0.0]], [[math.nan]], [[math.inf]]]), ValueError, "finite.* NaN or infinity in 2 of 3 rows"),
]


@pytest.mark.parametrize(("x", "error", "message"), BAD_SIGNALS)
def test_signals_that_are_refused(x, error, message):
    with pytest.raises(error, match=r"^signals must .*" + message):
        Finite(x)
    with pytest.raises(error, match=r"^x0 must .*" + message):
        check_signals(x)


def test_params_must_belong_to_the_signals():
    with pytest.raises(ValueError, match=r"3 signals and 2 names need params of shape \(3, 2\), got \(3, 1\)"):
        Finite(torch.zeros(3, 1, 4), torch.zeros(3, 1), ("a", "b"))
    with pytest.raises(ValueError, match=r"got \(2, 1\)"):
        Finite(torch.zeros(3, 1, 4), torch.zeros(2, 1))
