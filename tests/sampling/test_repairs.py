"""RePaint and DPS: against conditional Gaussians, finite differences, and their own limits."""

from functools import partial

import pytest
import torch
from helpers import HO, SHORT, rng
from torch.testing import assert_close

from ddpm_lib import (
    FamilyOracle,
    FiniteOracle,
    Gaussian,
    Prediction,
    ancestral,
    ddim,
    dpmpp_2m,
    even_log_snr,
    fit_family,
    sample,
)
from ddpm_lib.diffusion import Measurement
from ddpm_lib.sampling import Chunked, Evaluation, PseudoinverseGuidance, dps, repaint

DOUBLE = torch.float64
L, SIGMA = 4, 0.3
MEAN = torch.tensor([[0.5, -0.2, 0.1, 0.3]], dtype=DOUBLE)
KNOWN = Measurement.samples(torch.tensor([True, True, False, False]), SIGMA)
Y = torch.tensor([[1.4, 0.7]], dtype=DOUBLE)


def alike(correlation):
    """Covariance of four numbers of variance 0.5, any two of which have this correlation."""
    return 0.5 * (correlation + (1 - correlation) * torch.eye(L, dtype=DOUBLE))


def exactly(cov):
    """Mean and covariance of x_0 ~ N(MEAN, cov) given Y, by the textbook formula."""
    a = KNOWN.matrix.double()
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + SIGMA**2 * torch.eye(2, dtype=DOUBLE))
    return (MEAN + (Y - MEAN @ a.T) @ gain.T)[0], cov - gain @ a @ cov


def repainted(cov, rounds, n=4000, steps=250):
    step = partial(repaint, measurement=KNOWN, y=Y.expand(n, 2), rounds=rounds, generator=rng(1))
    *_, x = sample(Gaussian(MEAN.float(), cov.float(), HO), (n, 1, L), even_log_snr(HO, steps), step, rng(2))
    return x[:, 0].double()


def test_putting_back_is_right_where_samples_have_nothing_to_do_with_each_other():
    """The known ones get their posterior, noise in y and all; the others keep their own law."""
    cov = alike(0.0)
    x = repainted(cov, rounds=1)
    mean, after = exactly(cov)
    assert ((x.mean(0) - mean).abs() < 5 * (after.diagonal() / len(x)).sqrt() + 0.01).all()
    assert_close(x.var(0), after.diagonal(), rtol=0.1, atol=0)


@pytest.mark.slow
def test_going_up_again_mends_what_putting_back_gets_wrong():
    cov = alike(0.8)
    mean, _ = exactly(cov)
    once, often = ((repainted(cov, rounds, 1500).mean(0) - mean)[2:].abs().max() for rounds in (1, 6))
    assert once > 0.1 and often < 0.5 * once


def test_below_the_noise_of_y_repaint_is_the_plain_step():
    xt, z = torch.randn(1, 1, L, generator=rng(3)), torch.randn(1, 1, L, generator=rng(4))
    exact = Gaussian(MEAN.float(), alike(0.5).float(), HO)
    level = float(HO.at_log_snr(-2 * torch.tensor(SIGMA, dtype=DOUBLE).log()))  # the time that is as noisy as y
    for s in (level - 1, level + 1):
        step = partial(repaint, measurement=KNOWN, y=Y, generator=rng(5))
        same = torch.equal(step(exact, xt, s + 50, s, z), ancestral(exact, xt, s + 50, s, z))
        assert same == (s < level)


def test_what_is_put_back_is_as_noisy_as_the_path():
    """Mean √ᾱ·y and variance 1-ᾱ-ᾱσ²: with the noise of y, 1-ᾱ."""
    n = 20_000
    xt, z = torch.zeros(n, 1, L, dtype=DOUBLE), torch.zeros(n, 1, L, dtype=DOUBLE)
    exact = Gaussian(MEAN, alike(0.5), HO)
    xs = repaint(exact, xt, 700, 500, z, measurement=KNOWN, y=Y.expand(n, 2), rounds=1, generator=rng(6))
    ab = HO.alpha_bar(500)
    left = 1 - ab - ab * SIGMA**2
    assert_close(xs[:, 0, :2].mean(0), ab.sqrt() * Y[0], rtol=0, atol=float(5 * (left / n) ** 0.5))
    assert_close(xs[:, 0, :2].var(0), left.expand(2), rtol=0.05, atol=0)


class Bent:
    """A denoiser that is no oracle: differentiable, and not linear."""

    schedule = HO

    def __call__(self, xt, t, cond=None):
        _, a, s = HO.at(t, xt)
        x0 = torch.sin(2 * xt) + 0.3 * xt.roll(1, -1) ** 2
        return Prediction(x0, (xt - a * x0) / s)


MIXED = Measurement(torch.randn(3, L, generator=rng(7), dtype=DOUBLE), 0.1)


def test_dps_pushes_down_the_slope_of_the_gap():
    xt, z = (torch.randn(2, 1, L, generator=rng(k), dtype=DOUBLE) for k in (8, 9))
    y = torch.randn(2, 3, generator=rng(10), dtype=DOUBLE)

    def missed(x):
        return (y - MIXED(Bent()(x, 300).x0)).norm(dim=1)

    slope = torch.zeros_like(xt)
    for k in range(L):
        h = torch.zeros(1, 1, L, dtype=DOUBLE)
        h[..., k] = 1e-6
        slope[..., k] = ((missed(xt + h) - missed(xt - h)) / 2e-6)[:, None]
    for denoiser in (Bent(), Chunked(Bent(), 1)):
        found = dps(denoiser, xt, 300, 250, z, measurement=MIXED, y=y, zeta=0.7)
        assert_close(found, ddim(Bent(), xt, 300, 250, z, eta=1.0) - 0.7 * slope, rtol=1e-6, atol=1e-7)
        assert not found.requires_grad and not xt.requires_grad


def test_dps_without_weight_is_the_ancestral_step():
    xt, z = (torch.randn(2, 1, L, generator=rng(k), dtype=DOUBLE) for k in (8, 9))
    found = dps(Bent(), xt, 300, 250, z, measurement=MIXED, y=torch.ones(2, 3), zeta=0.0)
    assert_close(found, ancestral(Bent(), xt, 300, 250, z), rtol=1e-9, atol=1e-9)


def test_an_oracle_s_slope_is_its_covariance():
    """For Gaussian data x̂_0 is linear in x_t, so the slope is a matrix that is known."""
    cov = alike(0.6)
    exact = Gaussian(MEAN, cov, HO)
    xt, z = (torch.randn(2, 1, L, generator=rng(k), dtype=DOUBLE) for k in (8, 9))
    y = torch.randn(2, 3, generator=rng(10), dtype=DOUBLE)
    ab = HO.alpha_bar(300)
    gain = ab.sqrt() * cov @ torch.linalg.inv(ab * cov + (1 - ab) * torch.eye(L, dtype=DOUBLE))
    gap = y - MIXED(exact(xt, 300).x0)
    push = (gap / gap.norm(dim=1, keepdim=True) @ MIXED.matrix @ gain)[:, None]
    plain = ancestral(exact, xt, 300, 250, z)
    found = dps(exact, xt, 300, 250, z, measurement=MIXED, y=y, zeta=0.7)
    assert_close(found, plain + 0.7 * push, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "denoiser", [Bent(), Gaussian(MEAN, alike(0.6), HO), FiniteOracle(torch.randn(9, 1, L, generator=rng(15)), HO)]
)
def test_dps_in_a_batch_larger_than_a_chunk(denoiser):
    """5000 signals are made in two chunks of the denoiser: each comes out as in a walk of its own slice."""
    n, x = 5000, torch.randn(5000, 1, L, generator=rng(16), dtype=DOUBLE)
    x = x if isinstance(denoiser, Gaussian) else x.float()
    y = torch.randn(n, 3, generator=rng(17), dtype=DOUBLE)

    def ends(rows):
        step = partial(dps, measurement=MIXED, y=y[rows], zeta=0.3)
        return list(sample(denoiser, (n, 1, L), 4, step, rng(18), start=x, rows=rows))[-1]

    whole, parts = ends(slice(n)), [ends(slice(k, k + 2000)) for k in range(0, n, 2000)]
    assert_close(whole, torch.cat(parts), rtol=1e-5, atol=1e-5)


def test_guided_takes_a_variance_for_an_oracle_too():
    """With r² = 0 the push is 1/σ² times the gap, through the covariance: the likelihood of DPS."""
    cov = alike(0.6)
    exact = Gaussian(MEAN, cov, HO)
    xt, y = torch.randn(2, 1, L, generator=rng(8), dtype=DOUBLE), torch.randn(2, 3, generator=rng(10), dtype=DOUBLE)
    x0 = exact(xt, 300).x0
    expected = x0 + ((y - MIXED(x0)) / 0.1**2 @ MIXED.matrix)[:, None] @ exact.covariance(xt, 300)
    found = PseudoinverseGuidance(exact, MIXED, y, variance=lambda schedule, t: torch.zeros(len(t)))(xt, 300).x0
    assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_repainted_signals_are_wavelets_that_agree_with_what_was_measured():
    seen = Measurement.samples((torch.arange(64) < 26) | (torch.arange(64) > 38), 0.05)
    x0, _ = SHORT.sample(12, rng(12))
    y, exact = seen.observe(x0, rng(13)), FamilyOracle(SHORT, HO)
    step = partial(repaint, measurement=seen, y=y, rounds=3, generator=rng(11))
    *_, x = sample(exact, tuple(x0.shape), 30, step, rng(14))
    assert (seen(x) - y).square().mean().sqrt() < 0.1 and fit_family(x, SHORT).valid.float().mean() > 0.7


def test_dps_does_not_ask_how_noisy_y_is():
    """It comes to within ζ of y, whatever σ is: far nearer than a signal that y was measured of."""
    exact, n = Gaussian(MEAN.float(), alike(0.8).float(), HO), 100

    def missed(zeta, sigma=SIGMA):
        seen = Measurement(KNOWN.matrix, sigma)
        step = partial(dps, measurement=seen, y=Y.expand(n, 2), zeta=zeta)
        *_, x = sample(exact, (n, 1, L), 150, step, rng(2))
        return float((KNOWN(x) - Y).norm(dim=1).mean())

    assert missed(0.0) > 0.8 and missed(0.03) < 0.1 < SIGMA
    assert missed(0.03) == missed(0.03, sigma=0.01) and 0.03 < missed(0.3) < 0.3


def test_a_measurement_that_mixes_samples_cannot_be_put_back():
    x, mean = torch.zeros(1, 1, L), Measurement(torch.ones(1, L), 0.1)
    with pytest.raises(ValueError, match="mixes"):
        repaint(Bent(), x, 9, 5, x, measurement=mean, y=Y[:, :1])


# --- a step that looks back -------------------------------------------------------------------------------


def tracing(seen):
    """A step of one's own that looks back: DDIM, which keeps a number that counts its calls."""

    def step(denoiser, xt, t, s, noise, past=0):
        seen.append((t, s, past))
        return ddim(denoiser, xt, t, s, noise), past + 1

    return step


def test_repaint_hands_on_what_a_step_looks_back_at():
    """The first round of a step looks back at the last round of the one before; going up again, there is no past."""
    seen, level = [], float(HO.at_log_snr(-2 * torch.tensor(SIGMA, dtype=DOUBLE).log()))
    times = [900, 500, 300, level - 5, level - 20, 0]  # in the last three steps nothing is put back
    step = partial(repaint, measurement=KNOWN, y=Y.float(), rounds=3, step=tracing(seen), generator=rng(19))
    *_, x = sample(Bent(), (1, 1, L), times, step, rng(20))
    rounds = [(900, 500)] * 3 + [(500, 300)] * 3 + [(300, times[3]), (times[3], times[4]), (times[4], 0)]
    assert [(t, s) for t, s, _ in seen] == rounds
    assert [past for *_, past in seen] == [0, 0, 0, 1, 0, 0, 1, 2, 3]
    plain = partial(repaint, measurement=KNOWN, y=Y.float(), rounds=3, step=ddim, generator=rng(19))
    *_, expected = sample(Bent(), (1, 1, L), times, plain, rng(20))
    assert torch.equal(x, expected)


def test_repaint_extrapolates_from_the_step_before():
    xt, z = (torch.randn(2, 1, L, generator=rng(k), dtype=DOUBLE) for k in (8, 9))
    past = Evaluation(700, torch.randn(2, 1, L, generator=rng(21), dtype=DOUBLE))
    once = partial(repaint, Bent(), xt, 500, 300, z, measurement=KNOWN, y=Y.expand(2, 2), rounds=1)
    found, now = once(step=dpmpp_2m, past=past, generator=rng(22))
    told, _ = once(step=partial(dpmpp_2m, past=past), generator=rng(22))
    assert torch.equal(found, told) and now.t == 500 and torch.equal(now.x0, Bent()(xt, 500).x0)
    assert not torch.allclose(found, once(step=dpmpp_2m, generator=rng(22))[0])
    assert not isinstance(once(step=ddim, generator=rng(22)), tuple)


@pytest.mark.parametrize("rows", [1, 3])
def test_every_signal_has_its_own_measurement(rows):
    """One row for all would give all of them the same noise; so would one column."""
    exact, x = Gaussian(torch.zeros(1, 4), torch.eye(4), HO), torch.zeros(2, 1, 4)
    seen = Measurement(torch.eye(4)[:2], 0.1)
    for y in (torch.zeros(rows, 2), torch.zeros(2, 1)):
        with pytest.raises(ValueError, match=r"Measurements must have shape|y must have shape"):
            PseudoinverseGuidance(exact, seen, y)(x, 300)
        for step in (repaint, dps):
            with pytest.raises(ValueError, match="Measurements must have shape"):
                step(exact, x, 300, 200, x, measurement=seen, y=y)
