"""Denoising as a task: the mean and the draws against Gaussian algebra, where both are known."""

import math

import pytest
import torch
from helpers import HO, SHORT, assert_mean, rng
from torch.testing import assert_close

from ddpm_lib import FamilyOracle, Gaussian, ancestral, ddim, even_log_snr, fit_family, linear
from ddpm_lib.diffusion import noise_time
from ddpm_lib.sampling import denoise, posterior_draws
from ddpm_lib.sampling.grids import TILT

DOUBLE = torch.float64
L = 4
ROOT = torch.randn(L, L, generator=rng(0), dtype=DOUBLE) / 2
MEAN, COV = torch.randn(1, L, generator=rng(1), dtype=DOUBLE), ROOT @ ROOT.T
EXACT = Gaussian(MEAN, COV, HO)


def posterior(y, sigma):
    """Mean (B, L) and covariance (L, L) of x_0 given y = x_0 + σ·n, by the textbook."""
    gain = COV @ torch.linalg.inv(COV + sigma**2 * torch.eye(L, dtype=DOUBLE))
    return MEAN + (y[:, 0] - MEAN) @ gain.T, COV - gain @ COV


@pytest.mark.parametrize("sigma", [0.0101, 0.1, 1.0, 30.0, 157.0])
def test_at_its_time_the_noise_is_that_large(sigma):
    a, s = HO(torch.tensor([noise_time(HO, sigma)], dtype=DOUBLE), DOUBLE)
    assert float(s / a) == pytest.approx(sigma, rel=1e-3)


def test_the_ends_that_a_refusal_names_are_not_refused():
    assert noise_time(HO, 0.01) == 1 and noise_time(HO, 157.407) == pytest.approx(1000, abs=0.1)
    for sigma in (0.009, 158.0):
        with pytest.raises(ValueError, match=r"knows noise from 0.01 to 157, got sigma = "):
            noise_time(HO, sigma)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 5.0])
def test_the_mean_is_the_one_of_the_textbook(sigma):
    y = torch.randn(6, 1, L, generator=rng(2), dtype=DOUBLE)
    found = denoise(EXACT, y, sigma)
    assert_close(found.x0[:, 0], posterior(y, sigma)[0], rtol=1e-5, atol=1e-6)
    assert_close(found.x0 + sigma * found.eps, y, rtol=1e-5, atol=1e-6)  # the noise is what is left


@pytest.mark.parametrize("sigma", [0.1, 0.5, 5.0])
def test_the_draws_have_the_law_of_the_textbook(sigma):
    y = torch.randn(2, 1, L, generator=rng(3), dtype=DOUBLE)
    n = 4096
    draws = posterior_draws(EXACT, y, sigma, n, steps=100, generator=rng(4))
    assert draws.shape == (2, n, 1, L)
    mean, cov = posterior(y, sigma)
    for x, m in zip(draws[:, :, 0], mean, strict=True):
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (x - m).T, upper=False)
        found = white @ white.T / n
        assert_mean(white.mean(1) * math.sqrt(n), 0)
        assert_close(found, torch.eye(L, dtype=DOUBLE), rtol=0, atol=6 / math.sqrt(n))


def test_a_draw_is_off_by_the_root_of_two_and_the_mean_of_many_is_not():
    x0 = (MEAN + torch.randn(2000, L, generator=rng(5), dtype=DOUBLE) @ ROOT.T)[:, None]
    y = x0 + 0.5 * torch.randn(x0.shape, generator=rng(6), dtype=DOUBLE)
    draws = posterior_draws(EXACT, y, 0.5, 8, generator=rng(7))
    least = posterior(y, 0.5)[1].trace()  # E‖x_0 - mean‖²
    for n in (1, 8):
        error = (draws[:, :n].mean(1) - x0).square().sum((1, 2)) / least
        assert_mean(error, 1 + 1 / n)


def test_draws_of_one_signal_differ_and_stay_in_its_row():
    y = torch.stack([torch.full((1, L), v, dtype=DOUBLE) for v in (-3.0, 3.0)])
    draws = posterior_draws(EXACT, y, 0.05, 3, generator=rng(8))
    assert (draws.sub(y[:, None]).abs() < 0.5).all()
    assert (draws[:, 0] != draws[:, 1]).all()
    again = posterior_draws(EXACT, y, 0.05, 3, generator=rng(8))
    assert torch.equal(draws, again)
    flow = posterior_draws(EXACT, y, 0.05, 2, step=ddim)
    assert torch.equal(flow[:, 0], flow[:, 1])  # no noise, no choice


@pytest.mark.parametrize("sigma", [0.01, 0.0101, 0.011, 0.02])
def test_next_to_no_noise_is_taken_off_too(sigma):
    y = torch.randn(2, 1, L, generator=rng(9), dtype=DOUBLE)
    for step in (ancestral, ddim):
        draws = posterior_draws(EXACT, y, sigma, 2, steps=5, step=step, generator=rng(10))
        assert draws.sub(y[:, None]).abs().max() < 6 * sigma


def test_the_grid_starts_where_it_is_told():
    whole = even_log_snr(HO, 20, TILT)
    assert even_log_snr(HO, 20, TILT, start=1000) == whole
    times = even_log_snr(HO, 10, TILT, start=whole[10])
    assert_close(torch.tensor(times), torch.tensor(whole[10:]), rtol=1e-4, atol=1e-3)  # the same density
    for start in (0.5, 1.0, 1001, math.nan):
        with pytest.raises(ValueError, match=r"start must be a number from 1.01 to 1000"):
            even_log_snr(HO, 5, start=start)


def test_draws_of_a_family_are_of_the_family_and_the_mean_is_not():
    """At this noise several wavelets explain y: each draw is one of them, and their mean is none."""
    exact = FamilyOracle(SHORT, HO)
    x0, _ = SHORT.sample(48, rng(11))
    y = x0 + 0.5 * torch.randn(x0.shape, generator=rng(12))
    mean, drawn = denoise(exact, y, 0.5).x0, posterior_draws(exact, y, 0.5, generator=rng(13))[:, 0]
    assert fit_family(drawn, SHORT).valid.float().mean() > 0.9
    assert fit_family(mean, SHORT).valid.float().mean() < 0.5
    assert (mean - x0).square().mean() < (drawn - x0).square().mean()


@pytest.mark.parametrize("call", [denoise, posterior_draws])
def test_refusals(call):
    y = torch.zeros(2, 1, L, dtype=DOUBLE)
    for sigma in (0.0, -1.0, math.nan, "much"):
        with pytest.raises(ValueError, match=r"sigma must be a number above 0"):
            call(EXACT, y, sigma)
    with pytest.raises(ValueError, match="y must have shape"):
        call(EXACT, y[0], 0.1)
    with pytest.raises(ValueError, match="number of draws"):
        posterior_draws(EXACT, y, 0.1, 0)
    with pytest.raises(ValueError, match=r"integer from 1 to 1000"):
        posterior_draws(EXACT, y, 0.1, steps=0)


def test_another_schedule_has_another_time_and_the_same_answer():
    y = torch.randn(3, 1, L, generator=rng(14), dtype=DOUBLE)
    short = linear(100)
    assert noise_time(short, 0.3) < noise_time(HO, 0.3)
    assert_close(denoise(Gaussian(MEAN, COV, short), y, 0.3).x0, denoise(EXACT, y, 0.3).x0, rtol=1e-5, atol=1e-6)
