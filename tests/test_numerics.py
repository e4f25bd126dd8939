"""Numerics at the extremes: float32 against float64, half precision, devices without float64, what is reproducible."""

import math
import warnings
from functools import partial

import pytest
import torch
from helpers import SHORT, net, rng, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm_lib import (
    L_0,
    L_T,
    Denoiser,
    Eps,
    Gaussian,
    L_t,
    V,
    beta,
    beta_tilde,
    elbo,
    fit,
    linear_skip,
    loss,
    min_snr,
    q_posterior,
    q_sample,
    q_step,
    sample,
    simple,
    vlb,
)
from ddpm_lib.diffusion import denoiser, schedules
from ddpm_lib.sampling import steps

SINGLE, DOUBLE = torch.float32, torch.float64
EPS = torch.finfo(SINGLE).eps
LENGTHS = [1, 2, 10, 50, 100, 1000, 4000]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec.*:"),
    pytest.mark.filterwarnings("ignore:At t = T.*:UserWarning"),
]
everywhere = pytest.mark.parametrize(
    "schedule", [pytest.param((f, T), id=f"{f.__name__}-{T}") for f in schedules.ALL for T in LENGTHS]
)


def made(schedule):
    make, T = schedule
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(T)


def extremes(schedule):
    """The ends, where 1-ᾱ or ᾱ is tiny, the middle, and times between the integers."""
    T = schedule.T
    t = [1, 2, T // 2, T - 1, T, 0.01, 0.5, T - 0.5]
    return torch.tensor(sorted({float(v) for v in t if 0 < v <= T}), dtype=DOUBLE)


def reference(schedule, t):
    """√ᾱ, √(1-ᾱ) and log ᾱ of the schedule at t, in Python's own float64, from log ᾱ alone."""
    table = schedule.log_alpha_bar(torch.arange(schedule.T + 1)).tolist()

    def log_ab(v):
        low = min(int(v), schedule.T - 1)
        return table[low] + (table[low + 1] - table[low]) * (v - low)

    return [(math.exp(log_ab(v) / 2), math.sqrt(-math.expm1(log_ab(v))), log_ab(v)) for v in t.tolist()]


def close(found, expected, ulps):
    """Equal to so many units of float32, relative to the greatest of each signal."""
    found, expected = found.double(), expected.double()
    assert torch.isfinite(found).all() and torch.isfinite(expected).all()
    error = (found - expected).abs()
    scale = expected.abs() if expected.ndim == 1 else expected.abs().amax(dim=(1, 2), keepdim=True)
    assert (error <= ulps * EPS * scale + 1e-37).all(), f"{(error / (EPS * scale + 1e-37)).max():.3g} units"


@everywhere
def test_the_schedule_in_float32(schedule):
    schedule = made(schedule)
    t = extremes(schedule)
    a, s, log_ab = torch.tensor(reference(schedule, t), dtype=DOUBLE).T
    for dtype, ulps in ((DOUBLE, 1e-6), (SINGLE, 30)):
        found_a, found_s = (v.flatten() for v in schedule(t, dtype))
        assert found_a.dtype == dtype
        close(found_s, s, ulps)
        close(found_a, a, ulps * max(1.0, float(-log_ab.min())))  # exp: an error of log ᾱ counts absolutely
        snr = log_ab - torch.log(-torch.expm1(log_ab))
        error = (schedule.log_snr(t, dtype).double() - snr).abs()
        assert (error <= ulps * EPS * (1 + snr.abs())).all()
    whole = torch.arange(1, schedule.T + 1)
    for v in (schedule.beta(whole), schedule.snr(whole), schedule.alpha_bar(whole)):
        assert v.dtype == DOUBLE and torch.isfinite(v).all() and (v > 0).all()
    assert (schedule.at_log_snr(schedule.log_snr(whole)) - whole).abs().max() < 1e-6 * schedule.T


def test_numbers_keep_all_their_digits():
    """A time or a table given as Python's numbers is read in float64, not by way of float32."""
    t, one, schedule = 523.1234567891, torch.ones(1, 1, 1, dtype=DOUBLE), schedules.linear()
    kept, lost = (schedule.beta(torch.tensor(t, dtype=dtype)).sqrt() for dtype in (DOUBLE, SINGLE))
    assert q_step(0 * one, t, one, schedule).item() == kept != lost
    assert schedules.Schedule.from_betas([0.1, 0.2, 0.999]).log_alpha_bar(1).item() == math.log1p(-0.1)
    assert schedules.Schedule([0.0, -0.1, -9.0]).log_alpha_bar(1).item() == -0.1


def batch(n, dtype):
    x0, eps = (torch.randn(n, 1, 8, generator=rng(seed), dtype=DOUBLE) for seed in (0, 1))
    return x0.to(SINGLE).to(dtype), eps.to(SINGLE).to(dtype)


@everywhere
def test_the_forward_process_and_its_posterior_in_float32(schedule):
    schedule = made(schedule)
    t = extremes(schedule)
    x0, eps = batch(len(t), SINGLE)
    wide = [v.double() for v in (x0, eps)]
    size = 30 * max(1.0, float(-schedule.log_alpha_bar(schedule.T)))
    close(q_sample(x0, t, eps, schedule), q_sample(wide[0], t, wide[1], schedule), size)
    later = t[t >= 1]
    x0, eps, wide = x0[: len(later)], eps[: len(later)], [v[: len(later)] for v in wide]
    close(q_step(x0, later, eps, schedule), q_step(wide[0], later, wide[1], schedule), 10)
    for s in (later - 1, later / 2, torch.zeros_like(later)):
        found, expected = (q_posterior(*v, later, schedule, s) for v in ((x0, eps), wide))
        close(found.mean, expected.mean, 20)
        close(found.var, expected.var, 20)


@everywhere
@pytest.mark.parametrize("kind", denoiser.ALL, ids=lambda kind: kind.__name__)
def test_what_networks_predict_in_float32(schedule, kind):
    """Turning a prediction into the other view divides by √ᾱ or √(1-ᾱ): the error grows by that much and no more."""
    schedule = made(schedule)
    t = extremes(schedule)
    x0, eps = batch(len(t), SINGLE)
    (a, s), xt = schedule(t, SINGLE), q_sample(x0, t, eps, schedule)
    out = kind().target(x0, eps, a, s)
    found = kind().predict(out, xt, a, s)
    expected = kind().predict(*(v.double() for v in (out, xt, a, s)))
    grown = 100 * (1 / a + 1 / s).double() * (xt.double().abs().amax((1, 2), True) + out.abs().amax((1, 2), True))
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one).all() and ((one - other).abs() <= EPS * grown).all()


@everywhere
def test_the_bound_and_the_weights_in_float32(schedule):
    schedule = made(schedule)
    t = torch.tensor(sorted({v for v in (1, 2, schedule.T // 2, schedule.T - 1, schedule.T) if 1 <= v <= schedule.T}))
    for weight in (simple, vlb, min_snr, partial(vlb, sigma_1=0.1)):
        value = weight(schedule, t)
        assert value.dtype == DOUBLE and torch.isfinite(value).all() and (value > 0).all()
    for variance in (beta, beta_tilde):
        later = t[t >= 2]
        if len(later):
            value = variance(schedule, later, later - 1)
            assert torch.isfinite(value).all() and (value > 0).all()
    x0, eps = batch(len(t), SINGLE)
    one, two = (Denoiser(lambda x, *_: 0.3 * x, schedule, V()) for _ in range(2))
    close(L_T(x0, schedule), L_T(x0.double(), schedule), 10)
    calls = [lambda x, e: L_0(one, x, e)]
    if schedule.T > 1:
        later = t.clamp(min=2)
        calls.append(lambda x, e: L_t(one, x, later, e))
    for call in calls:
        found, expected = call(x0, eps), call(x0.double(), eps.double())
        scale = 8 + expected.abs().max()
        assert torch.isfinite(found).all() and ((found - expected).abs() <= 300 * EPS * scale).all()
    found, expected = loss(one, x0, t, eps, vlb), loss(two, x0.double(), t, eps.double(), vlb)
    assert torch.isfinite(found).all() and ((found - expected).abs() <= 300 * EPS * (1 + expected.abs().max())).all()


@pytest.mark.parametrize("step", steps.ALL, ids=lambda step: step.__name__)
@pytest.mark.parametrize("make", schedules.ALL, ids=lambda make: make.__name__)
@pytest.mark.parametrize("T", [1, 10, 4000])
def test_samplers_in_float32(step, make, T):
    schedule = made((make, T))
    ends = []
    for dtype in (SINGLE, DOUBLE):
        exact = Gaussian(torch.zeros(1, 4, dtype=dtype), 0.25 * torch.eye(4, dtype=dtype), schedule)
        start = torch.randn(3, 1, 4, generator=rng(0)).to(dtype)

        def same_noise(denoiser, xt, t, s, noise, **past):
            return step(denoiser, xt, t, s, noise.to(xt), **past)

        *_, x0 = sample(exact, (3, 1, 4), min(T, 20), same_noise, rng(1), start=start)
        ends.append(x0)
    torch.testing.assert_close(ends[0].double(), ends[1], rtol=1e-3, atol=1e-4)


# --- half precision -----------------------------------------------------------------------------------

SKIP = partial(linear_skip, n=300, width=8, blocks=1, dim=16)


@pytest.mark.parametrize("network", [net, SKIP], ids=["net", "skip"])
def test_training_in_half_precision(network):
    """Weights stay float32 and finite, the losses near those of float32. (On a CPU Lightning has no float16.)"""
    full, half = (fit(small(network=network, steps=6), **how) for how in ({}, {"precision": "bf16-mixed"}))
    assert all(p.dtype == SINGLE and p.isfinite().all() for p in half.denoiser.parameters())
    assert half.losses.isfinite().all() and not torch.equal(full.losses, half.losses)
    torch.testing.assert_close(half.losses, full.losses, rtol=0.02, atol=0.02)


# --- devices without float64 --------------------------------------------------------------------------


class NoDouble(TorchDispatchMode):
    """Refuses float64 on the meta device, which stands for MPS here."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, out)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta" and leaf.dtype == DOUBLE:
                raise AssertionError(f"float64 on the device, by {function}")
        return out


def test_the_watchman_sees_float64():
    with pytest.raises(AssertionError, match="float64 on the device"), NoDouble():
        torch.zeros(2, device="meta").double()


@pytest.mark.parametrize("step", steps.ALL, ids=lambda step: step.__name__)
def test_no_float64_is_made_on_the_device_by_a_sampler(step):
    """The meta device holds no numbers that could be looked at."""
    denoiser = small(network=SKIP).build().to("meta")
    with NoDouble():
        *path, x0 = sample(denoiser, (2, 1, 64), 4, step, check_finite=False)
    assert x0.device.type == "meta" and x0.dtype == SINGLE and len(path) == 4


def test_no_float64_is_made_on_the_device_by_the_forward_process():
    x, t = torch.zeros(2, 1, 64, device="meta"), torch.tensor([1, 5])
    schedule = schedules.linear()
    denoiser = Denoiser(net(SHORT, 0).to("meta"), schedule, Eps())
    with NoDouble():
        for out in (
            q_sample(x, t.to("meta"), x, schedule),
            q_step(x, t, x, schedule),
            q_posterior(x, x, t, schedule).mean,
        ):
            assert out.device.type == "meta"
        assert denoiser(x, t.to("meta")).eps.dtype == SINGLE


def test_no_float64_is_made_on_the_device_by_the_loss():
    x, t = torch.zeros(2, 1, 64, device="meta"), torch.tensor([1, 5], device="meta")
    denoiser = Denoiser(net(SHORT, 0).to("meta"), schedules.linear(), Eps())
    with NoDouble():
        assert loss(denoiser, x, t, x).dtype == SINGLE


# --- what is reproducible -----------------------------------------------------------------------------


def test_any_number_of_workers_gives_the_same_bits():
    runs = [fit(small(), workers=workers) for workers in (0, 1, 3)]
    for run in runs[1:]:
        assert torch.equal(run.losses, runs[0].losses)
        for one, other in zip(run.denoiser.parameters(), runs[0].denoiser.parameters(), strict=True):
            assert torch.equal(one, other)


def test_the_bound_is_the_same_for_the_same_generator():
    exact = Gaussian(torch.zeros(1, 4), torch.eye(4), schedules.linear(10))
    one, other = (elbo(exact, torch.ones(2, 1, 4), draws=2, generator=rng(3)) for _ in range(2))
    assert torch.equal(one.total, other.total) and torch.equal(one.error, other.error)
