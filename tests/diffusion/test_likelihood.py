"""The flow's likelihood against densities that are known, and the posterior variance that it is made of."""

import math

import pytest
import torch
from helpers import HO, SHORT, rng

from ddpm_lib import X0, BenchmarkMorlet, Denoiser, Eps, Family, FamilyOracle, FiniteOracle, Gaussian, linear
from ddpm_lib.diffusion import WithCovariance, log_likelihood, posterior_covariance, posterior_variance
from ddpm_lib.exact import NoisyOracle
from ddpm_lib.signals import Noisy

DOUBLE = torch.float64
N = 5


class Bare:
    """A denoiser without a covariance: it has to be differentiated."""

    def __init__(self, denoiser):
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def __call__(self, xt, t, cond=None):
        return self.denoiser(xt, t)


def correlated(seed=0, schedule=HO):
    """Gaussian data with a mean and a covariance without any symmetry: their exact denoiser, and some draws."""
    root = torch.randn(N, N, generator=rng(seed), dtype=DOUBLE)
    mean, cov = 0.3 * torch.randn(1, N, generator=rng(seed + 1), dtype=DOUBLE), root @ root.T / N + 0.02 * torch.eye(N)
    x0 = mean + (torch.randn(6, N, generator=rng(seed + 2), dtype=DOUBLE) @ torch.linalg.cholesky(cov).T)[:, None]
    return Gaussian(mean, cov, schedule), x0


def flow_law(exact, x0):
    """log p(x_0) of the flow that ends in N(0, I), in closed form: along each eigenvector it stretches evenly."""
    w, ab = exact.wiener, exact.schedule.alpha_bar(exact.schedule.T)
    z = (x0 - w.mean).flatten(1) @ w.basis
    stretch = ((ab * w.power + 1 - ab) / w.power).sqrt()
    end = stretch * z + ab.sqrt() * (w.mean.flatten() @ w.basis)
    return (-0.5 * end**2 - 0.5 * math.log(2 * math.pi) + stretch.log()).sum(1)


# --- the flow -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [HO, linear(100)], ids=lambda schedule: f"T={schedule.T}")
@pytest.mark.parametrize("kind", [lambda d: d, Bare], ids=["covariance", "derivative"])
def test_gaussian_data_have_the_likelihood_of_the_closed_form(schedule, kind):
    exact, x0 = correlated(schedule=schedule)
    found = log_likelihood(kind(exact), x0, 32, first=0.1)
    torch.testing.assert_close(found.nats, flow_law(exact, x0), rtol=0, atol=5e-3)


def test_where_nothing_is_left_at_the_end_it_is_the_data_s_own_density():
    exact, x0 = correlated()
    centred = Gaussian(0 * exact.wiener.mean, 0.3 * torch.eye(N, dtype=DOUBLE), HO)
    law = torch.distributions.Normal(0.0, math.sqrt(0.3))
    truth = law.log_prob(x0).sum((1, 2))
    assert (log_likelihood(centred, x0, 64).nats - truth).abs().max() < 1e-3  # ᾱ_T = 4e-5
    assert (flow_law(centred, x0) - truth).abs().max() > 1e-5


def test_twice_the_steps_divide_the_error_by_sixteen_and_the_error_is_told():
    exact, x0 = correlated(3)
    truth, off, told = flow_law(exact, x0), {}, {}
    for steps in (16, 32, 64):
        found = log_likelihood(exact, x0, steps, first=0.01)
        off[steps], told[steps] = (found.nats - truth).abs().max().item(), found.error
        assert ((found.nats - truth).abs() <= found.error).all()
    assert off[16] > 8 * off[32] > 64 * off[64], off
    assert (told[16] > told[64]).all()


def test_the_stretch_without_a_denoiser_is_of_second_order_in_its_noise():
    """The noise at t = 1 is a fifth of that in the data with T = 100: the stretch counts, and is nearly right."""
    exact = Gaussian(torch.zeros(1, 3, dtype=DOUBLE), 0.01 * torch.eye(3, dtype=DOUBLE), linear(100))
    x0 = 0.1 * torch.ones(1, 1, 3, dtype=DOUBLE)
    ratio = ((1 - exact.schedule.alpha_bar(1)) / exact.schedule.alpha_bar(1)).item() / 0.01
    off = abs((log_likelihood(exact, x0, 64).nats - flow_law(exact, x0)).item()) / 3
    assert 0.1 < ratio < 0.3 and off < ratio**2 / 8  # taken for constant it would be ratio²·5/8


def test_clean_data_have_no_likelihood():
    """Two of five directions hold nothing: with every halving of the smallest noise log p grows by log 2."""
    exact = Gaussian(torch.zeros(1, N, dtype=DOUBLE), torch.diag(torch.tensor([0.5, 0.3, 0.2, 0, 0])).double(), HO)
    x0 = torch.tensor([[[0.3, -0.2, 0.1, 0.0, 0.0]]], dtype=DOUBLE)
    first = [float(HO.at_log_snr(torch.tensor(z))) for z in (9.0, 9.0 + 2 * math.log(2))]
    fine, finer = (log_likelihood(exact, x0, 64, t).nats.item() for t in first)
    assert finer - fine == pytest.approx(2 * math.log(2), abs=0.01)


def test_bits_are_negative_nats_over_samples_and_log_two():
    exact, x0 = correlated()
    found = log_likelihood(exact, x0, 12)
    assert found.dim == N
    torch.testing.assert_close(found.bits_per_dim() * N * math.log(2), -found.nats)


def test_another_variance_can_be_trusted():
    exact, x0 = correlated()
    same = log_likelihood(exact, x0, 16, variance=lambda x, t: posterior_variance(exact, x, t))
    torch.testing.assert_close(same.nats, log_likelihood(exact, x0, 16).nats)
    none = log_likelihood(exact, x0, 16, variance=lambda x, t: 0 * x)
    assert (none.nats > same.nats + 1).all()


def test_signals_do_not_depend_on_each_other():
    exact, x0 = correlated()
    torch.testing.assert_close(log_likelihood(exact, x0[2:3], 12).nats, log_likelihood(exact, x0, 12).nats[2:3])


# --- the posterior covariance -------------------------------------------------------------------------


class Knows(torch.nn.Module):
    """A network that says what the linear denoiser says."""

    def __init__(self, wiener):
        super().__init__()
        self.wiener = wiener

    def forward(self, x, log_snr, cond):
        a, s = torch.sigmoid(log_snr).sqrt().view(-1, 1, 1), torch.sigmoid(-log_snr).sqrt().view(-1, 1, 1)
        return self.wiener(x, a, s).eps


KINDS = {"its own": lambda d: d, "derivative": lambda d: Denoiser(Knows(d.wiener), HO, Eps())}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [1, 400.5, torch.tensor([2, 80, 900, 80])], ids=["1", "400.5", "several"])
def test_the_posterior_covariance_of_a_gaussian_is_the_closed_form(kind, t):
    """Σ - ᾱΣ(ᾱΣ + (1-ᾱ)I)⁻¹Σ, by solving with the whole matrix, of signals with two channels."""
    root = torch.randn(6, 6, generator=rng(), dtype=DOUBLE)
    cov, one = root @ root.T / 6 + 0.02 * torch.eye(6, dtype=DOUBLE), torch.eye(6, dtype=DOUBLE)
    exact = Gaussian(torch.ones(2, 3, dtype=DOUBLE), cov, HO)
    denoiser, xt = KINDS[kind](exact), torch.randn(4, 2, 3, generator=rng(1), dtype=DOUBLE)
    assert isinstance(denoiser, WithCovariance) == (kind == "its own")
    ab = HO.alpha_bar(torch.as_tensor(t, dtype=DOUBLE).expand(4))[:, None, None]
    closed = cov - ab * cov @ torch.linalg.solve(ab * cov + (1 - ab) * one, cov)
    found = posterior_covariance(denoiser, xt, t)
    torch.testing.assert_close(found, closed, rtol=1e-6, atol=1e-9)
    diagonal = closed.diagonal(dim1=1, dim2=2).view(4, 2, 3)
    torch.testing.assert_close(posterior_variance(denoiser, xt, t), diagonal, rtol=1e-6, atol=1e-9)


# --- the posterior variance ---------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 80, 400])
def test_the_derivative_of_a_posterior_mean_is_its_variance(t):
    gaussian, _ = correlated()
    atoms = FiniteOracle(torch.randn(4, 1, N, generator=rng(5), dtype=DOUBLE), HO)
    xt = torch.randn(3, 1, N, generator=rng(6), dtype=DOUBLE)
    for exact in (gaussian, atoms, NoisyOracle(atoms, 0.3)):
        torch.testing.assert_close(posterior_variance(Bare(exact), xt, t), posterior_variance(exact, xt, t))


def test_each_signal_may_have_its_own_time_and_chunks_do_not_matter():
    exact, _ = correlated()
    xt, t = torch.randn(4, 1, N, generator=rng(6), dtype=DOUBLE), torch.tensor([5, 70, 5, 900])
    one_by_one = torch.cat([posterior_variance(Bare(exact), xt[k : k + 1], t[k]) for k in range(4)])
    torch.testing.assert_close(posterior_variance(Bare(exact), xt, t, chunk=1), one_by_one)


def test_the_variance_of_a_constant_is_zero_and_of_a_copy_is_that_of_the_noise():
    xt = torch.randn(2, 1, N, generator=rng(1), dtype=DOUBLE)
    constant = Denoiser(lambda x, log_snr, cond: 0 * x + 1, HO, X0())
    assert posterior_variance(constant, xt, 50).abs().max() == 0
    copy = Denoiser(lambda x, log_snr, cond: 0 * x, HO, Eps())  # x̂_0 = x_t/√ᾱ
    u = ((1 - HO.alpha_bar(50)) / HO.alpha_bar(50)).expand(2, 1, N)
    torch.testing.assert_close(posterior_variance(copy, xt, 50), u, rtol=1e-6, atol=0)


# --- the density of noisy signals ---------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_the_density_of_noisy_wavelets_is_a_sum_over_a_fine_grid(sigma):
    family = BenchmarkMorlet(length=32, b=(-0.5, 0.5), s=(0.6, 0.8), w=(4.0, 5.0))
    y, _ = Noisy(family, sigma).sample(5, rng(2))
    count = torch.tensor([120, 40, 40])  # cells half as long as the noise at sigma = 0.1, at least
    axes = [(torch.arange(n) + 0.5) / n for n in count]
    atoms = family.render(family.low + (family.high - family.low) * torch.cartesian_prod(*axes))[:, 0].double()
    x = y[:, 0].double()
    apart = x.square().sum(1)[:, None] - 2 * x @ atoms.T + atoms.square().sum(1)
    brute = (-apart / (2 * sigma**2)).logsumexp(1) - math.log(len(atoms)) - 16 * math.log(2 * math.pi * sigma**2)
    found = NoisyOracle(FamilyOracle(family, HO), sigma).log_density(y)
    torch.testing.assert_close(found.double(), brute, rtol=0, atol=0.03)


class Arc(Family):
    """A quarter of a circle in two dimensions, with or without a radius that is integrated exactly."""

    def __init__(self, radius=False):
        box = {"angle": (0.0, math.pi / 2)} | ({"radius": (0.5, 1.5)} if radius else {})
        super().__init__(box, 2, (0.0, 1.0))
        self.scale = "radius" if radius else None

    def formula(self, x, angle, radius=1.0):
        return radius * torch.cat([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize("radius", [False, True])
@pytest.mark.parametrize("t", [0, 50])
def test_a_density_integrates_to_one(radius, t):
    exact = NoisyOracle(FamilyOracle(Arc(radius), HO, cells=256), 0.15)
    axis = torch.linspace(-1.5, 2.5, 121)
    points = torch.cartesian_prod(axis, axis)[:, None]
    total = exact.log_density(points, t).double().exp().sum() * float(axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=3e-3)


def test_the_slope_of_the_log_density_is_minus_the_noise():
    """∇log p(x_t) = -ε̂/√(1-ᾱ), by differences."""
    exact = NoisyOracle(FamilyOracle(Arc(), HO, cells=256), 0.2)
    xt, step = torch.tensor([[[0.3, 0.8]], [[1.0, -0.1]]]), 1e-2
    _, s = HO(torch.tensor([300]))
    for k in range(2):
        aside = step * torch.eye(2)[k]
        slope = (exact.log_density(xt + aside, 300) - exact.log_density(xt - aside, 300)) / (2 * step)
        torch.testing.assert_close(slope, -exact(xt, 300).eps[:, 0, k] / s.flatten(), rtol=0.01, atol=0.01)


def test_the_covariance_of_noisy_data_is_that_of_a_wider_gaussian():
    clean, _ = correlated()
    cov = clean.wiener.basis * clean.wiener.power @ clean.wiener.basis.T
    wide = Gaussian(clean.wiener.mean, cov + 0.09 * torch.eye(N), HO)
    xt = torch.randn(2, 1, N, generator=rng(6), dtype=DOUBLE)
    for t in (2, 100, 900):
        for inner in (clean, Bare(clean)):  # the second is differentiated
            found = NoisyOracle(inner, 0.3).covariance(xt, t)
            torch.testing.assert_close(found, wide.covariance(xt, t), rtol=1e-6, atol=0)


def test_the_flow_of_the_exact_denoiser_has_the_density_of_the_data():
    sigma, family = 0.1, SHORT
    exact = NoisyOracle(FamilyOracle(family, HO, cells=2048), sigma)
    y, _ = Noisy(family, sigma).sample(3, rng(7))
    found, truth = log_likelihood(exact, y, 32), exact.log_density(y)
    assert (found.nats - truth).abs().max() < 0.3 and (truth.abs() > 20).all()
    assert (found.error < 3).all()


# --- refusals -----------------------------------------------------------------------------------------

BAD = {
    "odd steps": (lambda d, x: log_likelihood(d, x, 15), "steps must be even"),
    "no steps": (lambda d, x: log_likelihood(d, x, 0), "steps must be an integer from 12"),
    "first = 0": (lambda d, x: log_likelihood(d, x, first=0.0), "first must be a number"),
    "first near T": (lambda d, x: log_likelihood(d, x, first=990.0), "too near to T"),
    "NaN": (lambda d, x: log_likelihood(d, x * math.nan), "finite"),
    "time 0": (lambda d, x: posterior_variance(d, x, 0), "no noise at 0"),
    "a density of a network": (lambda d, x: NoisyOracle(d, 0.1).log_density(x), "exact denoiser of a family"),
    "a density of clean data": (lambda d, x: NoisyOracle(FamilyOracle(SHORT, HO), 0.0).log_density(x), "no density"),
    "a denoiser that explodes": (
        lambda d, x: log_likelihood(Denoiser(lambda x, *_: -1e9 * x, HO, Eps()), x, 64),
        "finite|left all bounds|lie within",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    call, words = BAD[case]
    d = Denoiser(lambda x, log_snr, cond: x, HO, Eps())
    with pytest.raises((ValueError, TypeError, FloatingPointError), match=words):
        call(d, torch.ones(2, 1, 64))
