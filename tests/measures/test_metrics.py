"""Measures of quality: on signals whose quality is known beforehand, and intervals that cover what they say."""

import math

import pytest
import torch
from helpers import HO, mean_and_error, noise, rng, toy

from ddpm_lib import (
    BenchmarkMorlet,
    Estimate,
    Family,
    FamilyOracle,
    Gaussian,
    Morlet,
    Prediction,
    fit_family,
    fit_gaussian,
    linear,
    loss_over_floor,
    mean_loss,
    proportion,
)

FAMILY = BenchmarkMorlet()


# --- fits ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [FAMILY, BenchmarkMorlet(length=100), Morlet(), Morlet(amplitude=1.0), Morlet(2000)],
    ids=["benchmark", "100", "report", "two", "2000"],
)
def test_a_fit_finds_the_parameters(family):
    x0, params = family.sample(40 if family.length == 2000 else 150, rng())
    fitted = fit_family(x0, family)
    assert fitted.valid.all() and fitted.residual.max() < 1e-3
    assert ((fitted.params - params) / (family.high - family.low)).abs().max() < 2e-3
    assert torch.equal(fitted.signals, family.render(fitted.params))


def test_a_fit_is_a_least_squares_fit():
    """Its residual is that of the projection: √(n/(n+3)) of the noise; no member of the family is nearer."""
    x0, _ = FAMILY.sample(300, rng())
    z = 0.02 * noise(*x0.shape, seed=1)
    fitted = fit_family(x0 + z, FAMILY)
    left = (x0 + z - fitted.signals).square().sum((1, 2))
    assert (left <= z.square().sum((1, 2)) * (1 + 1e-4)).all()  # the truth is a member
    ratio, error = mean_and_error(left / 0.02**2)
    assert abs(ratio - (128 - 3)) < 5 * error
    norm = fitted.signals.flatten(1).norm(dim=1)
    torch.testing.assert_close(fitted.residual, left.sqrt() / norm, rtol=1e-4, atol=1e-6)
    for k in range(3):
        step = 1e-3 * (FAMILY.high - FAMILY.low) * torch.eye(3)[k]
        for nudged in (fitted.params + step, fitted.params - step):
            assert ((x0 + z - FAMILY.render(nudged)).square().sum((1, 2)) > left * (1 - 1e-4)).all()


@pytest.mark.slow
def test_valid_means_what_it_says():
    x0, _ = FAMILY.sample(200, rng())
    size = x0.square().mean((1, 2), keepdim=True).sqrt()
    assert fit_family(x0 + 0.01 * size * noise(*x0.shape), FAMILY).valid.all()  # 1 % noise
    assert not fit_family(x0 + 0.10 * size * noise(*x0.shape), FAMILY).valid.any()
    assert not fit_family(noise(200, 1, 128), FAMILY).valid.any()
    assert not fit_family(1.1 * x0, FAMILY).valid.any()  # the amplitude is 1 in this family
    assert fit_family(x0 + 0.10 * size * noise(*x0.shape), FAMILY, tolerance=0.2).valid.all()


@pytest.mark.parametrize("outside", [dict(b=(2.1, 2.3)), dict(s=(1.05, 1.25)), dict(w=(7.2, 8.0)), dict(s=(0.3, 0.38))])
def test_members_of_a_shifted_family_are_caught(outside):
    x0, params = BenchmarkMorlet(**outside).sample(100, rng())
    fitted = fit_family(x0, FAMILY)
    assert not fitted.valid.any()
    assert fitted.residual.max() < 0.01  # the wavelets are perfect; only their parameters are not ours
    assert ((fitted.params - params) / (FAMILY.high - FAMILY.low)).abs().max() < 0.02


def test_the_box_has_two_percent_of_slack():
    for share_of_side, valid in [(0.015, True), (0.025, False)]:
        params = torch.tensor([[0.0, 0.7, 7.0 + 3.0 * share_of_side], [-2.0 - 4.0 * share_of_side, 0.7, 5.0]])
        assert fit_family(FAMILY.render(params), FAMILY).valid.tolist() == [valid, valid]


def test_a_fit_does_not_depend_on_its_neighbours():
    x, _ = FAMILY.sample(5, rng())
    together = fit_family(x, FAMILY)
    alone = fit_family(x[2:3], FAMILY)
    torch.testing.assert_close(alone.params[0], together.params[2], rtol=1e-4, atol=1e-4)


def test_fits_of_your_own_family():
    class Line(Family):
        def formula(self, x, slope, level):
            return slope * x + level

    line = Line(dict(slope=(-1.0, 1.0), level=(1.0, 2.0)), 20, (0.0, 1.0))
    x0, params = line.sample(10, rng())
    torch.testing.assert_close(fit_family(x0, line).params, params, rtol=1e-4, atol=1e-4)


def test_fits_that_are_refused():
    with pytest.raises(ValueError, match=r"x must be finite.* NaN or infinity in 1 of 2 rows"):
        fit_family(torch.stack([torch.zeros(1, 128), torch.full((1, 128), math.nan)]), FAMILY)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 1, 128\).* got \(3, 128\)"):
        fit_family(torch.zeros(3, 128), FAMILY)


# --- losses -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work():
    """The exact denoiser, the best linear one, and signals, times and noise."""
    x0, _ = FAMILY.sample(300, rng(1))
    t = 1 + (torch.arange(300) * 1000) // 300
    return (
        FamilyOracle(FAMILY, HO),
        Gaussian(*fit_gaussian(FAMILY.sample(4000, rng())[0]), HO),
        x0,
        t,
        noise(300, 1, 128),
    )


@pytest.mark.slow
def test_the_oracle_stands_at_one(work):
    exact, _, x0, t, eps = work
    assert loss_over_floor(exact, exact, x0, t, eps) == Estimate(1.0, 0.0)


@pytest.mark.slow
def test_a_ratio_agrees_with_the_losses(work):
    """The linear denoiser: 3.15 times the floor, and by dividing two losses the same."""
    exact, wiener, x0, t, eps = work
    ratio = loss_over_floor(wiener, exact, x0, t, eps)
    direct = mean_loss(wiener, x0, t, eps).value / mean_loss(exact, x0, t, eps).value
    assert abs(ratio.value - direct) < 2 * ratio.margin and 0 < ratio.margin < 0.3 * ratio.value
    assert ratio.value == pytest.approx(0.0362 / 0.0115, rel=0.15)


def nothing(xt, t, cond=None):
    """The denoiser that always says ε̂ = 0."""
    return Prediction(xt, torch.zeros_like(xt))


nothing.schedule = HO


def test_a_ratio_in_closed_form():
    """ε̂ = 0 against the exact denoiser of Gaussian data: 1/L*, whose interval covers it."""
    hits = 0
    for seed in range(200):
        t = torch.full((200,), 300)
        x0 = 0.5 + 0.25 * torch.randn(200, 1, 1, generator=rng(seed), dtype=torch.float64)
        eps = torch.randn(200, 1, 1, generator=rng(1000 + seed), dtype=torch.float64)
        ratio = loss_over_floor(nothing, toy(), x0, t, eps)
        hits += abs(ratio.value - 1 / float(toy().floor(torch.tensor([300])))) < ratio.margin
    assert 0.88 <= hits / 200 <= 0.99


def test_the_interval_of_a_mean_covers():
    """Of 95 % intervals, 95 % hold the truth: ε̂ = 0 loses 1 on average."""
    hits = 0
    for seed in range(400):
        found = mean_loss(nothing, torch.zeros(60, 1, 8), torch.full((60,), 5), noise(60, 1, 8, seed=seed))
        hits += abs(found.value - 1) < found.margin
    assert 0.92 <= hits / 400 <= 0.98


def test_chunks_do_not_change_a_loss():
    exact, n = toy(schedule=linear(50)), 1300  # three chunks
    x0, eps = noise(n, 1, 1).double(), noise(n, 1, 1, seed=1).double()
    t = torch.randint(1, 51, (n,), generator=rng())
    xt = x0 * exact.schedule(t, torch.float64)[0] + eps * exact.schedule(t, torch.float64)[1]
    expected = (eps - exact(xt, t).eps).square().mean()
    assert mean_loss(exact, x0, t, eps).value == pytest.approx(float(expected), rel=1e-12)


# --- shares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20, 512])
def test_a_share_of_none_or_all_is_not_certain(n):
    none, every = proportion(torch.zeros(n, dtype=torch.bool)), proportion(torch.ones(n, dtype=torch.bool))
    assert (none.value, every.value) == (0, 1)
    assert none.margin == pytest.approx(every.margin) and 2 / n < none.margin < 8 / n
    assert not math.isnan(proportion(torch.ones(1, dtype=torch.bool)).margin)


@pytest.mark.parametrize("p", [0.02, 0.5, 0.95])
def test_the_interval_of_a_share_covers(p):
    hits = 0
    for seed in range(400):
        found = proportion(torch.rand(100, generator=rng(seed)) < p)
        hits += abs(found.value - p) < found.margin
    assert hits / 400 >= 0.93


def test_a_share_narrows_like_the_root_of_n():
    few, many = (proportion(torch.arange(n) % 2 == 0).margin for n in (100, 10_000))
    assert few == pytest.approx(0.1, abs=0.01) and many == pytest.approx(0.01, abs=0.001)


def test_an_estimate_prints_both_numbers():
    assert str(Estimate(0.012342, 0.000678)) == "0.01234 ± 0.00068"
