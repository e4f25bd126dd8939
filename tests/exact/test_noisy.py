"""Noisy data: the exact denoiser against Gaussian algebra, and clean signals from noisy ones."""

import math

import pytest
import torch
from helpers import HO, SHORT, assert_mean, rng
from torch.testing import assert_close

from ddpm_lib import FamilyOracle, Gaussian, even_log_snr, fit_family, loss_over_floor, q_sample, sample
from ddpm_lib.exact import Cleaned, NoisyOracle
from ddpm_lib.signals import Noisy

DOUBLE = torch.float64
L = 5


def pair(sigma, seed=0):
    """The exact denoisers of Gaussian data, and of the same with noise."""
    root = torch.randn(L, L, generator=rng(seed), dtype=DOUBLE)
    mean, cov = torch.randn(1, L, generator=rng(seed + 1), dtype=DOUBLE), root @ root.T / L
    return Gaussian(mean, cov, HO), Gaussian(mean, cov + sigma**2 * torch.eye(L, dtype=DOUBLE), HO)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.7])
def test_on_gaussian_data_it_is_the_denoiser_of_a_wider_gaussian(sigma):
    clean, noisy = pair(sigma)
    xt, t = torch.randn(5, 1, L, generator=rng(3), dtype=DOUBLE), torch.tensor([1, 40, 300, 800, 990])
    found = NoisyOracle(clean, sigma)(xt, t)
    for mine, exact in zip(found, noisy(xt, t), strict=True):
        assert_close(mine, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.7])
def test_the_denoiser_of_noisy_data_knows_the_clean_ones(sigma):
    clean, noisy = pair(sigma)
    cleaned = Cleaned(noisy, sigma)
    xt = torch.randn(4, 1, L, generator=rng(3), dtype=DOUBLE)
    t = torch.tensor([cleaned.end, cleaned.end + 20, 700.0, 999.0])
    for mine, exact in zip(cleaned(xt, t), clean(xt, t), strict=True):
        assert_close(mine, exact, rtol=1e-5, atol=1e-5)


def test_the_end_is_where_the_noise_is_that_of_the_data():
    for given, ratio in (((1.1,), 1.1), ((), math.sqrt(2))):
        a, s = HO(torch.tensor([Cleaned(pair(0.3)[1], 0.3, *given).end]), DOUBLE)
        assert float(s / a) == pytest.approx(ratio * 0.3, rel=1e-6)
    assert Cleaned(pair(0)[1], 0.0).end == 1


def test_an_error_of_the_network_comes_out_least_where_it_ends():
    _, noisy = pair(0.3)

    class Wrong:
        schedule = HO

        def __call__(self, xt, t, cond=None):
            found = noisy(xt, t)
            return found._replace(eps=found.eps + 0.1)

    def error(ratio):
        xt = torch.randn(2, 1, L, generator=rng(4), dtype=DOUBLE)
        end = Cleaned(noisy, 0.3, ratio).end
        right, wrong = (Cleaned(denoiser, 0.3)(xt, end).x0 for denoiser in (noisy, Wrong()))
        return float((wrong - right).abs().mean())

    assert error(math.sqrt(2)) == pytest.approx(0.1 * 0.3 * 2, rel=1e-3)  # δ·σ·r²/√(r²-1)
    assert error(1.1) == pytest.approx(0.1 * 0.3 * 1.21 / math.sqrt(0.21), rel=1e-3)
    assert error(math.sqrt(2)) < min(error(1.3), error(1.6))


def test_noise_has_the_size_that_was_said():
    family = Noisy(SHORT, 0.2)
    y, params = family.sample(2000, rng())
    n = (y - SHORT.render(params)) / 0.2
    assert_mean(n, 0)
    assert_mean(n.square(), 1)
    assert "0.2" in repr(family) and family.length == 64


@pytest.mark.slow
def test_signals_of_the_exact_denoiser_are_noisy_and_of_the_cleaned_one_clean():
    exact = NoisyOracle(FamilyOracle(SHORT, HO), 0.05)
    *_, y = sample(exact, (64, 1, 64), 20, generator=rng(1))
    left = y - fit_family(y, SHORT).signals  # three parameters take 3/64 of the noise with them
    assert_mean(left.square() / (0.05**2 * 61 / 64), 1, errors=6)
    cleaned = Cleaned(exact, 0.05)
    times = [t for t in even_log_snr(HO, 20) if t > cleaned.end] + [cleaned.end, 0]
    *_, x = sample(cleaned, (64, 1, 64), times, generator=rng(1))
    assert fit_family(x, SHORT).residual.median() < 0.01


def test_its_floor_is_its_own():
    exact = NoisyOracle(FamilyOracle(SHORT, HO), 0.1)
    x0, _ = Noisy(SHORT, 0.1).sample(64, rng(5))
    t, eps = torch.full((64,), 20), torch.randn(x0.shape, generator=rng(6))
    assert loss_over_floor(exact, exact, x0, t, eps).value == 1
    assert loss_over_floor(FamilyOracle(SHORT, HO), exact, x0, t, eps).value > 1.2  # the clean answer to noisy data
    xt = q_sample(x0, 20, eps, HO)
    a, s = HO(torch.tensor([20]))
    found = exact(xt, 20)
    assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_known_is_refused():
    cleaned = Cleaned(pair(0.3)[1], 0.3)
    with pytest.raises(ValueError, match="has seen nothing below"):
        cleaned(torch.zeros(1, 1, L, dtype=DOUBLE), 5)
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="must be a number"):
            Noisy(SHORT, sigma)
    for ratio in (1.0, math.nan):
        with pytest.raises(ValueError, match="ratio must be a number above 1"):
            Cleaned(pair(0.3)[1], 0.3, ratio)
