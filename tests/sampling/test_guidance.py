"""Signals that agree with a measurement: against conditional Gaussians, sums over the box, and the exact posterior."""

import math

import pytest
import torch
from helpers import HO, SHORT, rng
from torch.testing import assert_close

from ddpm_lib import FamilyOracle, Gaussian, Morlet, Prediction, fit_family, q_sample, sample
from ddpm_lib.diffusion import Measurement
from ddpm_lib.exact import posterior_given
from ddpm_lib.sampling import ClassifierFreeGuidance, PseudoinverseGuidance, conditions
from ddpm_lib.sampling.inverse import white_variance

DOUBLE = torch.float64
L = 6


def gaussian(seed=0):
    """Six-dimensional Gaussian data and their exact denoiser, in float64."""
    root = torch.randn(L, L, generator=rng(seed), dtype=DOUBLE)
    mean = torch.randn(1, L, generator=rng(seed + 1), dtype=DOUBLE)
    return mean, root @ root.T / L, Gaussian(mean, root @ root.T / L, HO)


def conditional(mean, cov, rows, noise, seen):
    """Mean of x_0 ~ N(mean, cov) given rows·x_0 + N(0, diag(noise)) = seen, by the textbook formula."""
    gain = cov @ rows.T @ torch.linalg.inv(rows @ cov @ rows.T + torch.diag(noise))
    return mean + (seen - mean @ rows.T) @ gain.T


@pytest.mark.parametrize("t", [1, 50, 300, 700, 1000])
def test_on_gaussian_data_it_is_the_mean_given_both(t):
    """x_t and y are two measurements of one signal: one formula conditions on both at once."""
    mean, cov, exact = gaussian()
    matrix = torch.randn(3, L, generator=rng(5), dtype=DOUBLE)
    measured = Measurement(matrix, 0.3)
    x0 = torch.randn(4, 1, L, generator=rng(6), dtype=DOUBLE)
    y = measured.observe(x0, rng(7))
    xt = q_sample(x0, t, torch.randn(x0.shape, generator=rng(8), dtype=DOUBLE), HO)
    a, s = (float(v) for v in HO(torch.tensor([t]), DOUBLE))
    rows = torch.cat([a * torch.eye(L, dtype=DOUBLE), matrix])
    noise = torch.tensor([s**2] * L + [0.3**2] * 3, dtype=DOUBLE)
    expected = conditional(mean, cov, rows, noise, torch.cat([xt[:, 0], y], 1))
    found = PseudoinverseGuidance(exact, measured, y)(xt, t)
    assert_close(found.x0[:, 0], expected, rtol=1e-6, atol=1e-6)
    assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-9, atol=1e-9)


class Plain:
    """The exact denoiser of white noise of power 0.08, as a network would be: differentiable, and no covariance."""

    schedule = HO

    def __call__(self, xt, t, cond=None):
        _, a, s = HO.at(t, xt)
        x0 = 0.08 * a / (0.08 * a**2 + s**2) * xt
        return Prediction(x0, (xt - a * x0) / s)


@pytest.mark.parametrize("t", [1, 100, 500, 1000])
def test_a_network_s_slope_does_what_an_oracle_s_covariance_does(t):
    exact = Gaussian(torch.zeros(1, L, dtype=DOUBLE), 0.08 * torch.eye(L, dtype=DOUBLE), HO)
    measured = Measurement(torch.randn(2, L, generator=rng(1), dtype=DOUBLE), 0.1)
    xt, y = torch.randn(3, 1, L, generator=rng(2), dtype=DOUBLE), torch.randn(3, 2, generator=rng(3), dtype=DOUBLE)
    one, other = PseudoinverseGuidance(exact, measured, y)(xt, t), PseudoinverseGuidance(Plain(), measured, y)(xt, t)
    assert_close(one.x0, other.x0, rtol=1e-6, atol=1e-9)
    assert not other.x0.requires_grad and not xt.requires_grad


def test_white_is_the_variance_of_white_noise():
    t = torch.tensor([1, 300, 1000])
    ab = HO.alpha_bar(t)
    assert_close(white_variance(HO, t, 0.5), 1 / (1 / 0.5 + ab / (1 - ab)))


ONE = Morlet(64, amplitude=1.0, frequency=2.0, width=0.2, shift=(-0.5, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "measured",
    [
        Measurement.samples(torch.arange(64) % 8 == 0, 0.3),
        Measurement.samples((torch.arange(64) < 20) | (torch.arange(64) > 40), 0.1),
        Measurement.low_pass(64, 3.0, 0.05, stride=4),
    ],
    ids=["every eighth", "a hole", "low pass"],
)
def test_the_exact_posterior_is_a_sum_over_the_box(measured):
    x0, _ = ONE.sample(20, rng())
    y = measured.observe(x0, rng(1))
    grid = torch.linspace(-0.5, 0.5, 20_001, dtype=DOUBLE)[:, None]
    apart = torch.cdist(y.double(), measured(ONE.render(grid)))
    weight = (-(apart**2) / (2 * measured.sigma**2)).softmax(1)
    mean, spread = weight @ grid[:, 0], (weight @ grid[:, 0] ** 2 - (weight @ grid[:, 0]) ** 2).sqrt()
    draws = posterior_given(ONE, measured, y, HO, 1000, rng(2), moves=40)[..., 0].double()
    assert ((draws.mean(1) - mean).abs() < 0.15 * spread).all()
    assert ((draws.std(1) / spread - 1).abs() < 0.15).all()


@pytest.mark.slow
def test_a_wide_posterior_is_right_too():
    """A blurred wavelet is all but invisible. The quadrature alone keeps too few cells of so wide a law."""
    measured = Measurement.low_pass(64, 1.5, 0.05, stride=2)
    y = measured.observe(SHORT.render(torch.tensor([[0.9, 0.47, 6.4], [1.8, 0.44, 5.9]])), rng(1))
    axes = (low + (high - low) * (torch.arange(64) + 0.5) / 64 for low, high in zip(SHORT.low, SHORT.high, strict=True))
    grid = torch.cartesian_prod(*axes)
    apart = torch.cdist(y.double(), measured(SHORT.render(grid)).double())
    weight = (-(apart**2) / (2 * measured.sigma**2)).softmax(1)

    def off(draws):
        """Largest distance of a distribution function from that of the grid, over cases and parameters."""
        found = []
        for one, case in zip(draws, weight, strict=True):
            for k in range(3):
                middles = grid[:, k].unique()
                mass = torch.stack([case[grid[:, k] == v].sum() for v in middles]).cumsum(0)
                edges = middles + (middles[1] - middles[0]) / 2
                found.append(((one[:, k, None] <= edges).double().mean(0) - mass).abs().max())
        return max(found)

    draws = posterior_given(SHORT, measured, y, HO, 2000, rng(2))
    assert off(draws) < 2 / math.sqrt(2000)
    assert off(posterior_given(SHORT, measured, y, HO, 2000, rng(2), moves=0)) > 2 / math.sqrt(2000)


def test_to_measure_everything_is_to_denoise():
    everything = Measurement.samples(torch.ones(64, dtype=torch.bool), math.exp(-float(HO.log_snr(200)) / 2))
    x0, _ = SHORT.sample(5, rng())
    y = everything.observe(x0, rng(1))
    a, _ = HO(torch.tensor([200]))
    one = posterior_given(SHORT, everything, y, HO, 2000, rng(2))
    other = FamilyOracle(SHORT, HO).posterior(a * y[:, None], 200, 2000, rng(3))
    spread = other.std(1)
    assert ((one.mean(1) - other.mean(1)).abs() < 0.15 * spread).all()


@pytest.mark.slow
def test_the_exact_posterior_covers():
    """The parameters that a signal was made of lie in the middle 90 % of their posterior in 90 of 100 cases."""
    measured = Measurement.samples(torch.arange(64) % 3 == 0, 0.1)
    _, params = SHORT.sample(400, rng(4))
    y = measured.observe(SHORT.render(params), rng(5))
    draws = posterior_given(SHORT, measured, y, HO, 200, rng(6), moves=20)
    low, high = draws.quantile(0.05, dim=1), draws.quantile(0.95, dim=1)
    inside = ((params > low) & (params < high)).double().mean(0)
    assert ((inside - 0.9).abs() < 4 * math.sqrt(0.09 / 400)).all()


@pytest.mark.slow
def test_guided_samples_are_wavelets_that_agree_with_what_was_measured():
    hole = (torch.arange(64) < 26) | (torch.arange(64) > 38)
    measured = Measurement.samples(hole, 0.05)
    x0, _ = SHORT.sample(24, rng(7))
    y = measured.observe(x0, rng(8))
    exact = FamilyOracle(SHORT, HO)
    *_, x = sample(PseudoinverseGuidance(exact, measured, y), tuple(x0.shape), generator=rng(9))
    missed = (measured(x) - y).square().mean().sqrt()
    assert missed < 1.5 * 0.05 and fit_family(x, SHORT).valid.float().mean() > 0.9
    *_, free = sample(exact, tuple(x0.shape), generator=rng(9))
    assert (measured(free) - y).square().mean().sqrt() > 3 * missed


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Measurement.samples(torch.zeros(8, dtype=torch.bool), 0.1), ValueError, r"A mask must be True"),
        (lambda: Measurement(torch.zeros(0, 8), 0.1), ValueError, r"The matrix of a measurement .* got \(0, 8\)"),
        (lambda: Measurement([[1.0, 0.0]], 0.1), TypeError, "The matrix of a measurement must be a tensor"),
        (lambda: Measurement.low_pass(8, 0.0, 0.1), ValueError, "matrix .* must be finite"),
        (
            lambda: posterior_given(SHORT, Measurement(torch.eye(50), 0.1), torch.zeros(1, 50), HO, 5),
            ValueError,
            "measures signals of 50 samples, but those of .* have 64",
        ),
        (
            lambda: posterior_given(SHORT, Measurement(torch.eye(64), 0.1), torch.zeros(1, 50), HO, 5),
            ValueError,
            r"y must have shape \(B, 64\)",
        ),
        (lambda: Measurement(torch.zeros(2, 8), 0.1), ValueError, "without a row of zeros"),
        (lambda: Measurement(torch.full((2, 8), math.nan), 0.1), ValueError, "matrix .* must be finite"),
        (lambda: Measurement(torch.eye(8), 0.0), ValueError, "a number from 0.01"),
        (lambda: Measurement(torch.eye(8), math.nan), ValueError, "a number from 0.01"),
        (lambda: Measurement.samples(torch.ones(8), 0.1), TypeError, "must be a boolean tensor"),
        (
            lambda: PseudoinverseGuidance(Plain(), Measurement(torch.eye(8), 0.1), torch.zeros(2, 7)),
            ValueError,
            r"y must have shape \(B, 8\)",
        ),
        (
            lambda: posterior_given(SHORT, Measurement(torch.eye(64), 500.0), torch.zeros(1, 64), HO, 5),
            ValueError,
            "knows noise from 0.01 to",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- asking for parameters --------------------------------------------------------------------------------


class Knows:
    """x_0 is the condition where there is one, 0 where there is none; counts how often it is asked."""

    schedule = HO

    def __init__(self):
        self.calls = 0

    def __call__(self, xt, t, cond=None):
        self.calls += 1
        _, a, s = HO.at(t, xt)
        x0 = cond.nan_to_num()[:, :, None].expand_as(xt)
        return Prediction(x0, (xt - a * x0) / s)


@pytest.mark.parametrize(("weight", "expected", "calls"), [(0, 0.0, 2), (0.5, 1.5, 2), (1, 3.0, 1), (2.5, 7.5, 2)])
def test_guidance_goes_from_the_free_answer_through_the_conditional_one(weight, expected, calls):
    inner, xt = Knows(), torch.randn(4, 1, 8, generator=rng())
    found = ClassifierFreeGuidance(inner, torch.full((4, 1), 3.0), weight)(xt, 300)
    a, s = HO(torch.tensor([300]))
    assert_close(found.x0, torch.full_like(xt, expected))
    assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-4, atol=1e-5)
    assert inner.calls == calls


def test_samples_have_what_was_asked_for():
    cond = torch.tensor([[-1.0], [0.5], [2.0]])
    *_, x0 = sample(ClassifierFreeGuidance(Knows(), cond), (3, 1, 8), 10, generator=rng())
    assert_close(x0, cond[:, :, None].expand(3, 1, 8), rtol=0, atol=1e-5)


def test_what_is_not_asked_is_nan():
    cond = conditions(SHORT, 3, b=0.5, w=torch.tensor([4.0, 5.0, 7.0]))
    assert_close(cond[:, 2], torch.tensor([4.0, 5.0, 7.0]))
    assert (cond[:, 0] == 0.5).all() and cond[:, 1].isnan().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conditions(SHORT, 2, v=1.0), "has the parameters b, s, w, not 'v'"),
        (lambda: conditions(SHORT, 2, w=8.0), "w lies between 4 and 7"),
        (lambda: conditions(SHORT, 2, w=math.nan), "w lies between 4 and 7"),
        (lambda: ClassifierFreeGuidance(Knows(), torch.ones(2, 1), -0.5), "A guidance weight must be"),
        (lambda: ClassifierFreeGuidance(Knows(), torch.ones(2, 1), math.nan), "A guidance weight must be"),
        (lambda: ClassifierFreeGuidance(Knows(), torch.ones(2)), "must have shape"),
        (lambda: ClassifierFreeGuidance(Knows(), torch.full((2, 1), math.inf)), "must be finite"),
    ],
)
def test_a_wrong_question_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
