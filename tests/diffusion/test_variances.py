"""Variances that depend on x_t: against the exact reverse step, the hybrid loss against the full sum."""

import math

import pytest
import torch
from helpers import HO, rng, toy
from torch import nn

from ddpm_lib import (
    L_0,
    Denoiser,
    Eps,
    FiniteOracle,
    Gaussian,
    L_t,
    UNet1D,
    ancestral,
    best_variance,
    beta,
    beta_tilde,
    elbo,
    linear,
    loss,
)
from ddpm_lib.diffusion import (
    AnalyticVariance,
    LearnedVariance,
    LossHistory,
    TableVariance,
    bound_at,
    draw_times,
    hybrid,
    interpolated,
)

DOUBLE = torch.float64
FEW = linear(20)


class Constant(nn.Module):
    """v is one number, which can be learned."""

    def __init__(self, v=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(v, dtype=DOUBLE))

    def forward(self, x, log_snr, cond):
        return self.value.expand(len(x), x.shape[1] // 2, x.shape[2])


def diagonal(powers, schedule):
    """Gaussian data that are independent along the samples, and their exact denoiser."""
    powers = torch.tensor(powers, dtype=DOUBLE)
    return Gaussian(torch.zeros(1, len(powers), dtype=DOUBLE), torch.diag(powers), schedule)


def reverse_variance(power, schedule, t, s):
    """Var[x_s | x_t] of data N(0, power), from the joint law of the two: another way to the same number."""
    ab_t, ab_s = (float(schedule.alpha_bar(v)) for v in (t, s))
    var_t, var_s = (ab * power + 1 - ab for ab in (ab_t, ab_s))
    return var_s - (math.sqrt(ab_t / ab_s) * var_s) ** 2 / var_t


# --- the interpolation --------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "s"), [(2, 1), (20, 19), (17, 4), (9.5, 3.25)])
def test_it_goes_from_beta_tilde_to_beta_and_is_straight_in_the_logarithm(t, s):
    low, high = float(beta_tilde(FEW, t, s)), float(beta(FEW, t, s))
    v = torch.tensor([0.0, 1.0, 0.25, -0.5])[None, None]
    found = interpolated(FEW, t, s, v).flatten()
    expected = torch.tensor([low, high, low**0.75 * high**0.25, low**1.5 * high**-0.5], dtype=DOUBLE)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("t", "s"), [(2, 1), (20, 19), (17, 4)])
def test_the_analytic_variance_is_that_of_the_exact_reverse_step(t, s):
    powers = (0.01, 0.3, 1.0, 2.5)
    found = AnalyticVariance(diagonal(powers, FEW))(FEW, t, s, torch.ones(2, 1, 4, dtype=DOUBLE))
    expected = torch.tensor([reverse_variance(p, FEW, t, s) for p in powers], dtype=DOUBLE)
    torch.testing.assert_close(found, expected.expand(2, 1, 4), rtol=1e-6, atol=0)


def test_its_mean_is_the_best_variance_of_one_number():
    exact = diagonal((0.01, 0.3, 1.0), FEW)
    x0 = torch.randn(20_000, 1, 3, generator=rng(), dtype=DOUBLE) * torch.tensor([0.01, 0.3, 1.0], dtype=DOUBLE).sqrt()
    table = best_variance(exact, x0, rng(1))
    for t in (2, 8, 20):
        mean = AnalyticVariance(exact)(FEW, t, t - 1, x0[:1]).mean()
        assert float(table[t]) == pytest.approx(float(mean), rel=0.02)


def test_with_it_each_term_is_the_entropy_that_cannot_be_avoided():
    """The exact mean and variance of an independent Gaussian: E[L_t] = ½Σ log(σ²/β̃), sample by sample."""
    powers = (0.01, 0.3, 1.0)
    exact, root = diagonal(powers, FEW), torch.tensor(powers, dtype=DOUBLE).sqrt()
    x0 = torch.stack([root, -root])[:, None]
    for t in (2, 7, 20):
        eps = torch.ones_like(x0)
        draws = [L_t(exact, x0, t, z, AnalyticVariance(exact)).mean().item() for z in (eps, -eps)]
        least = sum(
            0.5 * math.log(reverse_variance(p, FEW, t, t - 1) / float(beta_tilde(FEW, t, t - 1))) for p in powers
        )
        assert sum(draws) / 2 == pytest.approx(least, rel=1e-6)
        other = [L_t(exact, x0, t, z, beta).mean().item() for z in (eps, -eps)]
        assert sum(other) / 2 > least * (1 + 1e-7)


def test_the_bound_of_a_finite_set_falls_from_one_number_to_one_for_every_sample():
    """Where it is unknown which of the signals it is, only the samples in which they differ are uncertain."""
    atoms = torch.zeros(2, 1, 6, dtype=DOUBLE)
    atoms[0, 0, :2], atoms[1, 0, :2] = 0.4, -0.4
    exact, x0 = FiniteOracle(atoms, FEW), atoms[torch.arange(64) % 2]
    table = best_variance(exact, x0, rng(2))
    kinds = {"number": TableVariance(table), "samples": AnalyticVariance(exact), "β": beta}
    bounds = {k: elbo(exact, x0, v, draws=2, generator=rng(3)).L_t.mean().item() for k, v in kinds.items()}
    assert bounds["samples"] < bounds["number"] - 0.05 < bounds["β"]


# --- a table ------------------------------------------------------------------------------------------


def test_a_table_is_read_at_t():
    table = TableVariance(torch.linspace(0, 0.5, 21))
    assert float(table(FEW, 20, 19)) == pytest.approx(0.5)
    found = table(FEW, torch.tensor([1, 4, 20]), torch.tensor([0, 3, 19]), torch.ones(3, 1, 2))
    torch.testing.assert_close(found, torch.tensor([0.025, 0.1, 0.5], dtype=DOUBLE), rtol=1e-6, atol=0)
    assert found.dtype == DOUBLE and list(table.state_dict()) == ["table"] and not list(table.parameters())


def test_a_table_of_beta_gives_the_bound_of_beta():
    exact, x0 = diagonal((0.3, 0.3), FEW), torch.randn(3, 1, 2, generator=rng(), dtype=DOUBLE)
    table = TableVariance(torch.cat([torch.zeros(1, dtype=DOUBLE), FEW.beta(torch.arange(1, 21))]))
    found, expected = (elbo(exact, x0, v, draws=2, generator=rng(1)) for v in (table, beta))
    for mine, other in zip(found[:4], expected[:4], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=0)


# --- a learned variance -------------------------------------------------------------------------------


def test_a_constant_v_is_a_function_of_the_schedule():
    exact = diagonal((0.3, 0.3), FEW)
    x0 = torch.randn(3, 1, 2, generator=rng(), dtype=DOUBLE)
    learned = LearnedVariance(Constant(0.3), exact)
    for t in (2, 11, 20):
        eps = torch.randn(x0.shape, generator=rng(t), dtype=DOUBLE)
        other = L_t(exact, x0, t, eps, lambda sch, t, s, xt=None: sch.beta(t, s) ** 0.3 * sch.beta_tilde(t, s) ** 0.7)
        torch.testing.assert_close(L_t(exact, x0, t, eps, learned), other)
    assert elbo(exact, x0, learned, draws=2, generator=rng(1)).total.shape == (3,)
    assert not any("denoiser" in name or "mean" in name for name, _ in learned.named_parameters())


@pytest.mark.parametrize(("power", "t"), [(0.05, 3), (0.3, 10), (1.0, 10)])
def test_the_bound_teaches_it_the_exact_variance(power, t):
    """Errors of Gaussian data are linear, so signals and noises ±1 give the expectation, and the minimum is exact."""
    exact = toy(0.0, math.sqrt(power), FEW)
    learned = LearnedVariance(Constant(), exact)
    x0, eps = (
        torch.tensor([1.0, 1, -1, -1]).double().view(4, 1, 1),
        torch.tensor([1.0, -1, 1, -1]).double().view(4, 1, 1),
    )
    x0 = x0 * math.sqrt(power)
    optimiser = torch.optim.LBFGS(learned.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = bound_at(exact, x0, t, eps, learned).mean()
        value.backward()
        return value

    for _ in range(3):
        optimiser.step(closure)
    sigma2 = float(learned(FEW, t, t - 1, x0[:1]).detach())
    assert sigma2 == pytest.approx(reverse_variance(power, FEW, t, t - 1), rel=1e-4)


def test_the_hybrid_loss_has_the_scale_of_the_full_sum():
    """Its mean over t is L_simple + λ·(L_vlb - L_T), in bits per dimension. Without the T it would be off by 20."""
    exact = FiniteOracle(torch.randn(3, 1, 8, generator=rng(1), dtype=DOUBLE), FEW)
    x0 = torch.randn(2, 1, 8, generator=rng(2), dtype=DOUBLE)
    eps = torch.randn(x0.shape, generator=rng(3), dtype=DOUBLE)
    learned = LearnedVariance(Constant(0.4), exact)
    every = torch.arange(1, 21)
    rows = (x0.repeat_interleave(20, 0), every.repeat(2), eps.repeat_interleave(20, 0))
    mean = hybrid(exact, *rows, learned, scale=0.01, sigma_1=0.07).view(2, 20).mean(1)
    simple = loss(exact, *rows).view(2, 20).mean(1)
    terms = elbo(exact, x0, learned, sigma_1=0.07, eps=eps[None])
    whole = (terms.L_t + terms.L_0) / (8 * math.log(2))
    torch.testing.assert_close(mean, simple + 0.01 * whole)
    torch.testing.assert_close(hybrid(exact, *rows, learned, scale=0.0), loss(exact, *rows))


def test_the_gradient_of_the_bound_stops_at_the_mean():
    c = torch.tensor(0.5, requires_grad=True, dtype=DOUBLE)
    mean = Denoiser(lambda x, log_snr, cond: c * x, FEW, Eps())
    learned = LearnedVariance(Constant(0.2), mean)
    x0 = torch.randn(6, 1, 4, generator=rng(1), dtype=DOUBLE)
    t, eps = torch.tensor([1, 2, 5, 9, 14, 20]), torch.randn(x0.shape, generator=rng(2), dtype=DOUBLE)
    (simple,) = torch.autograd.grad(loss(mean, x0, t, eps).sum(), c)
    of_mean, of_v = torch.autograd.grad(hybrid(mean, x0, t, eps, learned).sum(), [c, learned.network.value])
    torch.testing.assert_close(of_mean, simple)
    (ten_times,) = torch.autograd.grad(hybrid(mean, x0, t, eps, learned, scale=0.01).sum(), learned.network.value)
    assert of_v != 0
    torch.testing.assert_close(ten_times, 10 * of_v)


@pytest.mark.parametrize("t", [[2, 9, 20], [1, 9, 20], [1, 1, 1]])
def test_a_batch_may_hold_the_decoder_or_not(t):
    """One t gives the same alone and beside others, whether the first step is among them or not."""
    exact = diagonal((0.3, 0.3), FEW)
    x0, eps = (torch.randn(3, 1, 2, generator=rng(k), dtype=DOUBLE) for k in (1, 2))
    learned, t = LearnedVariance(Constant(0.4), exact), torch.tensor(t)
    for function in (bound_at, hybrid):
        found = function(exact, x0, t, eps, learned)
        alone = [function(exact, x0[k : k + 1], t[k : k + 1], eps[k : k + 1], learned) for k in range(3)]
        torch.testing.assert_close(found, torch.cat(alone))
    first = L_0(exact, x0, eps) if t[0] == 1 else L_t(exact, x0, t, eps, learned)
    torch.testing.assert_close(bound_at(exact, x0, t, eps, learned)[0], first[0] * 20 / (2 * math.log(2)))


def test_an_untrained_network_samples_with_beta_tilde():
    mean = Gaussian(torch.zeros(1, 16), torch.eye(16), FEW)
    learned = LearnedVariance(UNet1D(2, 1, width=8, levels=1, blocks=1, dim=8), mean)
    x, z = torch.randn(2, 1, 16, generator=rng()), torch.randn(2, 1, 16, generator=rng(1))
    for t, s in ((20, 13), (2, 1), (1, 0)):
        torch.testing.assert_close(ancestral(mean, x, t, s, z, variance=learned), ancestral(mean, x, t, s, z))
    nn.init.ones_(learned.network.samples.bias)  # now v = 1
    torch.testing.assert_close(
        ancestral(mean, x, 20, 13, z, variance=learned), ancestral(mean, x, 20, 13, z, variance=beta)
    )


class ToldNoise(nn.Module):
    """v is a function of the noise level alone."""

    def forward(self, x, log_snr, cond):
        return torch.sigmoid(log_snr)[:, None, None].expand(len(x), 1, x.shape[-1])


@pytest.mark.parametrize(("t", "s"), [(1000, 700), (350, 340), (55.5, 3)])
def test_on_another_grid_it_is_asked_at_the_same_noise(t, s):
    xt = torch.randn(2, 1, 3, generator=rng(), dtype=DOUBLE)
    learned = LearnedVariance(ToldNoise(), diagonal((0.1, 0.2, 0.3), FEW))
    expected = interpolated(HO, t, s, torch.sigmoid(HO.log_snr(t)).expand(2, 1, 3))
    torch.testing.assert_close(learned(HO, t, s, xt), expected, rtol=1e-6, atol=0)
    analytic = AnalyticVariance(diagonal((0.1, 0.2, 0.3), FEW))(HO, t, s, xt)[0, 0]
    exact = torch.tensor([reverse_variance(p, HO, t, s) for p in (0.1, 0.2, 0.3)], dtype=DOUBLE)
    torch.testing.assert_close(analytic, exact, rtol=1e-5, atol=0)


# --- which t ------------------------------------------------------------------------------------------


def test_the_history_keeps_the_last_values_of_each_t():
    history = LossHistory(T=2, keep=3)
    history.add(torch.tensor([1, 1, 1, 1, 2, 2]), torch.tensor([100.0, 3, 4, 5, 1, 1]))
    assert history.density() is None  # t = 2 has been seen twice
    history.add(torch.tensor([2]), torch.tensor([1.0]))
    torch.testing.assert_close(history.density(), torch.tensor([math.sqrt(50 / 3), 1.0]).double())
    history.add(torch.tensor([1, 1, 1]), torch.zeros(3))
    assert 0 < history.density()[0] < 0.01  # not given up


def test_drawn_so_an_estimate_of_the_bound_scatters_less_and_has_the_same_mean():
    exact = diagonal((0.05, 0.3), HO)
    generator, history = rng(4), LossHistory(1000)
    x0 = torch.randn(20_000, 1, 2, generator=generator, dtype=DOUBLE) * torch.tensor([0.05, 0.3]).double().sqrt()
    eps = torch.randn(x0.shape, generator=generator, dtype=DOUBLE)
    history.add(torch.arange(20_000) % 1000 + 1, bound_at(exact, x0, torch.arange(20_000) % 1000 + 1, eps))
    estimates = {}
    for name, density in (("uniform", None), ("by loss", history.density())):
        t, weight = draw_times(20_000, HO, generator, density)
        estimates[name] = weight * bound_at(exact, x0, t, eps)
    (m, s), (m_, s_) = ((v.mean(), v.std()) for v in estimates.values())
    assert s_ < 0.5 * s
    assert abs(m - m_) < 4.5 * (s**2 + s_**2).sqrt() / math.sqrt(20_000)


# --- refusals -----------------------------------------------------------------------------------------

BAD = {
    "a variance at time 0": (lambda d, x: LearnedVariance(Constant(), d).v(x, 0), "no noise at 0"),
    "t = 0": (lambda d, x: hybrid(d, x, 0, x, beta), "no noise at 0"),
    "a table of the wrong shape": (lambda d, x: TableVariance(x), r"A table of variances must have shape \(T \+ 1,\)"),
    "a table of NaN": (lambda d, x: TableVariance(math.nan * torch.ones(21)), "A table of variances must be finite"),
    "a table of integers": (
        lambda d, x: TableVariance(torch.arange(21)),
        "A table of variances must be floating point",
    ),
    "a list": (lambda d, x: TableVariance([0.0, 0.1]), "A table of variances must be a tensor"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    call, words = BAD[case]
    d = Denoiser(lambda x, log_snr, cond: x, FEW, Eps())
    with pytest.raises((ValueError, TypeError), match=words):
        call(d, torch.ones(2, 1, 4))
