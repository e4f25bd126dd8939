"""Samplers against exact recursions (mean and variance, no Monte Carlo), against each other and against diffusers."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from helpers import HO, assert_mean, rng, toy
from torch.testing import assert_close

from ddpm_lib import (
    Denoiser,
    Eps,
    FiniteOracle,
    Prediction,
    Schedule,
    UNet1D,
    ancestral,
    beta,
    beta_tilde,
    cosine,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    even_log_snr,
    even_steps,
    heun,
    linear,
    q_posterior,
    sample,
    straight,
)
from ddpm_lib.diffusion import WithCovariance, schedules
from ddpm_lib.sampling import Chunked, Counted, Evaluation, advance, algorithm_2, grids, walk
from ddpm_lib.sampling.grids import TILT
from ddpm_lib.sampling.steps import ALL
from ddpm_lib.signals.source import name_of

DOUBLE = torch.float64
every = pytest.mark.parametrize("step", ALL, ids=[s.__name__ for s in ALL])
shipped = pytest.mark.parametrize("make", schedules.ALL, ids=[f.__name__ for f in schedules.ALL])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed), dtype=DOUBLE)


def bent(schedule):
    """A denoiser that is exact for nothing: not linear, and different at every t."""
    return Denoiser(lambda x, log_snr, cond: torch.tanh(x + 0.1 * log_snr.view(-1, 1, 1)), schedule, Eps())


# --- exact mean and variance on Gaussian data ---------------------------------------------------------


def law(step, denoiser, times=None):
    """Mean and standard deviation of x_0 from x_T ~ N(0, 1), for a sampler that is affine in x_T and in its noises.

    With the exact denoiser of Gaussian data it must be. So a batch of paths tells all: the first has zeros only, each
    of the others has a single 1, at x_T or in the noise of one step; the last checks that the sampler is affine.
    """
    times = list(range(denoiser.schedule.T, -1, -1)) if times is None else times
    n = len(times)
    given = torch.zeros(n + 2, n, dtype=DOUBLE)  # (paths, x_T and the noises of the n - 1 steps)
    given[1:-1] = torch.eye(n)
    given[-1] = noise(n)
    draws = iter(given.T.view(n, -1, 1, 1))
    *_, x = walk(denoiser, next(draws), times, step, lambda: next(draws))
    offset, slopes, check = x[0].item(), x[1:-1].flatten() - x[0].item(), x[-1].item()
    assert check == pytest.approx(offset + float(slopes @ given[-1]), rel=1e-6, abs=1e-9 * float(slopes.norm()))
    return offset, float(slopes.norm())


def is_right(found):
    """The law of the toy's data, N(0.5, 0.25²), to what 1000 steps leave of it."""
    return found == pytest.approx((0.5, 0.25), abs=0.005)


def alphas(t):
    """α_t, ᾱ_t, ᾱ_{t-1}, β_t as numbers."""
    ab_t, ab_s = float(HO.alpha_bar(t)), float(HO.alpha_bar(t - 1))
    return ab_t / ab_s, ab_t, ab_s, float(HO.beta(t))


def printed(mean):
    """A step with the report's mean(x_t, ε̂, t), its σ² = β, and no noise at the last step."""

    def step(denoiser, xt, t, s, z):
        sigma = math.sqrt(HO.beta(t)) if s > 0 else 0.0
        return mean(xt, denoiser(xt, t).eps, t) + sigma * z

    return step


def posterior_mean(x0, xt, t):
    """Report (42)."""
    alpha, ab_t, ab_s, b = alphas(t)
    return math.sqrt(alpha) * (1 - ab_s) / (1 - ab_t) * xt + math.sqrt(ab_s) * b / (1 - ab_t) * x0


def right(xt, eps, t):
    """Report (45) put right: (x_t - β/√(1-ᾱ)·ε)/√α."""
    alpha, ab_t, _, b = alphas(t)
    return (xt - b / math.sqrt(1 - ab_t) * eps) / math.sqrt(alpha)


def report_44(xt, eps, t):
    """x_0 = x_t/√α - √(1-α)·ε as printed: no bars, and the noise is not divided."""
    alpha = alphas(t)[0]
    return posterior_mean(xt / math.sqrt(alpha) - math.sqrt(1 - alpha) * eps, xt, t)


def report_44_with_bars(xt, eps, t):
    ab_t = alphas(t)[1]
    return posterior_mean(xt / math.sqrt(ab_t) - math.sqrt(1 - ab_t) * eps, xt, t)


def report_45(xt, eps, t):
    """x_t/√α - β/√(1-α)·ε, the right side as printed."""
    alpha, _, _, b = alphas(t)
    return xt / math.sqrt(alpha) - b / math.sqrt(1 - alpha) * eps


def report_48(xt, eps, t):
    """x_t/√α - β/√(1-ᾱ)·ε: bars restored, 1/√α still missing."""
    alpha, ab_t, _, b = alphas(t)
    return xt / math.sqrt(alpha) - b / math.sqrt(1 - ab_t) * eps


def report_49(xt, eps, t):
    """The right sampler with what the printed loss (49) teaches: -ε."""
    return right(xt, -eps, t)


@pytest.mark.slow
@pytest.mark.parametrize(("variance", "std"), [(beta, 0.2509), (beta_tilde, 0.2463)])
def test_ancestral_has_the_law_of_the_data(variance, std):
    found = law(partial(ancestral, variance=variance), toy())
    assert is_right(found)
    assert found == (pytest.approx(0.499999, abs=6e-7), pytest.approx(std, abs=5.1e-5))


@pytest.mark.slow
def test_ddim_has_the_law_of_the_data():
    assert law(partial(ddim, eta=1.0), toy()) == pytest.approx(law(ancestral, toy()), rel=1e-9)
    for eta in (0.0, 0.5):
        assert is_right(law(partial(ddim, eta=eta), toy()))


@pytest.mark.parametrize(
    ("mean", "expected", "digits"),
    [
        (report_44, (0.166, 1.087), 6e-4),
        (report_44_with_bars, (0.493, 3.236), 6e-4),
        (report_45, (0.500, 0.101), 6e-4),
    ],
)
def test_the_misprints_of_the_report_have_not(mean, expected, digits):
    """The negative controls: the same check, and the published damage."""
    found = law(printed(mean), toy())
    assert not is_right(found)
    assert found == pytest.approx(expected, abs=digits)


def test_the_sign_of_49_explodes():
    found = law(printed(report_49), toy())
    assert not is_right(found)
    assert found == pytest.approx((-1.7e5, 6.0e7), rel=0.05)


def test_without_noise_the_law_collapses():
    """The report has no sampling equation; its mean alone gives one signal."""
    mean, std = law(lambda denoiser, xt, t, s, z: ancestral(denoiser, xt, t, s, 0 * z), toy())
    assert mean == pytest.approx(0.5, abs=1e-3) and std < 0.001


@pytest.mark.slow
def test_only_algebra_catches_48():
    """Its samples are as good as right ones; the mean of the posterior is not what it gives."""
    assert law(printed(report_48), toy()) == pytest.approx((0.5, 0.2512), abs=6e-5)
    assert law(printed(right), toy()) == pytest.approx(law(partial(ancestral, variance=beta), toy()), rel=1e-9)
    x0, eps = noise(1, 1, 1), noise(1, 1, 1, seed=1)
    for t in (1, 2, 10, 100, 500, 1000):
        ab_t = alphas(t)[1]
        xt = math.sqrt(ab_t) * x0 + math.sqrt(1 - ab_t) * eps
        mean = q_posterior(x0, xt, t, HO).mean
        assert_close(right(xt, eps, t), mean, rtol=1e-10, atol=1e-12)
        assert t == 1 or not torch.allclose(report_48(xt, eps, t), mean, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("T", "expected"), [(50, (0.4567, 0.2683)), (100, (0.4828, 0.2556)), (300, (0.4984, 0.2519))])
def test_an_unscaled_schedule_starts_from_the_wrong_law(T, expected):
    with pytest.warns(UserWarning, match="signal's amplitude"):
        schedule = Schedule.from_betas(torch.linspace(1e-4, 0.02, T, dtype=DOUBLE))
    assert law(partial(ancestral, variance=beta), toy(schedule=schedule)) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.slow
@every
@pytest.mark.parametrize("grid", [*grids.ALL, partial(even_log_snr, tilt=TILT)], ids=name_of)
def test_more_steps_come_closer(step, grid):
    """The mean is right at any number of steps; the spread gets there."""
    errors = []
    for steps in (20, 40, 160, 640):
        mean, std = law(step, toy(), grid(HO, steps))
        assert mean == pytest.approx(0.5, abs=0.01)
        errors.append(abs(std - 0.25))
    assert all(after < max(before, 5e-4) for before, after in pairwise(errors)) and errors[-1] < 0.007


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "order"), [(ancestral, 1), (ddim, 1), (dpmpp_2m, 2), (heun, 2)], ids=lambda v: getattr(v, "__name__", v)
)
def test_the_order_of_a_step(step, order):
    """Twice the steps, 2^order times closer. Up to t = 1: the last step, to t = 0, is of first order for all."""
    truth = law(heun, toy(), even_log_snr(HO, 1000)[:-1])[1]
    coarse, fine = (abs(law(step, toy(), even_log_snr(HO, steps)[:-1])[1] - truth) for steps in (61, 121))
    assert order - 0.3 < math.log2(coarse / fine) < order + 0.3


def test_the_law_of_twenty_evaluations():
    """Extrapolation is worth an order of magnitude, with noise and without."""
    off = {step: abs(law(step, toy(), even_log_snr(HO, 20, TILT))[1] - 0.25) for step in ALL}
    assert off[dpmpp_2m] < 0.05 * off[ddim]
    assert off[dpmpp_2m_sde] < 0.1 * off[ancestral]


# --- against each other -------------------------------------------------------------------------------


@pytest.mark.slow
def test_ddim_with_eta_1_is_the_posterior_step_at_every_t():
    denoiser, xt, z = bent(HO), noise(2, 1, 3), noise(2, 1, 3, seed=1)
    for t in range(1000, 0, -1):
        posterior = q_posterior(denoiser(xt, t).x0, xt, t, HO)
        found = ddim(denoiser, xt, t, t - 1, z, eta=1.0)
        scale = posterior.mean.abs().max()
        assert (found - posterior.sample(z)).abs().max() < 1e-10 * scale, t
        assert_close(ancestral(denoiser, xt, t, t - 1, z), posterior.sample(z), rtol=1e-12, atol=0)


@shipped
def test_ddim_with_eta_1_is_ancestral_for_any_stride(make):
    denoiser, xt, z = bent(make(40)), noise(2, 1, 3), noise(2, 1, 3, seed=1)
    for t, s in [(40, 39), (40, 20), (33.5, 7.25), (2, 1), (1, 0.5), (1, 0), (17, 0)]:
        expected = ancestral(denoiser, xt, t, s, z)
        assert_close(ddim(denoiser, xt, t, s, z, eta=1.0), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_ddim_on_the_straight_schedule_is_euler_on_the_flow():
    """With y = (1-τ)·x_0 + τ·ε, a step of dy/dτ = û = ε̂ - x̂_0 leads where DDIM leads, whatever the denoiser says."""
    schedule = straight(100)
    x, denoiser = noise(5, 1, 3), bent(schedule)
    for t, s in ((99, 60), (60, 59.5), (7, 1), (1, 0)):
        size_t, size_s = (math.hypot(1 - v / 100, v / 100) for v in (t, s))
        found = denoiser(x, t)
        y = size_t * x + (s - t) / 100 * (found.eps - found.x0)
        # between two entries of the table the curve is interpolated in log ᾱ
        accuracy = 1e-9 if s == int(s) else 1e-4
        assert_close(ddim(denoiser, x, t, s, torch.zeros_like(x)), y / size_s, rtol=accuracy, atol=accuracy)


def test_ddim_without_noise_is_its_formula():
    denoiser, xt = bent(HO), noise(2, 1, 3)
    for t, s in [(1000, 999), (500, 100), (3, 0)]:
        x0, eps = denoiser(xt, t)
        ab = float(HO.alpha_bar(s))
        assert_close(ddim(denoiser, xt, t, s, noise(2, 1, 3, seed=1)), math.sqrt(ab) * x0 + math.sqrt(1 - ab) * eps)


@shipped
def test_variances(make):
    schedule = make(30)
    for t, s in [(30, 29), (30, 2), (1, 0), (7.5, 3)]:
        ab_t, ab_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
        assert float(beta(schedule, t, s)) == pytest.approx(1 - ab_t / ab_s, rel=1e-9)
        assert float(beta_tilde(schedule, t, s)) == pytest.approx((1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s), rel=1e-9)
        assert beta(schedule, t, s).dtype == DOUBLE


@every
@pytest.mark.parametrize("t", [1, 30, 1000])
def test_the_step_to_0_returns_the_estimate_of_the_signal(step, t):
    denoiser, xt = bent(HO), noise(2, 1, 3)
    for z in (noise(2, 1, 3, seed=1), noise(2, 1, 3, seed=2)):
        assert_close(advance(step, denoiser, xt, t, 0, z)[0], denoiser(xt, t).x0, rtol=1e-9, atol=1e-9)
    assert_close(ancestral(denoiser, xt, t, 0, z, variance=beta), denoiser(xt, t).x0, rtol=1e-9, atol=1e-9)


def test_the_extrapolating_steps_by_hand():
    """Lu et al. 2022, algorithm 2, line 9: D = (1 + 1/2r)·x̂(t_i) - 1/2r·x̂(t_{i-1}), in their own symbols."""
    denoiser, x, z = bent(HO), noise(2, 1, 3), noise(2, 1, 3, seed=1)
    before, t, s = 700.5, 400.0, 210.25

    def lam(v):
        return 0.5 * float(HO.log_snr(v))

    earlier = denoiser(noise(2, 1, 3, seed=2), before).x0
    past, x0 = Evaluation(before, earlier), denoiser(x, t).x0
    h, r = lam(s) - lam(t), (lam(t) - lam(before)) / (lam(s) - lam(t))
    d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * earlier
    (a_s, sigma_s), (_, sigma_t) = (
        (float(HO.alpha_bar(v)) ** 0.5, (1 - float(HO.alpha_bar(v))) ** 0.5) for v in (s, t)
    )
    expected = sigma_s / sigma_t * x - a_s * math.expm1(-h) * d
    found, now = dpmpp_2m(denoiser, x, t, s, z, past=past)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert now.t == t and torch.equal(now.x0, x0)  # and not where the line leads
    expected = (
        sigma_s / sigma_t * math.exp(-h) * x
        - a_s * math.expm1(-2 * h) * d
        + sigma_s * math.sqrt(-math.expm1(-2 * h)) * z
    )
    found, now = dpmpp_2m_sde(denoiser, x, t, s, z, past=past)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert now.t == t and torch.equal(now.x0, x0)


def test_heun_by_hand():
    """Karras et al. 2022, algorithm 1, for s(t) = √ᾱ, σ(t) = √((1-ᾱ)/ᾱ), in x/s."""
    denoiser, x, t, s = bent(HO), noise(2, 1, 3), 400.0, 210.25
    a_t, a_s = (float(HO.alpha_bar(v)) ** 0.5 for v in (t, s))
    sigma_t, sigma_s = (math.sqrt(1 / a**2 - 1) for a in (a_t, a_s))
    here = (x / a_t - denoiser(x, t).x0) / sigma_t
    euler = x / a_t + (sigma_s - sigma_t) * here
    assert_close(ddim(denoiser, x, t, s, x), a_s * euler, rtol=1e-9, atol=1e-9)
    there = (euler - denoiser(a_s * euler, s).x0) / sigma_s
    assert_close(
        heun(denoiser, x, t, s, x), a_s * (x / a_t + (sigma_s - sigma_t) * (here + there) / 2), rtol=1e-9, atol=1e-9
    )


def test_the_first_step_has_nothing_to_look_back_on():
    denoiser, x, z = bent(HO), noise(2, 1, 3), noise(2, 1, 3, seed=1)
    assert torch.equal(dpmpp_2m(denoiser, x, 400, 200, z)[0], ddim(denoiser, x, 400, 200, z))
    assert_close(dpmpp_2m_sde(denoiser, x, 400, 200, z)[0], ancestral(denoiser, x, 400, 200, z), rtol=1e-9, atol=1e-9)
    past = Evaluation(600, denoiser(x, 600).x0)
    for s in (200, 0.5):
        assert not torch.allclose(dpmpp_2m(denoiser, x, 400, s, z, past=past)[0], ddim(denoiser, x, 400, s, z))


@pytest.mark.parametrize("step", [dpmpp_2m, dpmpp_2m_sde])
def test_the_loop_hands_a_step_what_the_last_one_left(step):
    denoiser, seen = toy().float(), []

    def spy(denoiser, xt, t, s, z, past=None):
        seen.append((t, past))
        return step(denoiser, xt, t, s, z, past=past)

    times = [900, 400.5, 3, 0]
    path = list(sample(denoiser, (2, 1, 1), times, spy, rng()))
    (first, nothing), *later = seen
    assert first == 900 and nothing is None and [t for t, _ in later] == [400.5, 3]
    for x, before, (_, past) in zip(path, times, later, strict=False):
        assert past.t == before and torch.equal(past.x0, denoiser(x, before).x0)
    again = list(sample(denoiser, (2, 1, 1), times, spy, rng()))
    assert seen[3][1] is None  # a walk does not go on from another
    assert all(torch.equal(x, y) for x, y in zip(path, again, strict=True))


def test_a_step_of_one_s_own_that_looks_back():
    """The flow dy/dσ = ε̂ in y = x/√ᾱ by the two-step rule of Adams and Bashforth, whose past is σ and ε̂."""

    def adams(denoiser, xt, t, s, z, past=None):
        (a_t, a_s), (sigma_t, sigma_s) = zip(*((float(HO.alpha_bar(v)) ** 0.5, size(v)) for v in (t, s)), strict=True)
        slope, h = denoiser(xt, t).eps, sigma_s - sigma_t
        if past is not None:
            sigma, before = past
            y = xt / a_t + h * (slope + h / (sigma_t - sigma) / 2 * (slope - before))
        else:
            y = xt / a_t + h * slope
        return a_s * y, (sigma_t, slope)

    def size(v):
        return float((-HO.log_snr(v) / 2).exp()) if v else 0.0

    found = law(adams, toy(), even_log_snr(HO, 80, TILT))
    assert is_right(found)
    assert abs(found[1] - 0.25) < 0.2 * abs(law(ddim, toy(), even_log_snr(HO, 80, TILT))[1] - 0.25)


@pytest.mark.parametrize(("step", "evaluations"), [(ancestral, 7), (dpmpp_2m_sde, 7), (heun, 13)])
def test_evaluations_are_counted(step, evaluations):
    """Heun asks twice, but for the step to 0. What is counted is what comes out without."""
    denoiser = toy().float()
    counted = Counted(denoiser)
    *_, x = sample(counted, (2, 1, 1), 7, step, rng())
    *_, expected = sample(denoiser, (2, 1, 1), 7, step, rng())
    assert counted.evaluations == evaluations and torch.equal(x, expected)


class Asks:
    """A denoiser that is not linear, adds its condition to x̂_0, and notes how many signals it is asked about."""

    schedule = HO

    def __init__(self):
        self.asked = []

    def __call__(self, xt, t, cond=None):
        self.asked.append(len(xt))
        x0, eps = bent(HO)(xt, t)
        return Prediction(x0 if cond is None else x0 + cond[..., None], eps)


@pytest.mark.parametrize("t", [400.5, torch.linspace(1, 1000, 10)], ids=["one time", "a time each"])
@pytest.mark.parametrize("cond", [None, noise(10, 1, seed=1)], ids=["free", "conditional"])
def test_a_large_batch_is_evaluated_in_chunks(t, cond):
    denoiser, x = Asks(), noise(10, 1, 3)
    found, whole = Chunked(denoiser, chunk=4)(x, t, cond), Asks()(x, t, cond)
    assert denoiser.asked == [4, 4, 2]
    assert_close(found.x0, whole.x0)
    assert_close(found.eps, whole.eps)


def test_a_walk_of_many_signals_is_made_in_chunks():
    denoiser = Asks()
    *_, x = sample(denoiser, (5000, 1, 3), 3, dpmpp_2m_sde, rng())
    assert denoiser.asked == [4096, 904] * 3
    parts = [slice(4000), slice(4000, 5000)]
    expected = torch.cat([list(sample(Asks(), (5000, 1, 3), 3, dpmpp_2m_sde, rng(), rows=part))[-1] for part in parts])
    assert_close(x, expected)


def test_chunks_keep_a_covariance():
    """Of a finite set it depends on x_t, and a step may ask for it."""
    exact, seen = FiniteOracle(noise(6, 1, 3).float(), HO), []

    def step(denoiser, xt, t, s, z):
        assert isinstance(denoiser, WithCovariance)
        seen.append((denoiser, denoiser.covariance(xt, t)))
        assert_close(seen[-1][1], exact.covariance(xt, t))
        return ddim(denoiser, xt, t, s, z)

    list(sample(exact, (5000, 1, 3), [500, 100, 0], step, rng()))
    assert [cov.shape for _, cov in seen] == [(5000, 3, 3)] * 2 and all(cov.std(0).max() > 1e-3 for _, cov in seen)
    assert seen[0][0] is not exact

    def small(denoiser, xt, t, s, z):
        assert denoiser is exact
        return ddim(denoiser, xt, t, s, z)

    list(sample(exact, (40, 1, 3), [500, 100, 0], small, rng()))


# --- against diffusers --------------------------------------------------------------------------------


def theirs(name, **options):
    """A scheduler of diffusers on our table in float64 (its own is float32), time t being its t - 1."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False, **options
    )
    table = HO.alpha_bar(torch.arange(1, 1001))
    assert_close(scheduler.alphas_cumprod.double(), table, rtol=2e-4, atol=0)  # theirs, before it is replaced
    scheduler.alphas_cumprod = table
    if name == "DDPMScheduler":
        scheduler.one = torch.tensor(1.0, dtype=DOUBLE)
    return scheduler


@pytest.mark.parametrize("steps", [1000, 50, 20])
@pytest.mark.parametrize(("variance", "name"), [(beta_tilde, "fixed_small"), (beta, "fixed_large")])
def test_ancestral_is_the_step_of_diffusers(variance, name, steps):
    scheduler = theirs("DDPMScheduler", variance_type=name)
    scheduler.set_timesteps(steps)
    denoiser, stride = bent(HO), 1000 // steps
    for k in (*scheduler.timesteps.tolist()[:: max(1, steps // 10)], stride, 0):
        xt, t = noise(2, 1, 5, seed=k), k + 1
        z = torch.randn(xt.shape, generator=rng(k), dtype=DOUBLE)
        expected = scheduler.step(denoiser(xt, t).eps, k, xt, generator=rng(k))
        found = ancestral(denoiser, xt, t, max(0, t - stride), z, variance=variance)
        assert_close(found, expected.prev_sample, rtol=1e-8, atol=1e-8 * float(xt.abs().max()))
        assert_close(denoiser(xt, t).x0, expected.pred_original_sample, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [1000, 50, 20])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_the_step_of_diffusers(eta, steps):
    scheduler = theirs("DDIMScheduler", set_alpha_to_one=True)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=DOUBLE)
    scheduler.set_timesteps(steps)
    denoiser, stride = bent(HO), 1000 // steps
    for k in (*scheduler.timesteps.tolist()[:: max(1, steps // 10)], 0):
        xt, z, t = noise(2, 1, 5, seed=k), noise(2, 1, 5, seed=k + 1), k + 1
        expected = scheduler.step(denoiser(xt, t).eps, k, xt, eta=eta, variance_noise=z).prev_sample
        found = ddim(denoiser, xt, t, max(0, t - stride), z, eta=eta)
        assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("steps", [5, 20, 100])
@pytest.mark.parametrize("step", [dpmpp_2m, dpmpp_2m_sde])
def test_dpm_solver_is_that_of_diffusers(step, steps):
    """A whole path, because these steps look back."""
    diffusers = pytest.importorskip("diffusers")
    kind = "sde-dpmsolver++" if step is dpmpp_2m_sde else "dpmsolver++"
    scheduler = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", algorithm_type=kind,
        solver_order=2, solver_type="midpoint", final_sigmas_type="zero", timestep_spacing="linspace",
        lower_order_final=False, euler_at_final=True,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    whole = HO.alpha_bar(torch.arange(1, 1001))
    times = [k + 1 for k in scheduler.timesteps.tolist()]
    scheduler.sigmas = torch.cat([((1 - whole) / whole).sqrt()[torch.tensor(times) - 1], torch.zeros(1, dtype=DOUBLE)])
    denoiser = bent(HO)
    x = noise(2, 1, 5)
    ours = list(walk(denoiser, x, [*times, 0], step, iter([noise(2, 1, 5, seed=k) for k in times]).__next__))
    for k, found in zip(times, ours[1:], strict=True):
        z = noise(2, 1, 5, seed=k)
        x = scheduler.step(denoiser(x, k).eps, k - 1, x, variance_noise=z).prev_sample
        assert_close(found, x.double(), rtol=1e-5, atol=1e-5 * float(x.abs().max()))


# --- the loop -----------------------------------------------------------------------------------------


@every
@shipped
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_path(step, make, steps):
    schedule = make(20)
    denoiser = toy(schedule=schedule)
    denoiser.float()
    path = list(sample(denoiser, (3, 1, 1), steps=steps, step=step, generator=rng()))
    assert len(path) == steps + 1
    assert all(x.shape == (3, 1, 1) and x.dtype == torch.float32 and x.isfinite().all() for x in path)
    assert torch.equal(path[0], torch.randn(3, 1, 1, generator=rng()))
    assert not any(x.requires_grad for x in path)
    again = list(sample(denoiser, (3, 1, 1), steps=steps, step=step, generator=rng()))
    assert all(torch.equal(x, y) for x, y in zip(path, again, strict=True))
    *_, other = sample(denoiser, (3, 1, 1), steps=steps, step=step, generator=rng(1))
    assert not torch.equal(other, path[-1])


@pytest.fixture
def double():
    """Noise in float64, to see that numbers are equal to rounding."""
    torch.set_default_dtype(DOUBLE)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("denoiser", [toy(), bent(HO), toy(schedule=cosine(50))], ids=["toy", "bent", "cosine"])
def test_algorithm_2_as_printed_is_ancestral_on_all_T_steps(denoiser, double):
    T = denoiser.schedule.T
    *_, expected = sample(denoiser, (3, 1, 1), range(T, -1, -1), ancestral, rng(5))
    assert_close(algorithm_2(denoiser, (3, 1, 1), rng(5)), expected, rtol=1e-9, atol=1e-9)


def test_a_walk_is_where_its_denoiser_is():
    """The meta device stands for a GPU: it has no numbers, so there is nothing to be looked at."""
    there = toy().float().to("meta")
    assert all(x.is_meta for x in sample(there, (2, 1, 1), 4, check_finite=False))
    assert all(x.is_meta for x in sample(there, (2, 1, 1), 4, start=torch.zeros(2, 1, 1), check_finite=False))
    for denoiser in (toy().float(), Asks()):  # a plain function is taken to work on the CPU
        assert all(x.device.type == "cpu" for x in sample(denoiser, (2, 1, 1), 4))
    assert next(sample(toy().float(), (2, 1, 1), 4, device="meta")).is_meta


@pytest.mark.parametrize("eta", [math.nan, 3.0])
def test_a_step_that_diverges_is_told_unless_nobody_asks(eta):
    """η = 3 asks for more noise than there is at s: √(1-ᾱ_s-σ²) is no number."""
    walked, whole = [], partial(sample, guess(), (2, 1, 1), [28, 27, 26, 0], partial(ddim, eta=eta))
    with pytest.raises(FloatingPointError, match=r"The step from t = 28(\.0)? to 27(\.0)? gave NaN or infinity"):
        walked.extend(whole())
    assert len(walked) == 1 and walked[0].isfinite().all()
    assert [bool(x.isnan().all()) for x in whole(check_finite=False)] == [False, True, True, True]


def test_the_path_is_made_of_the_steps():
    denoiser, seen = toy().float(), []

    def step(denoiser, xt, t, s, z):
        seen.append((t, s, z))
        return ancestral(denoiser, xt, t, s, z)

    times = [900, 400.5, 3, 0]
    path = list(sample(denoiser, (2, 1, 1), steps=times, step=step, generator=rng()))
    assert [(t, s) for t, s, _ in seen] == [(900, 400.5), (400.5, 3), (3, 0)]
    assert len({float(z[0]) for *_, z in seen}) == 3  # fresh noise at each
    for x, (t, s, z), y in zip(path, seen, path[1:], strict=False):
        assert torch.equal(y, ancestral(denoiser, x, t, s, z))


def test_a_number_of_steps_means_the_grid_of_the_library():
    runs = [list(sample(toy().float(), (2, 1, 1), steps=s, generator=rng())) for s in (8, even_log_snr(HO, 8, TILT))]
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


def test_samples_have_the_law_that_the_recursion_says():
    times = even_steps(HO, 50)
    mean, std = law(ancestral, toy(), times)
    *_, x0 = sample(toy().float(), (20_000, 1, 1), times, ancestral, rng())
    assert_mean(x0, mean)
    assert_mean((x0 - mean).square(), std**2)


@pytest.mark.parametrize("T", [1, 2, 50, 1000])
def test_even_steps_fall_from_T_to_0(T):
    schedule = linear(T)
    for steps in {1, 2, 3, 7, 49, 500, 640, 999, 1000, *range(1, 51)}:
        if steps > T:
            continue
        times = even_steps(schedule, steps)
        assert len(times) == steps + 1 and (times[0], times[-1]) == (T, 0)
        gaps = [t - s for t, s in pairwise(times)]
        assert min(gaps) > 0 and max(gaps) - min(gaps) <= 2 and all(t == int(t) for t in times)
    assert even_steps(schedule, T) == list(range(T, -1, -1))


@shipped
@pytest.mark.parametrize("T", [1, 2, 50, 1000])
def test_even_log_snr_is_even_in_log_snr(make, T):
    schedule = make(T)
    for steps in {1, 2, 3, 10, 20, T}:
        if steps > T:
            continue
        times = even_log_snr(schedule, steps)
        assert len(times) == steps + 1 and (times[0], times[-1]) == (T, 0)
        assert all(t > s for t, s in pairwise(times))
        if steps > 1:
            assert times[-2] == pytest.approx(1, abs=1e-6)
            gaps = schedule.log_snr(torch.tensor(times[:-1], dtype=DOUBLE)).diff()
            assert_close(gaps, gaps.mean().expand(steps - 1), rtol=1e-6, atol=1e-6)
            if steps <= 20:
                list(sample(toy(schedule=schedule).float(), (1, 1, 1), steps=times))


@pytest.mark.parametrize("step", ALL, ids=lambda step: step.__name__)
def test_slices_are_together_what_one_process_draws(step):
    """To the bit here, where the numbers of a row do not depend on how many others there are."""
    denoiser, shape = toy().float(), (5, 1, 1)
    whole = list(sample(denoiser, shape, 6, step, rng(3)))
    parts = [list(sample(denoiser, shape, 6, step, rng(3), rows=rows)) for rows in (slice(2), slice(2, 5))]
    for state, *both in zip(whole, *parts, strict=True):
        assert torch.equal(state, torch.cat(both)) and len(state.unique()) == 5
    start = torch.randn(shape, generator=rng(9))
    slices = slice(5), slice(1, 5, 2)
    x, odd = (list(sample(denoiser, shape, 6, step, rng(3), start=start, rows=rows))[-1] for rows in slices)
    assert torch.equal(x[1::2], odd)


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [3, None, slice(0), slice(5, 9), [0, 1]])
def test_rows_that_are_refused(rows):
    with pytest.raises(ValueError, match=r"rows must be a slice that takes some of the 5 signals, got"):
        sample(toy(), (5, 1, 1), rows=rows)


@pytest.mark.parametrize("steps", [0, -1, 21, True, 2.5, "5"])
@pytest.mark.parametrize("grid", [even_steps, even_log_snr], ids=lambda g: g.__name__)
def test_numbers_of_steps_that_are_refused(grid, steps):
    with pytest.raises(ValueError, match=rf"integer from 1 to 20, got {steps!r}\."):
        grid(cosine(20), steps)


@pytest.mark.parametrize("steps", [0, -3, 21, True])
def test_sample_refuses_before_the_first_step(steps):
    with pytest.raises(ValueError, match=rf"integer from 1 to 20, got {steps!r}\."):
        sample(toy(schedule=cosine(20)), (1, 1, 1), steps=steps)


@pytest.mark.parametrize(
    "times", [[], [0], [20], [20, 20, 0], [5, 10, 0], [21, 0], [20, 1], [20, 5, -1], [20, math.nan, 0]]
)
def test_times_that_are_refused(times):
    with pytest.raises(
        ValueError, match=r"Times must fall from at most T = 20 to 0, got|A time must be a number .* to 20, got"
    ):
        sample(toy(schedule=cosine(20)), (1, 1, 1), steps=times)


@pytest.mark.parametrize("t", [1000.5, 1001, -1, math.nan])
def test_a_time_outside_the_schedule_is_refused(t):
    denoiser, x = toy(), torch.zeros(1, 1, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"t must lie in 0…1000|A denoiser needs times in 0 < t <= 1000"):
        ddim(denoiser, x, t, 0.5, x)


WRONG = {
    "shape": (lambda d, x: sample(d, (2, 4)), r"Signals have a shape \(B, C, L\), got \(2, 4\)\."),
    "no shape": (lambda d, x: sample(d, 3), r"Signals have a shape \(B, C, L\), got 3\."),
    "sizes": (lambda d, x: sample(d, (2, 0, 4)), r"Each size of the shape \(B, C, L\) must be an integer from 1"),
    "a time": (lambda d, x: sample(d, (2, 1, 1), ["a", 0]), "A time must be a number"),
    "start": (lambda d, x: sample(d, (2, 1, 1), start=x[0]), r"start must have shape \(B, C, L\)"),
    "another start": (lambda d, x: sample(d, (3, 1, 1), start=x), r"start must have the shape .* got \(2, 1, 1\)\."),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused_is_called_by_its_name(case):
    call, words = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        call(toy(), torch.zeros(2, 1, 1, dtype=DOUBLE))


def guess():
    """A denoiser in float32 that costs nothing."""
    return Denoiser(lambda xt, level, cond: 0.1 * xt, linear(50), Eps())


def test_a_walk_begins_where_it_is_told():
    denoiser, start = guess(), noise(3, 1, 1, seed=4).float()
    first, *_ = sample(denoiser, (3, 1, 1), 5, start=start)
    assert first.equal(start)
    (other, *_), (same, *_) = (sample(denoiser, (3, 1, 1), 5, start=start, rows=slice(1, 2)) for _ in range(2))
    assert other.equal(start[1:2]) and same.equal(other)


def test_times_may_be_a_tensor_or_a_single_step():
    denoiser = guess()
    T = denoiser.schedule.T
    by_list, by_tensor = (
        list(sample(denoiser, (2, 1, 1), t, generator=rng(1))) for t in ([T, 0], torch.tensor([T, 0]))
    )
    assert len(by_list) == 2
    assert_close(by_list, by_tensor)
    assert len(list(sample(denoiser, (2, 1, 1)))) == 21  # twenty steps where nothing is said


@pytest.mark.parametrize("times", ["20", [5, 0.0, 0.0], [2000.0, 5.0, 0.0], [9, 7, 5, 3, 1]])
def test_times_that_are_none_are_refused(times):
    with pytest.raises((TypeError, ValueError), match=r"steps|time|Times"):
        sample(guess(), (2, 1, 1), times)


def test_a_wrapper_has_a_covariance_where_its_denoiser_has_one():
    exact, x = toy(), torch.ones(3, 1, 1, dtype=torch.float64)
    network = Denoiser(UNet1D(width=4, levels=1, blocks=1, dim=4), HO, Eps())
    for wrap in (Counted, Chunked):
        assert isinstance(wrap(exact), WithCovariance) and not isinstance(wrap(network), WithCovariance)
        assert torch.equal(wrap(exact).covariance(x, 5), exact.covariance(x, 5))
