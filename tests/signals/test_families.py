"""The other families: each held to a definition that is not its formula, and to an exact denoiser that is."""

import math

import numpy as np
import pytest
import torch
from helpers import HO, noise, rng
from scipy import signal as scipy_signal

from ddpm_lib import BenchmarkMorlet, FamilyOracle, fit_family, q_sample
from ddpm_lib.signals import Chirp, DampedSine, Edges, PulsePair, Ricker, Sawtooth, TwoMorlets, families

DOUBLE = torch.float64
every = pytest.mark.parametrize("make", families.ALL, ids=[f.__name__ for f in families.ALL])
exact_ones = pytest.mark.parametrize("make", families.ALL[:-1], ids=[f.__name__ for f in families.ALL[:-1]])


def render(family, *params):
    """One signal in float64, (L,), and its positions."""
    return family.render(torch.tensor([params], dtype=DOUBLE))[0, 0], family.x.double()


def test_ricker_is_the_second_derivative_of_a_gaussian():
    y, x = render(Ricker(), 1.3, 0.4, 0.5)
    x.requires_grad_()
    gauss = torch.exp(-(((x - 0.4) / 0.5) ** 2) / 2)
    slope = torch.autograd.grad(gauss.sum(), x, create_graph=True)[0]
    bend = torch.autograd.grad(slope.sum(), x)[0]
    torch.testing.assert_close(y, -1.3 * 0.5**2 * bend)


def test_chirp_is_that_of_scipy():
    y, x = render(Chirp(), 0.9, 0.2, 0.5)
    expected = scipy_signal.chirp(x.numpy(), f0=0.9, t1=1.0, f1=1.1, phi=math.degrees(0.5)) * np.exp(
        -(x.numpy() ** 2) / 4
    )
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_damped_sine_is_the_answer_of_an_oscillator():
    """The impulse response of y'' + 2d·y' + (d² + ω²)·y = ω·δ."""
    y, x = render(DampedSine(), -1.5, 0.8, 0.9)
    omega, d = 2 * math.pi * 0.8, 0.9
    since = x[x > -1.5].numpy() + 1.5
    system = scipy_signal.lti([omega], [1, 2 * d, d**2 + omega**2])
    grid = np.linspace(0, since[-1], 4001)
    expected = np.interp(since, *scipy_signal.impulse(system, T=grid))
    np.testing.assert_allclose(y[x > -1.5], expected, atol=1e-4)
    assert (y[x <= -1.5] == 0).all()


def test_pulse_pair_is_odd_about_its_middle():
    family = PulsePair(length=129)
    y, x = render(family, 0.0, 2.0, 0.25)
    torch.testing.assert_close(y, -y.flip(0))
    assert float(x[y.argmax()]) == pytest.approx(-1, abs=0.04) and float(x[y.argmin()]) == pytest.approx(1, abs=0.04)


def averaged(function, family, fine=400):
    """Means of a function over the cells of a family's samples, by a fine midpoint sum."""
    x = family.x.double().numpy()
    cell = x[1] - x[0]
    inside = (np.arange(fine) + 0.5) / fine - 0.5
    return function(x[:, None] + cell * inside).mean(1)


def test_edges_are_the_averages_of_a_box():
    family = Edges()
    y, x = render(family, 1.2, -1.03, 1.71)
    np.testing.assert_allclose(y, averaged(lambda v: 1.2 * ((v > -1.03) & (v < -1.03 + 1.71)), family), atol=4e-3)
    assert float(y.sum() * (x[1] - x[0])) == pytest.approx(1.2 * 1.71, rel=1e-6)


def test_sawtooth_is_the_average_of_that_of_scipy():
    family = Sawtooth()
    y, _ = render(family, 0.6, 1.9, 0.3)
    theirs = averaged(lambda v: -0.6 * scipy_signal.sawtooth(2 * np.pi * (v / 1.9 + 0.3)), family)
    np.testing.assert_allclose(y, theirs, atol=5e-3)


def test_two_morlets_are_a_sum():
    one = BenchmarkMorlet()
    theta = torch.tensor([[-1.0, 0.5, 5.0, 1.5, 0.4, 6.0]])
    torch.testing.assert_close(TwoMorlets().render(theta), one.render(theta[:, :3]) + one.render(theta[:, 3:]))


@every
def test_every_signal_is_finite_and_of_ordinary_size(make):
    x0, params = make().sample(2000, rng())
    assert x0.isfinite().all() and x0.abs().max() < 3 and params.isfinite().all()
    assert 0.01 < x0.square().mean() < 0.6


@every
def test_every_parameter_changes_the_signal(make):
    """Nowhere in the box is a parameter without effect, or an exact answer would not know it."""
    family = make()
    _, theta = family.sample(500, rng(1))
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda p: family.render(p[None]).flatten()))(theta.double())
    size = (jacobian * (family.high - family.low).double()).square().sum(1)  # (n, P)
    assert size.min() > 1e-3


@pytest.mark.slow
@exact_ones
@pytest.mark.parametrize("t", [10, 100, 300])
def test_a_finer_quadrature_changes_less_than_two_percent(make, t):
    family = make()
    x0, _ = family.sample(32, rng())
    eps = noise(*x0.shape, seed=1)
    xt = q_sample(x0, t, eps, HO)
    best = FamilyOracle(family, HO, cells=32768, keep=512, resolution=0.6)(xt, t).eps
    error = (FamilyOracle(family, HO)(xt, t).eps - best).square().mean()
    assert error < 0.02 * (eps - best).square().mean()


@exact_ones
def test_a_fit_finds_the_family(make):
    family = make()
    x0, _ = family.sample(100, rng())
    assert fit_family(x0, family).valid.float().mean() > 0.97


def test_six_parameters_have_no_exact_denoiser():
    with pytest.raises(ValueError, match="three"):
        FamilyOracle(TwoMorlets(), HO)


@pytest.mark.parametrize(
    "make", [lambda: Ricker(s=(0.0, 1.0)), lambda: Edges(d=(-1.0, 1.0)), lambda: Sawtooth(p=(0.0, 2.0))]
)
def test_boxes_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError, match="must be positive, got"):
        make()


class Hard(Edges):
    """Edges that are not averaged: one that moves within a cell changes nothing."""

    def formula(self, x, A, a, d):
        return A * ((x >= a) & (x < a + d)).to(x.dtype)


@pytest.mark.parametrize("ask", [lambda f: FamilyOracle(f, HO), lambda f: fit_family(torch.ones(1, 1, 128), f)])
def test_a_parameter_without_effect_is_told(ask):
    with pytest.raises(ValueError, match="No signal changes when a changes a little"):
        ask(Hard())


def test_a_chirp_that_aliases_is_warned_about():
    with pytest.warns(UserWarning, match="Nyquist"):
        Chirp(length=32)
