"""The bound: against likelihoods that are known, in every parametrisation, with every variance."""

import math

import pytest
import torch

from ddpm_lib import (
    L_T,
    X0,
    Denoiser,
    Eps,
    Gaussian,
    L_t,
    V,
    best_variance,
    beta,
    beta_tilde,
    elbo,
    gaussian_kl,
    linear,
    loss,
    min_snr,
    report_grid,
    simple,
    vlb,
)
from ddpm_lib.diffusion import TableVariance
from ddpm_lib.diffusion.losses import ALL
from ddpm_lib.equations.eight_steps import Chain
from ddpm_lib.equations.toys import HO, Mixture, from_betas, gauss_bound, gauss_entropy, two_humps

ONE = torch.ones(1, 1, 1, dtype=torch.float64)


def gaussian(power, schedule=HO):
    return Gaussian(torch.zeros(1, 1).double(), power * torch.eye(1).double(), schedule)


def expected(power, schedule=HO, variance=beta, **kwargs):
    """E over x_0 ~ N(0, power) and over the noise, exactly: all errors are linear, so ±1 will do for both."""
    x0 = math.sqrt(power) * torch.cat([ONE, -ONE])
    noises = torch.stack([torch.ones_like(x0), -torch.ones_like(x0)])
    return elbo(gaussian(power, schedule), x0, variance, eps=noises, **kwargs).total.mean().item()


@pytest.mark.parametrize("power, pinned", [(1.0, 1.418939), (0.0769363232, 0.140880), (0.0025, -1.531759)])
def test_gaussian_data_give_the_pinned_bounds(power, pinned):
    bound = expected(power)
    assert bound == pytest.approx(pinned, abs=1e-6)
    assert bound == pytest.approx(gauss_bound(power), abs=1e-10)
    assert bound >= gauss_entropy(power) - 1e-10


@pytest.mark.parametrize("power", [1.0, 0.0769363232, 0.0025])
def test_other_variances_against_the_closed_form(power):
    short = linear(50)
    for name, function in (("beta", beta), ("beta_tilde", beta_tilde)):
        assert expected(power, short, function) == pytest.approx(gauss_bound(power, short, name), abs=1e-10)
    table = TableVariance(torch.cat([torch.zeros(1).double(), 0.7 * short.beta(torch.arange(1, 51))]))
    assert expected(power, short, table) == pytest.approx(
        expected(power, short, lambda s, t, r, xt=None: 0.7 * s.beta(t, r)), abs=1e-12
    )
    assert expected(power, short, table) >= gauss_entropy(power)


def test_best_variance_leaves_almost_no_gap_and_lies_between_the_two():
    power, short = 0.0769363232, linear(50)
    x0 = math.sqrt(power) * torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = best_variance(gaussian(power, short), x0, torch.Generator().manual_seed(1))
    t = torch.arange(2, 51)
    low, high = beta_tilde(short, t, t - 1), beta(short, t, t - 1)
    assert ((best[2:] > low) & (best[2:] < high)).all()
    gap = expected(power, short, TableVariance(best), sigma_1=best[1].sqrt().item()) - gauss_entropy(power)
    assert 0 <= gap < 1e-3
    assert gauss_bound(power, short, "best") - gauss_entropy(power) < 1e-5


def test_at_unit_power_the_gap_with_beta_is_zero_and_otherwise_one_over_T():
    """At power 1 the true reverse variance is β itself; elsewhere gap·T is constant. With β̃ a gap of γ/2 stays."""
    for T in (50, 200, 1000):
        assert gauss_bound(1.0, linear(T)) == pytest.approx(gauss_entropy(1.0), abs=1e-10)
    ranges = [from_betas(0.1 / T, 20 / T, T) for T in (1000, 4000, 16000)]
    for powers in ((0.5,), (0.1, 1.9)):  # the second: unit power on average over two directions
        gaps = [sum(gauss_bound(p, s) - gauss_entropy(p) for p in powers) * s.T for s in ranges]
        assert gaps == pytest.approx([gaps[-1]] * 3, rel=0.01) and gaps[0] > 0.1
    stays = [gauss_bound(1.0, s, "beta_tilde") - gauss_entropy(1.0) for s in ranges]
    assert stays[-1] > 0.5772156649 / 2 and stays[-1] == pytest.approx(0.5772156649 / 2, rel=0.1)
    assert stays[0] * ranges[0].T < 0.2 * stays[-1] * ranges[-1].T  # not 1/T


def test_at_small_power_and_few_steps_the_order_turns():
    schedule, H = from_betas(1e-3, 0.2, 100), gauss_entropy(0.0025)
    bits = [(expected(0.0025, schedule, v) - H) / math.log(2) for v in (beta_tilde, beta)]
    assert bits == pytest.approx([0.3443, 0.5501], abs=1e-4)


@pytest.mark.parametrize("x0", [-0.5, 0.3, 1.0])
def test_bound_minus_likelihood_is_the_kl_of_the_whole_chain(x0):
    """The eight-step model, whose exact denoiser and variances, but it starts from N(0, I)."""
    chain = Chain(mean=0.0)
    schedule = from_betas(0.05, 0.45, 8)
    table = TableVariance(torch.tensor([0.0, *chain.s[1:]], dtype=torch.float64))
    terms = elbo(gaussian(0.3, schedule), x0 * ONE, table, sigma_1=math.sqrt(chain.s[1]), eps=torch.stack([ONE, -ONE]))
    assert terms.total.item() == pytest.approx(chain.bound(x0), abs=1e-12)
    assert terms.L_T.item() == pytest.approx(chain.kl_prior(x0), abs=1e-12)
    assert terms.total.item() - chain.nll(x0) == pytest.approx(chain.gap(x0), abs=1e-12)
    assert chain.gap(x0) > 1e-4


def test_every_parametrisation_gives_the_same_bound():
    schedule = linear(20)
    x0 = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = Gaussian(torch.zeros(1, 8).double(), torch.eye(8).double() * 0.3, schedule)

    class Network:
        def __init__(self, parametrisation):
            self.p = parametrisation

        def __call__(self, x, log_snr, cond):
            t = schedule.at_log_snr(log_snr).round().long()
            a, s = schedule(t, x.dtype)
            return self.p.target(*exact(x, t), a, s)

    totals = [elbo(Denoiser(Network(p), schedule, p), x0, generator=torch.Generator().manual_seed(1)).total
              for p in (Eps(), X0(), V())]  # fmt: skip
    straight = elbo(exact, x0, generator=torch.Generator().manual_seed(1)).total
    for total in totals:
        assert torch.allclose(total, straight, atol=1e-9)


def wavelets(noise, schedule, length=128):
    atoms = report_grid(length).signals.double()
    return Mixture(atoms, noise, schedule)


def test_the_reports_sixty_wavelets_with_measurement_noise():
    """log p(x_0) is a mixture that can be summed; the bound stays above it, whatever the variance."""
    data = wavelets(0.05, linear(100))
    x0 = data.sample(64, torch.Generator().manual_seed(0))
    truth = -data.log_prob(x0)
    best = best_variance(data, data.sample(256, torch.Generator().manual_seed(3)), torch.Generator().manual_seed(4))
    gaps = {}
    variances = {"β": (beta, None), "β̃": (beta_tilde, None), "best": (TableVariance(best), best[1].sqrt().item())}
    for name, (variance, sigma_1) in variances.items():
        terms = elbo(data, x0, variance, sigma_1, draws=2, generator=torch.Generator().manual_seed(1))
        gap = terms.total - truth
        error = (gap.std() / math.sqrt(len(gap))).item()
        assert gap.mean().item() > (4 if name != "best" else -4) * error, name  # the best leaves next to nothing
        gaps[name] = gap.mean().item()
    assert gaps["best"] < min(gaps["β"], gaps["β̃"]) - 5


def test_a_worse_denoiser_has_a_larger_bound():
    data = wavelets(0.05, linear(50))
    x0 = data.sample(16, torch.Generator().manual_seed(0))
    mean = Denoiser(lambda x, log_snr, cond: data.atoms.mean(0).expand_as(x), data.schedule, X0())
    a, b = (elbo(d, x0, generator=torch.Generator().manual_seed(1)).total.mean() for d in (data, mean))
    assert b > a + 10


@pytest.mark.slow
def test_the_estimate_over_t_is_unbiased_with_an_honest_error():
    data = two_humps(linear(50))
    x0 = data.sample(200, torch.Generator().manual_seed(0))
    full = elbo(data, x0, draws=40, generator=torch.Generator().manual_seed(1))
    quick = elbo(data, x0, draws=400, every_t=False, generator=torch.Generator().manual_seed(2))
    z = (quick.total - full.total) / (quick.error**2 + full.error**2).sqrt()
    assert z.mean().abs() < 4 / math.sqrt(200) * 1.2
    assert 0.8 < z.std() < 1.25
    assert full.error.mean() < quick.error.mean()
    assert elbo(data, x0[:2]).error.isnan().all()


@pytest.mark.slow
def test_the_estimate_over_few_t_counts_each_of_them_once():
    """With three terms a forgotten one, or a factor T for T - 1, is no small matter."""
    data = two_humps(from_betas(0.2, 0.8, 4))
    x0 = data.sample(50, torch.Generator().manual_seed(0))
    full = elbo(data, x0, draws=300, generator=torch.Generator().manual_seed(1))
    quick = elbo(data, x0, draws=3000, every_t=False, generator=torch.Generator().manual_seed(2))
    error = ((quick.error**2 + full.error**2).sum().sqrt() / 50).item()
    assert (quick.total - full.total).mean().abs().item() < 4 * error < 0.1


def test_terms_add_up_and_convert():
    data = wavelets(0.1, linear(10))
    x0 = data.sample(3, torch.Generator().manual_seed(0))
    terms = elbo(data, x0, generator=torch.Generator().manual_seed(1))
    assert terms.dim == 128 and terms.total.dtype == torch.float64 and terms.total.shape == (3,)
    assert torch.equal(terms.total, terms.L_T + terms.L_t + terms.L_0)
    assert torch.allclose(terms.bits_per_dim() * 128 * math.log(2), terms.total)


def test_a_schedule_of_one_step_has_no_middle_terms():
    schedule = from_betas(0.5, 0.5, 1)
    terms = elbo(gaussian(1.0, schedule), ONE, eps=torch.stack([ONE, -ONE]))
    assert terms.L_t.item() == 0
    assert elbo(gaussian(1.0, schedule), ONE, every_t=False).L_t.item() == 0


def test_L_T_closed_form_quadrature_and_pinned_values():
    assert L_T(0.7 * ONE, HO).item() == pytest.approx(9.88819013e-6, rel=1e-8)
    unit = torch.ones(1, 1, 128, dtype=torch.float64)
    bits = {T: L_T(unit, from_betas(1e-4, 0.02, T)).item() / (128 * math.log(2)) for T in (50, 100, 300, 1000)}
    assert bits == pytest.approx({50: 0.66631, 100: 0.32596, 300: 0.035528, 1000: 2.9112945e-5}, rel=1e-4)
    assert L_T(torch.zeros(1, 1, 128), HO).item() / (128 * math.log(2)) == pytest.approx(5.8748e-10, rel=1e-3)


def test_gaussian_kl_against_torch():
    m = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = (
        torch.distributions.MultivariateNormal(v, c * torch.eye(5).double()) for v, c in zip(m, (0.3, 0.8), strict=True)
    )
    ours = gaussian_kl((m[0] - m[1]).square().sum(), torch.tensor(0.3).double(), torch.tensor(0.8).double(), 5)
    assert ours.item() == pytest.approx(torch.distributions.kl_divergence(p, q).item(), abs=1e-6)


def test_weights_in_front_of_the_noise_and_as_differences_of_the_snr():
    t = torch.arange(1, 1001)
    w = vlb(HO, t) / HO.snr(t)
    pinned = {1: 0.500050, 2: 0.272692, 10: 0.073717, 100: 0.0100813, 500: 0.0055034, 1000: 0.0102045}
    assert {k: w[k - 1].item() for k in pinned} == pytest.approx(pinned, rel=1e-4)
    tilde = vlb(HO, t[1:], beta_tilde)
    assert torch.allclose(tilde, 0.5 * (HO.snr(t[:-1]) - HO.snr(t[1:])), rtol=1e-9)


def test_weights_serve_the_loss():
    """loss(weight=vlb), summed over t, is the bound without its constants, per sample."""
    data = wavelets(0.1, linear(20))
    x0 = data.sample(2, torch.Generator().manual_seed(0))
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([7, 12])
    s2 = data.schedule.beta(t)
    tilde = beta_tilde(data.schedule, t, t - 1)
    constant = 64 * (tilde / s2 - 1 + (s2 / tilde).log())
    assert torch.allclose(128 * loss(data, x0, t, eps, weight=vlb) + constant, L_t(data, x0, t, eps))
    assert torch.equal(min_snr(HO, torch.tensor([1, 100]), 5.0), torch.tensor([5.0, 5.0]).double())
    assert torch.equal(min_snr(HO, t, math.inf), simple(HO, t))


@pytest.mark.parametrize("weight", ALL)
@pytest.mark.parametrize("schedule", [HO, linear(1), linear(50)], ids=lambda schedule: f"T={schedule.T}")
def test_every_weight_is_positive_and_finite(weight, schedule):
    w = weight(schedule, torch.arange(1, schedule.T + 1))
    assert w.shape == (schedule.T,) and (w > 0).all() and torch.isfinite(w).all()
    assert len(ALL) == 5 and len(set(ALL)) == 5


def test_gradients_reach_the_denoiser_and_do_not_see_L_T():
    c = torch.tensor(0.5, requires_grad=True, dtype=torch.float64)
    d = Denoiser(lambda x, log_snr, cond: c * x, linear(20), Eps())
    x0 = torch.ones(2, 1, 4, dtype=torch.float64)
    L_t(d, x0, 5, torch.ones_like(x0)).sum().backward()
    assert c.grad is not None and c.grad != 0
    assert not L_T(x0, d.schedule).requires_grad


BAD = {
    "zero variance": (lambda d, x: elbo(d, x, lambda s, t, r, xt=None: 0 * s.beta(t, r)), "The bound is not finite"),
    "sigma_1 = 0": (lambda d, x: elbo(d, x, sigma_1=0.0), "The bound is not finite"),
    "no draws": (lambda d, x: elbo(d, x, draws=0), "The number of draws must be an integer from 1 to 1000000"),
    "noises of another shape": (
        lambda d, x: elbo(d, x, eps=torch.zeros(1, 5, 1, 4)),
        r"The table of noises must have shape \(draws, 2, 1, 4\)",
    ),
    "integers": (lambda d, x: elbo(d, x.long()), "x0 must be floating point"),
    "NaN": (lambda d, x: elbo(d, x * math.nan), "x0 must be finite"),
}


def test_a_divergence_of_large_numbers():
    assert gaussian_kl(torch.tensor(1e23), torch.tensor(2.0), torch.tensor(2.0), 1).item() == pytest.approx(1e23 / 4)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    call, words = BAD[case]
    d = Denoiser(lambda x, log_snr, cond: x, linear(10), Eps())
    with pytest.raises((ValueError, TypeError), match=f"^{words}") as info:
        call(d, torch.ones(2, 1, 4))
    assert str(info.value).count(". ") == 0
