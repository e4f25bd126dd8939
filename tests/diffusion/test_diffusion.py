"""The forward process against its steps, the posterior against Bayes on a grid, parametrisations, the loss."""

import math

import numpy as np
import pytest
import torch
from helpers import HO, assert_mean, mean_and_error, rng, toy
from scipy import stats

from ddpm_lib import (
    X0,
    Denoiser,
    Eps,
    Prediction,
    U,
    V,
    cosine,
    linear,
    loss,
    q_posterior,
    q_sample,
    q_step,
    simple,
)
from ddpm_lib.diffusion import Measurement, denoiser, draw_times, flow_matching, schedules
from ddpm_lib.sampling import PseudoinverseGuidance

DOUBLE = torch.float64
shipped = pytest.mark.parametrize("make", schedules.ALL, ids=[f.__name__ for f in schedules.ALL])
parametrisations = pytest.mark.parametrize("kind", denoiser.ALL, ids=[p.__name__ for p in denoiser.ALL])


def numbers(*values):
    """Values as a batch of signals of one sample each, in float64."""
    return torch.tensor(values, dtype=DOUBLE).view(-1, 1, 1)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed), dtype=DOUBLE)


# --- forward ------------------------------------------------------------------------------------------


@shipped
def test_steps_compose_to_the_jump(make):
    """Mean and variance of x_t given x_0, propagated through q_step at every t, are those of q_sample."""
    schedule = make(100)
    scale, variance = 1.0, 0.0
    for t in range(1, 101):
        a, s = q_step(numbers(1, 0), t, numbers(0, 1), schedule).flatten().tolist()
        scale, variance = a * scale, a**2 * variance + s**2
        jump = q_sample(numbers(1, 0), t, numbers(0, 1), schedule).flatten()
        assert jump.tolist() == pytest.approx([scale, math.sqrt(variance)], rel=1e-9)


def walk(schedule, upto, n, fresh=True):
    x = torch.full((n, 1, 1), 0.7, dtype=DOUBLE)
    generator = rng(1)
    eps = torch.randn(x.shape, generator=generator, dtype=DOUBLE)
    for t in range(1, upto + 1):
        x = q_step(x, t, eps, schedule)
        if fresh:
            eps = torch.randn(x.shape, generator=generator, dtype=DOUBLE)
    return x.flatten()


@pytest.mark.parametrize(("schedule", "upto"), [(HO, 1), (HO, 100), (linear(50), 50)])
def test_sequential_steps_have_the_law_of_the_jump(schedule, upto):
    n = 100_000
    steps = walk(schedule, upto, n)
    jump = q_sample(torch.full((n, 1, 1), 0.7, dtype=DOUBLE), upto, noise(n, 1, 1, seed=2), schedule).flatten()
    ab = float(schedule.alpha_bar(upto))
    for x in (steps, jump):
        assert abs(x.mean() - 0.7 * math.sqrt(ab)) < 4 * math.sqrt((1 - ab) / n)
        assert abs(x.var() / (1 - ab) - 1) < 4 * math.sqrt(2 / n)
    assert stats.ks_2samp(steps.numpy(), jump.numpy()).pvalue > 1e-3


def test_one_noise_for_all_steps_is_another_law():
    """The negative control: the report's (7) with one ε that is used again at every step."""
    x = walk(HO, 100, 20_000, fresh=False)
    assert float(x.std()) == pytest.approx(3.056, rel=0.03)
    assert math.sqrt(1 - HO.alpha_bar(100)) == pytest.approx(0.321, abs=5e-4)


def test_each_signal_has_its_own_time():
    x0, eps = noise(4, 2, 5), noise(4, 2, 5, seed=1)
    t = torch.tensor([0, 1, 500, 1000])
    together = q_sample(x0, t, eps, HO)
    for k in range(4):
        assert torch.equal(together[k : k + 1], q_sample(x0[k : k + 1], int(t[k]), eps[k : k + 1], HO))
    assert torch.equal(together[0], x0[0])
    assert q_sample(x0.float(), t, eps.float(), HO).dtype == torch.float32


# --- backward -----------------------------------------------------------------------------------------


def bayes_on_a_grid(x0, xt, t, s, schedule):
    """Mean and variance of x_s ∝ q(x_t|x_s)·q(x_s|x_0), by summation and without any formula for them."""
    ab_t, ab_s = (float(schedule.alpha_bar(v)) for v in (t, s))
    ratio = ab_t / ab_s

    def posterior(z):
        log = -((xt - math.sqrt(ratio) * z) ** 2) / (2 * (1 - ratio)) - (z - math.sqrt(ab_s) * x0) ** 2 / (
            2 * (1 - ab_s)
        )
        p = np.exp(log - log.max())
        return p / p.sum()

    centre, width = 0.0, 20.0
    for _ in range(12):  # zoom in until the grid is as wide as ten standard deviations
        z = np.linspace(centre - width, centre + width, 40_001)
        p = posterior(z)
        centre = p @ z
        std = math.sqrt(p @ (z - centre) ** 2)
        width = max(10 * std, width / 100)
        if width == 10 * std:
            break
    z = np.linspace(centre - width, centre + width, 4001)
    p = posterior(z)
    mean = p @ z
    return mean, p @ (z - mean) ** 2


@pytest.mark.parametrize("t", [2, 3, 10, 100, 500, 1000])
@pytest.mark.parametrize("stride", [1, 50])
def test_posterior_is_bayes(t, stride):
    s = max(1, t - stride)
    mean, var = q_posterior(numbers(0.7), numbers(-0.4), t, HO, s)
    expected = bayes_on_a_grid(0.7, -0.4, t, s, HO)
    assert (mean.item(), var.item()) == pytest.approx(expected, rel=1e-9)
    if stride == 1:
        assert torch.equal(q_posterior(numbers(0.7), numbers(-0.4), t, HO).mean, mean)


@shipped
def test_posterior_at_real_times_is_bayes(make):
    schedule = make(10)
    for t, s in [(7.5, 2.25), (3, 2.5), (10, 0.5)]:
        mean, var = q_posterior(numbers(0.7), numbers(-0.4), t, schedule, s)
        assert (mean.item(), var.item()) == pytest.approx(bayes_on_a_grid(0.7, -0.4, t, s, schedule), rel=1e-8)


@shipped
def test_posteriors_compose(make):
    """From t to s step by step, and in one jump."""
    schedule = make(60)
    x0, xt = noise(3, 1, 4), noise(3, 1, 4, seed=1)
    mean, var = xt, torch.zeros(3, 1, 1, dtype=DOUBLE)
    for t in range(45, 12, -1):
        step, slope = q_posterior(x0, mean, t, schedule), q_posterior(0 * x0, 0 * xt + 1, t, schedule).mean[:, :, :1]
        mean, var = step.mean, slope**2 * var + step.var
    jump = q_posterior(x0, xt, 45, schedule, 12)
    torch.testing.assert_close(jump.mean, mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(jump.var, var, rtol=1e-9, atol=0)


@shipped
def test_posterior_keeps_the_forward_law(make):
    """x_t ~ q(x_t|x_0) and then x_s ~ q(x_s|x_t, x_0) is x_s ~ q(x_s|x_0)."""
    schedule = make(50)
    for t, s in [(50, 49), (30, 7), (2, 1), (1, 0)]:
        ab_t, ab_s = (float(schedule.alpha_bar(v)) for v in (t, s))
        mean = q_posterior(numbers(0.7), numbers(0.7 * math.sqrt(ab_t)), t, schedule, s).mean.item()
        slope, var = (v.item() for v in q_posterior(numbers(0), numbers(1), t, schedule, s))
        assert mean == pytest.approx(0.7 * math.sqrt(ab_s), rel=1e-9)
        assert slope**2 * (1 - ab_t) + var == pytest.approx(1 - ab_s, rel=1e-9, abs=1e-15)


@shipped
def test_the_last_posterior_is_a_point(make):
    x0, xt = noise(5, 1, 3), noise(5, 1, 3, seed=1)
    schedule = make(20)
    for t in (1, 20):
        mean, var = q_posterior(x0, xt, t, schedule, 0)
        torch.testing.assert_close(mean, x0, rtol=1e-12, atol=1e-12)
        assert (var == 0).all() and var.shape == (5, 1, 1)
    point = q_posterior(x0, xt, 1, schedule)
    assert torch.equal(point.sample(torch.ones_like(x0)), point.mean)


def test_normal_samples():
    normal = q_posterior(numbers(0.7), numbers(-0.4), 100, HO)
    z = numbers(1.3)
    assert normal.sample(z).item() == pytest.approx(normal.mean.item() + 1.3 * math.sqrt(normal.var.item()))


def test_single_precision_suffices():
    x0, xt = noise(999, 1, 4), noise(999, 1, 4, seed=1)
    t = torch.arange(2, 1001)
    for schedule in (HO, cosine()):
        single, double = q_posterior(x0.float(), xt.float(), t, schedule), q_posterior(x0, xt, t, schedule)
        torch.testing.assert_close(single.mean.double(), double.mean, rtol=0, atol=2e-5)
        torch.testing.assert_close(single.var.double(), double.var, rtol=1e-4, atol=0)


# --- parametrisations ---------------------------------------------------------------------------------


@shipped
@parametrisations
def test_target_and_predict_are_inverse(make, kind):
    """Any estimate that is consistent with x_t, right or wrong, survives target → predict at every t."""
    schedule, t = make(50), torch.arange(1, 51)
    a, s = schedule(t, DOUBLE)
    x0, eps = noise(50, 2, 8), noise(50, 2, 8, seed=1)
    xt = q_sample(x0, t, eps, schedule)
    guess = Prediction(noise(50, 2, 8, seed=2), torch.empty(0))
    guess = guess._replace(eps=(xt - a * guess.x0) / s)
    for estimate in (Prediction(x0, eps), guess):
        found = kind().predict(kind().target(*estimate, a, s), xt, a, s)
        torch.testing.assert_close(found.x0, estimate.x0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.eps, estimate.eps, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-9, atol=1e-9)


def test_a_prediction_is_completed_from_either_view():
    a, s, xt = numbers(0.8), numbers(0.6), numbers(0.8 * 2 + 0.6 * 3)
    from_x0, from_eps = Prediction.from_x0(numbers(2), xt, a, s), Prediction.from_eps(numbers(3), xt, a, s)
    for found in (from_x0, from_eps):
        assert isinstance(found, Prediction)
        assert (found.x0.item(), found.eps.item()) == pytest.approx((2, 3), rel=1e-12)


@shipped
def test_any_estimate_completed_belongs_to_x_t(make):
    t, estimate, xt = torch.arange(1, 51), noise(50, 2, 8), noise(50, 2, 8, seed=1)
    _, a, s = make(50).at(t, xt)
    x0_first, eps_first = Prediction.from_x0(estimate, xt, a, s), Prediction.from_eps(estimate, xt, a, s)
    assert x0_first.x0 is estimate and eps_first.eps is estimate
    for found in (x0_first, eps_first):
        torch.testing.assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(Prediction.from_eps(x0_first.eps, xt, a, s).x0, estimate, rtol=1e-9, atol=1e-9)


def test_targets_are_what_they_are_called():
    a, s = numbers(0.8), numbers(0.6)
    x0, eps = numbers(2.0), numbers(3.0)
    found = [p().target(x0, eps, a, s).item() for p in (Eps, X0, V, U)]
    assert found == pytest.approx([3.0, 2.0, 0.8 * 3 - 0.6 * 2, 3 - 2])


class Knows(torch.nn.Module):
    """A network that says what an exact denoiser says, in some parametrisation, and notes what it was told."""

    def __init__(self, oracle, kind):
        super().__init__()
        self.oracle, self.kind, self.told = oracle, kind, None

    def forward(self, x, log_snr, cond):
        self.told = log_snr, cond
        a, s = torch.sigmoid(log_snr).sqrt().view(-1, 1, 1), torch.sigmoid(-log_snr).sqrt().view(-1, 1, 1)
        return self.kind.target(*self.oracle.wiener(x, a, s), a, s)


@shipped
@parametrisations
def test_a_denoiser_gives_one_answer_in_every_parametrisation(make, kind):
    schedule = make(40)
    oracle = toy(schedule=schedule)
    network = Knows(oracle, kind())
    denoiser = Denoiser(network, schedule, kind())
    t, xt = torch.arange(1, 41), noise(40, 1, 1)
    found, exact = denoiser(xt, t), oracle(xt, t)
    torch.testing.assert_close(found.x0, exact.x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.eps, exact.eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(network.told[0], schedule.log_snr(t), rtol=1e-12, atol=0)
    assert network.told[1] is None
    assert torch.equal(denoiser(xt, 7).x0, denoiser(xt, torch.full((40,), 7)).x0)
    denoiser(xt, t, torch.ones(40, 2))
    assert torch.equal(network.told[1], torch.ones(40, 2))


# --- the loss -----------------------------------------------------------------------------------------


@parametrisations
def test_simple_loss_is_the_mean_square_of_the_noise_that_is_left(kind):
    denoiser = Denoiser(Knows(toy(), kind()), HO, kind())
    x0, eps, t = noise(6, 1, 1), noise(6, 1, 1, seed=1), torch.tensor([1, 2, 50, 300, 700, 1000])
    found = loss(denoiser, x0, t, eps)
    xt = q_sample(x0, t, eps, HO)
    assert found.shape == (6,)
    torch.testing.assert_close(found, (eps - toy()(xt, t).eps).square().flatten(), rtol=1e-6, atol=1e-12)


def test_saying_nothing_costs_one():
    def nothing(xt, t, cond=None):
        return Prediction(xt, torch.zeros_like(xt))

    nothing.schedule = HO
    x0, eps = noise(2000, 2, 16), noise(2000, 2, 16, seed=1)
    t, _ = draw_times(2000, HO, rng())
    values = loss(nothing, x0, t, eps)
    torch.testing.assert_close(values, eps.square().mean((1, 2)))
    assert_mean(values, 1)


def test_a_weight_means_the_same_for_every_parametrisation():
    x0, eps, t = noise(5, 1, 1), noise(5, 1, 1, seed=1), torch.tensor([1, 10, 100, 500, 1000])
    xt = q_sample(x0, t, eps, HO)
    oracle = toy()
    plain = loss(oracle, x0, t, eps)
    of_signal = (x0 - oracle(xt, t).x0).square().flatten()
    torch.testing.assert_close(loss(oracle, x0, t, eps, lambda schedule, t: schedule.snr(t)), plain)
    torch.testing.assert_close(simple(HO, t), HO.snr(t))
    torch.testing.assert_close(loss(oracle, x0, t, eps, lambda schedule, t: torch.ones(len(t))), of_signal)
    torch.testing.assert_close(loss(oracle, x0, t, eps, lambda schedule, t: 1.0 * t), t * of_signal)
    found = oracle(xt, t)
    of_velocity = ((eps - x0) - (found.eps - found.x0)).square().flatten()
    torch.testing.assert_close(loss(oracle, x0, t, eps, flow_matching), of_velocity, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["covariance", "derivative"])
def test_the_loss_of_a_guided_denoiser_is_that_of_the_data_given_the_measurement(kind):
    """N(m, v) given y = x_0 + σ·n is a normal law again, and its exact denoiser has the same loss."""
    prior, sigma, y = toy(), 0.2, 0.9
    measurement = Measurement(torch.eye(1), sigma)
    var = 1 / (1 / 0.25**2 + 1 / sigma**2)
    posterior = toy(mean=var * (0.5 / 0.25**2 + y / sigma**2), std=math.sqrt(var))
    t, x0, eps = torch.tensor([1, 50, 300, 700, 1000]), noise(5, 1, 1), noise(5, 1, 1, seed=1)
    rows = torch.full((5, 1), y, dtype=DOUBLE)
    if kind == "covariance":
        guided = PseudoinverseGuidance(prior, measurement, rows)
    else:  # a network; in one dimension its A·C·Aᵀ is exact, if it is told the variance
        network = Knows(prior, Eps())

        def variance(schedule, t):
            noise = schedule.noise(t)
            return 0.25**2 * noise / (schedule.alpha_bar(t) * 0.25**2 + noise)

        guided = PseudoinverseGuidance(Denoiser(network, HO, Eps()), measurement, rows, variance)
    cond = noise(5, 2)
    found = loss(guided, x0, t, eps, cond=cond)
    torch.testing.assert_close(found, loss(posterior, x0, t, eps), rtol=1e-6, atol=1e-9)
    assert kind == "covariance" or network.told[1] is cond
    weighted = loss(guided, x0, t, eps, flow_matching)
    torch.testing.assert_close(weighted, loss(posterior, x0, t, eps, flow_matching), rtol=1e-6, atol=1e-9)


# --- times --------------------------------------------------------------------------------------------


def test_times_are_uniform_from_1_to_T():
    t, weight = draw_times(20_000, linear(20), rng())
    assert (weight == 1).all() and t.min() == 1 and t.max() == 20
    assert stats.chisquare(torch.bincount(t, minlength=21)[1:].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("power", [-1.0, 0.0, 2.0])
def test_weights_keep_a_mean_over_times_unbiased(power):
    schedule = linear(20)
    density = torch.arange(1.0, 21) ** power
    t, weight = draw_times(40_000, schedule, rng(), density)
    expected = (density / density.sum() * len(t)).numpy().astype(float)
    assert (
        stats.chisquare(torch.bincount(t, minlength=21)[1:].numpy(), expected * len(t) / expected.sum()).pvalue > 1e-3
    )
    every = torch.arange(1, 21)
    for f in (torch.ones_like, lambda t: t**2, lambda t: t == 3):
        weighted = weight * f(t).float()
        assert_mean(weighted, f(every).double().mean().item())
    assert power == 0 or abs(mean_and_error(t)[0] - 10.5) > 1  # unweighted, it would be another mean


# --- refusals -----------------------------------------------------------------------------------------

X = torch.zeros(2, 1, 4)
REFUSED = {
    "t below 0": (lambda: q_sample(X, -1, X, HO), r"t must lie in 0…1000, got values from -1 to -1"),
    "t above T": (lambda: q_sample(X, torch.tensor([5, 1001]), X, HO), "from 5 to 1001"),
    "t not a number": (lambda: q_sample(X, math.nan, X, HO), "t must lie in"),
    "step to 0": (lambda: q_step(X, 0, X, HO), "t must lie in"),
    "posterior at 0": (lambda: q_posterior(X, X, 0, HO), "t must lie in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("t", "message"), [(0, "times in 0 < t <= 1000, got 0: there is no noise at 0"), (-1, "t must lie in 0…1000")]
)
def test_the_loss_refuses_times_without_noise(t, message):
    with pytest.raises(ValueError, match=message):
        loss(toy(), torch.zeros(2, 1, 1, dtype=torch.float64), torch.tensor([5, t]), torch.zeros(2, 1, 1).double())


def test_a_step_adds_the_noise_that_it_is_given():
    x, eps = torch.ones(2, 1, 3), torch.full((2, 1, 3), 2.0)
    beta = linear(1000).beta(500).item()
    want = torch.full((2, 1, 3), math.sqrt(1 - beta) + 2 * math.sqrt(beta))
    torch.testing.assert_close(q_step(x, 500, eps, linear(1000)), want)


@pytest.mark.parametrize("density", [None, torch.arange(1.0, 1001.0)])
def test_times_come_from_the_generator(density):
    first, second = (draw_times(64, linear(1000), rng(5), density)[0] for _ in range(2))
    assert first.equal(second) and not first.equal(draw_times(64, linear(1000), rng(6), density)[0])


def test_the_loss_tells_the_denoiser_what_it_was_told():
    class Hears:
        schedule = linear(1000)

        def __call__(self, xt, t, cond=None):
            return Prediction(xt, torch.zeros_like(xt) + cond[:, :, None])

    eps = torch.ones(3, 1, 4)
    found = loss(Hears(), torch.zeros(3, 1, 4), torch.full((3,), 7), eps, cond=torch.tensor([[0.0], [1.0], [3.0]]))
    assert found.tolist() == [1.0, 0.0, 4.0]


def test_a_weighted_loss_has_the_type_of_the_signals():
    denoiser = Denoiser(lambda xt, level, cond: 0 * xt, linear(1000), Eps())
    x0 = torch.zeros(2, 1, 4)
    assert loss(denoiser, x0, torch.tensor([3, 900]), torch.ones_like(x0), flow_matching).dtype == torch.float32
