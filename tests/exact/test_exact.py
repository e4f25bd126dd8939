"""Exact answers against other ways to the same number: matrices, brute-force sums, Monte Carlo, tangent planes."""

import math

import numpy as np
import pytest
import torch
from helpers import HO, assert_mean, mean_and_error, rng, toy

from ddpm_lib import (
    BenchmarkMorlet,
    FamilyOracle,
    FiniteOracle,
    Gaussian,
    Morlet,
    Schedule,
    fit_gaussian,
    loss,
    q_sample,
    report_grid,
)
from ddpm_lib.diffusion import schedules
from ddpm_lib.exact import LowRank, MixtureOracle, NoisyOracle, Wiener, family, finite, gaussian, of
from ddpm_lib.signals import Augmented, Finite, Mixture, Negate, Noisy, Ricker

DOUBLE = torch.float64
FAMILY = BenchmarkMorlet()
T_ALL = torch.arange(1, 1001)


def noise(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def apart(x, y):
    """Mean square difference, a number."""
    return float((x - y).square().mean())


def correlated(n=6, seed=0):
    """A mean (2, n/2) and a covariance (n, n) without any symmetry."""
    root = noise(n, n, seed=seed)
    return noise(2, n // 2, seed=seed + 1), root @ root.T / n


@pytest.fixture(scope="module")
def exact():
    return FamilyOracle(FAMILY, HO)


def test_a_long_signal_keeps_its_strongest_directions_only():
    power = torch.linspace(0.1, 3, 20, dtype=torch.float64)
    few = Wiener(torch.zeros(1, 20, dtype=torch.float64), torch.diag(power), rank=5)
    assert torch.equal(few.power, power[-5:]) and few.basis.shape == (20, 5)
    xt, a, s = torch.ones(1, 1, 20, dtype=torch.float64), torch.full((1, 1, 1), 0.8), torch.full((1, 1, 1), 0.6)
    x0 = few(xt, a.double(), s.double()).x0.flatten()
    torch.testing.assert_close(x0[-5:], (0.8 * power / (0.64 * power + 0.36))[-5:], rtol=1e-6, atol=0)
    assert x0[:15].abs().max() < 1e-12  # taken for the mean, which is 0


# --- Gaussian data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 100, 500, 1000])
def test_gaussian_in_one_dimension(t):
    ab, xt = float(HO.alpha_bar(t)), 0.3
    x0, eps = (v.item() for v in toy()(torch.full((1, 1, 1), xt, dtype=DOUBLE), t))
    power = ab * 0.25**2 + 1 - ab
    assert eps == pytest.approx(math.sqrt(1 - ab) * (xt - math.sqrt(ab) * 0.5) / power, rel=1e-9)
    assert x0 == pytest.approx((0.25**2 * math.sqrt(ab) * xt + (1 - ab) * 0.5) / power, rel=1e-9)


@pytest.mark.parametrize("t", [1, 100, 1000])
def test_wiener_is_the_textbook_formula(t):
    """E[x_0|x_t] = m + √ᾱΣ(ᾱΣ + (1-ᾱ)I)⁻¹(x_t - √ᾱm), by solving with the whole matrix."""
    mean, cov = correlated()
    xt = noise(4, 2, 3, seed=9)
    a, s = HO(torch.tensor([t]), DOUBLE)
    system = a[0] ** 2 * cov + s[0] ** 2 * torch.eye(6, dtype=DOUBLE)
    x0 = mean + (a[0] * cov @ torch.linalg.solve(system, (xt - a * mean).flatten(1).T)).T.view(4, 2, 3)
    found = Gaussian(mean, cov, HO)(xt, t)
    torch.testing.assert_close(found.x0, x0, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("std", "pinned"), [(1.0, 0.27551), (0.27737, 0.10791), (0.05, 0.01970)])
def test_gaussian_floor_in_one_dimension(std, pinned):
    exact, ab = toy(std=std), HO.alpha_bar(T_ALL)
    floor = exact.floor(T_ALL)
    torch.testing.assert_close(floor, ab * std**2 / (ab * std**2 + 1 - ab), rtol=1e-9, atol=0)
    assert float(floor.mean()) == pytest.approx(pinned, abs=6e-6)
    t = torch.randint(1, 1001, (100_000,), generator=rng())
    x0 = 0.5 + std * noise(len(t), 1, 1)
    assert_mean(loss(exact, x0, t, noise(len(t), 1, 1, seed=1)), pinned)


@pytest.mark.parametrize("t", [1, 30, 300])
def test_gaussian_floor_is_what_is_lost(t):
    mean, cov = correlated()
    exact = Gaussian(mean, cov, HO)
    x0 = mean + (noise(20_000, 6, seed=3) @ torch.linalg.cholesky(cov).T).view(-1, 2, 3)
    assert_mean(
        loss(exact, x0, torch.full((len(x0),), t), noise(*x0.shape, seed=4)), float(exact.floor(torch.tensor([t])))
    )


def test_singular_covariances():
    mean, direction = torch.zeros(1, 5, dtype=DOUBLE), noise(5, 1)
    exact = Gaussian(mean, direction @ direction.T, HO)
    assert exact.wiener.power.shape == (1,)
    xt = noise(3, 1, 5, seed=1)
    along = exact(xt, 50).x0[:, 0]
    torch.testing.assert_close(torch.linalg.matrix_rank(along), torch.tensor(1))
    nothing = Gaussian(mean + 2, torch.zeros(5, 5, dtype=DOUBLE), HO)
    assert torch.equal(nothing(xt, 50).x0, (mean + 2).expand(3, 1, 5)) and nothing.floor(T_ALL).abs().max() == 0


def test_fit_gaussian_is_numpy():
    x0 = noise(40, 2, 3)
    mean, cov = fit_gaussian(x0)
    np.testing.assert_allclose(mean, x0.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(x0.numpy().reshape(40, 6).T), rtol=1e-12)


def test_directions_are_counted_without_the_rounding_of_single_precision():
    """Else their number, and with it the shape of a stored network, would change from one processor to another."""
    x0, _ = FAMILY.sample(5000, rng())
    _, cov = fit_gaussian(x0.double())
    power = torch.linalg.eigvalsh(cov)
    kept = len(Wiener(*fit_gaussian(x0)).power)
    assert kept == int((power > 1e-8 * power[-1]).sum())


def test_the_best_linear_denoiser_of_wavelets():
    """Its loss on the benchmark family is that of the literature; no other matrix does better."""
    x0, _ = FAMILY.sample(20_000, rng())
    wiener = Gaussian(*fit_gaussian(x0), HO)
    assert float(wiener.floor(T_ALL).mean()) == pytest.approx(0.0362, abs=3e-4)
    for t, value in {1: 0.3199, 10: 0.2537, 100: 0.1227, 250: 0.0484, 500: 0.0061}.items():
        assert float(wiener.floor(torch.tensor([t]))) == pytest.approx(value, rel=0.03)
    fresh, t = FAMILY.sample(2000, rng(1))[0], torch.full((2000,), 100)
    eps = noise(2000, 1, 128, seed=2, dtype=torch.float32)
    assert_mean(loss(wiener, fresh, t, eps), float(wiener.floor(torch.tensor([100]))))


# --- a finite set -------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 20, 150, 1000])
def test_finite_is_a_sum_over_the_set(t):
    atoms = noise(30, 2, 8) * 0.4
    exact = FiniteOracle(atoms, HO)
    xt = q_sample(atoms[:6] + 0.01, t, noise(6, 2, 8, seed=1), HO)
    a, s = (v.item() for v in HO(torch.tensor([t]), DOUBLE))
    expected = np.zeros((6, 2, 8))
    for row in range(6):
        log = [-((xt[row] - a * atom) ** 2).sum().item() / (2 * s**2) for atom in atoms]
        p = np.exp(np.array(log) - max(log))
        p /= p.sum()
        expected[row] = np.einsum("k,kcl->cl", p, atoms.numpy())
        np.testing.assert_allclose(exact.weights(xt, t)[row], p, rtol=1e-6, atol=1e-12)
    found = exact(xt, t)
    np.testing.assert_allclose(found.x0, expected, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.eps, (xt.numpy() - a * expected) / s, rtol=1e-6, atol=1e-8)


def test_finite_in_single_precision():
    grid = report_grid(128)
    single, double = FiniteOracle(grid.signals, HO), FiniteOracle(grid.signals.double(), HO)
    t = torch.tensor([1, 3, 10, 30, 100, 300, 1000]).repeat(20)
    x0, _ = grid.sample(len(t), rng())
    xt = q_sample(x0, t, noise(*x0.shape, seed=1, dtype=torch.float32), HO)
    distance = (single(xt, t).eps - double(xt.double(), t).eps).square().mean()
    assert distance < 1e-3 * loss(single, x0, t, noise(*x0.shape, seed=1, dtype=torch.float32)).mean()


@pytest.mark.parametrize(("length", "floor"), [(128, 0.0086), (2000, 0.00045)])
def test_finite_floor_of_the_report_grid(length, floor):
    """The published floors of the report's own set and schedule, T = 300 with β from 1e-4 to 0.02."""
    with pytest.warns(UserWarning, match=r"21\.9%"):
        schedule = Schedule.from_betas(torch.linspace(1e-4, 0.02, 300, dtype=DOUBLE))
    atoms = report_grid(length).signals.double()
    t = torch.arange(1, 301).repeat(10)
    x0 = atoms[torch.randint(60, (3000,), generator=rng())]
    assert_mean(loss(FiniteOracle(atoms, schedule), x0, t, noise(*x0.shape, seed=1)), floor, errors=3)


# --- a family -----------------------------------------------------------------------------------------

ONE = Morlet(amplitude=1.0, frequency=8.0, width=0.1, shift=(-0.5, 0.5))
TWO = Morlet(amplitude=1.0, frequency=(8.0, 12.0), width=(0.05, 0.15))


def brute_force(family, xt, t, points):
    """E[x_0|x_t] by a sum over a dense grid of midpoints in float64, and no refinement."""
    low, high = family.low.double(), family.high.double()
    axes = [
        lo + (hi - lo) * (torch.arange(n, dtype=DOUBLE) + 0.5) / n for lo, hi, n in zip(low, high, points, strict=True)
    ]
    atoms = family.render(torch.cartesian_prod(*axes).view(-1, len(points))).flatten(1)
    a, s = (v.item() for v in HO(torch.tensor([t]), DOUBLE))
    x = xt.double().flatten(1)
    log = (a * x @ atoms.T - 0.5 * a**2 * atoms.square().sum(1)) / s**2
    return (log.softmax(1) @ atoms).view_as(xt)


SCALED = Morlet(64, amplitude=(0.5, 1.5), frequency=2.0, width=(0.1, 0.4))
FOUR = Morlet(64, amplitude=(0.5, 1.5), frequency=(2.0, 4.0), width=(0.1, 0.4), shift=(-0.5, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "points"),
    [(ONE, (4000,)), (TWO, (300, 150)), (SCALED, (300, 300)), (FOUR, (16, 32, 16, 80))],
    ids=["one", "two", "one and a scale", "three and a scale"],
)
def test_family_is_an_integral_over_the_box(family, points):
    exact = FamilyOracle(family, HO)
    x0, _ = family.sample(40, rng())
    eps = noise(*x0.shape, seed=1, dtype=torch.float32)
    for t in (5, 30, 100, 200, 400, 900) if len(points) < 4 else (300, 450, 700):  # a coarser sum
        xt = q_sample(x0, t, eps, HO)
        a, s = HO(torch.tensor([t]))
        brute = (xt - a * brute_force(family, xt, t, points)) / s
        found = exact(xt, t)
        torch.testing.assert_close(a * found.x0 + s * found.eps, xt, rtol=1e-5, atol=1e-5)
        error, floor = apart(found.eps, brute), apart(eps, brute)
        assert error < (1e-4 if len(points) < 3 else 3e-3) * floor, f"t = {t}"


@pytest.mark.slow
def test_a_scale_that_is_integrated_or_summed_gives_the_same():
    """The same family with and without the closed form, down to noise at which only refinement sees anything."""
    summed = Morlet(64, amplitude=(0.5, 1.5), frequency=2.0, width=(0.1, 0.4))
    summed.scale = None
    closed, grid = FamilyOracle(SCALED, HO), FamilyOracle(summed, HO, cells=16384, keep=512, resolution=0.4)
    assert closed.scaled and not grid.scaled
    x0, _ = SCALED.sample(60, rng())
    eps = noise(*x0.shape, seed=1, dtype=torch.float32)
    for t in (1, 10, 100, 300, 900):
        xt = q_sample(x0, t, eps, HO)
        best = grid(xt, t).eps
        assert apart(closed(xt, t).eps, best) < 0.01 * apart(eps, best), f"t = {t}"
    xt = q_sample(x0[:4], 100, eps[:4], HO)
    a, b = (o.posterior(xt, 100, 4000, rng()) for o in (closed, grid))
    spread = b.std(1)
    assert ((a.mean(1) - b.mean(1)).abs() < 0.1 * spread).all() and ((a.std(1) / spread - 1).abs() < 0.1).all()


def test_a_scale_outside_its_interval_stays_finite():
    """Far from any signal the law of the scale is the far tail of a normal law; nothing there may overflow."""
    closed = FamilyOracle(SCALED, HO)
    for far in (-40.0, 1e-3, 40.0):
        for t in (1, 500):
            found = closed(far * torch.ones(1, 1, 64), t)
            assert found.x0.isfinite().all() and found.x0.abs().max() <= 1.5 + 1e-5
            assert closed.posterior(far * torch.ones(1, 1, 64), t, 5, rng()).isfinite().all()


@pytest.mark.parametrize("t", [5, 30, 100, 200, 300, 600])
def test_a_finer_quadrature_changes_less_than_a_percent(exact, t):
    finer = FamilyOracle(FAMILY, HO, cells=16384, keep=256, resolution=0.7)
    x0, _ = FAMILY.sample(48, rng())
    eps = noise(48, 1, 128, seed=1, dtype=torch.float32)
    xt = q_sample(x0, t, eps, HO)
    best = finer(xt, t).eps
    error, floor = apart(exact(xt, t).eps, best), apart(eps, best)
    assert error < 0.01 * floor


def test_at_small_noise_the_oracle_projects_on_the_tangent_plane(exact):
    """Three free parameters: of the noise, the part in the plane of ∂ψ/∂θ cannot be told from signal."""
    low, high = FAMILY.low, FAMILY.high
    theta = low + (high - low) * (0.2 + 0.6 * torch.rand(60, 3, generator=rng()))  # away from the walls of the box
    x0, eps = FAMILY.render(theta), noise(60, 1, 128, seed=1, dtype=torch.float32)
    j = torch.func.vmap(torch.func.jacfwd(lambda p: FAMILY.render(p[None]).flatten()))(theta)
    tangent = torch.linalg.qr(j).Q
    inside = (tangent @ (tangent.mT @ eps.mT)).mT
    left = eps - exact(q_sample(x0, 1, eps, HO), 1).eps
    assert (left - inside).square().mean() < 0.02 * inside.square().mean()
    assert_mean(left.square().mean((1, 2)), 3 / 128)


def test_family_rows_do_not_depend_on_each_other(exact):
    x0, _ = FAMILY.sample(5, rng())
    t = torch.tensor([300, 1, 300, 40, 1000])
    xt = q_sample(x0, t, noise(5, 1, 128, dtype=torch.float32), HO)
    together = exact(xt, t).x0
    for k in range(5):
        torch.testing.assert_close(exact(xt[k : k + 1], int(t[k])).x0[0], together[k], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_no_denoiser_beats_it(exact):
    """On fresh signals, paired: the linear denoiser, one that knows 300 signals by heart, and a scaled oracle."""
    bank, _ = FAMILY.sample(300, rng(5))
    rivals = {"linear": Gaussian(*fit_gaussian(bank), HO), "memory": FiniteOracle(bank, HO)}
    x0, _ = FAMILY.sample(200, rng(6))
    eps = noise(200, 1, 128, seed=7, dtype=torch.float32)
    for t in (10, 100, 300):
        xt, times = q_sample(x0, t, eps, HO), torch.full((200,), t)
        floor = loss(exact, x0, times, eps)
        for name, rival in rivals.items():
            gain, error = mean_and_error(loss(rival, x0, times, eps) - floor)
            assert gain > 4 * error, f"{name} at t = {t}"
        for factor in (0.9, 1.1):
            gain, error = mean_and_error((eps - factor * exact(xt, t).eps).square().mean((1, 2)) - floor)
            assert gain > 4 * error


@pytest.mark.slow
def test_floor_of_the_benchmark(exact):
    """The published floor, 0.0115, over evenly spaced t: 500 signals tell it to some four percent."""
    t = torch.arange(1, 1001, 2)
    x0, _ = FAMILY.sample(500, rng(8))
    values = loss(exact, x0, t, noise(500, 1, 128, seed=9, dtype=torch.float32))
    assert float(values.mean()) == pytest.approx(0.0115, rel=0.12)
    published = {1: 0.0229, 100: 0.0202, 250: 0.0330, 400: 0.0153}
    for t, value in published.items():
        x0, _ = FAMILY.sample(150, rng(t))
        at_t = loss(exact, x0, torch.full((150,), t), noise(150, 1, 128, seed=t + 1, dtype=torch.float32))
        assert abs(float(at_t.mean()) / value - 1) < 0.25


@pytest.mark.parametrize("t", [2, 60, 300])
def test_posterior_draws_have_the_posterior_mean(exact, t):
    x0, _ = FAMILY.sample(4, rng(2))
    xt = q_sample(x0, t, noise(4, 1, 128, seed=3, dtype=torch.float32), HO)
    theta = exact.posterior(xt, t, 3000, rng())
    assert theta.shape == (4, 3000, 3)
    assert (theta >= FAMILY.low).all() and (theta <= FAMILY.high).all()
    draws = FAMILY.render(theta.flatten(0, 1)).view(4, 3000, 128)
    gap = draws.mean(1) - exact(xt, t).x0[:, 0]
    expected = draws.var(1).sum(1) / 3000  # of a mean of 3000
    assert (gap.square().sum(1) < 6 * expected + 1e-9).all()
    assert torch.equal(theta, exact.posterior(xt, t, 3000, rng()))


def test_at_the_end_the_posterior_is_the_prior(exact):
    theta = exact.posterior(noise(1, 1, 128, dtype=torch.float32), 1000, 4000, rng())[0]
    middle, width = (FAMILY.low + FAMILY.high) / 2, FAMILY.high - FAMILY.low
    z = (theta - middle) / width * math.sqrt(12)
    assert (z.mean(0).abs() < 0.1).all() and ((z.square().mean(0) - 1).abs() < 0.1).all()


# --- all of them --------------------------------------------------------------------------------------


def build(kind, schedule):
    if kind is Gaussian:
        return Gaussian(*fit_gaussian(FAMILY.sample(300, rng())[0]), schedule)
    if kind is FiniteOracle:
        return FiniteOracle(FAMILY.sample(50, rng())[0], schedule)
    return kind(FAMILY, schedule, cells=500)


ALL = (*gaussian.ALL, *finite.ALL, *family.ALL)


@pytest.mark.parametrize("t", [3, 80, 300])
@pytest.mark.parametrize("kind", ["gaussian", "finite", "family", "scaled"])
def test_covariance_is_the_slope_of_the_mean(kind, t):
    """Tweedie's second formula, ∂x̂_0/∂x_t = √ᾱ/(1-ᾱ)·Cov[x_0|x_t], with the slope taken by differences."""
    mean, cov = correlated(32)
    signals = TWO.sample(40, rng())[0].double()
    made = {
        "gaussian": lambda: Gaussian(mean, cov, HO),
        "finite": lambda: FiniteOracle(signals, HO),
        "family": lambda: FamilyOracle(TWO, HO, keep=256, resolution=0.7),
        "scaled": lambda: FamilyOracle(SCALED, HO, keep=256, resolution=0.7),
    }
    exact = made[kind]()
    data = {"gaussian": mean[None], "finite": signals, "family": signals, "scaled": SCALED.sample(9, rng())[0].double()}
    x0 = data[kind][:1]
    xt = q_sample(x0, t, noise(*x0.shape, seed=4), HO)
    n = xt.numel()
    found = exact.covariance(xt, t)
    assert found.shape == (1, n, n) and torch.linalg.eigvalsh(found[0]).min() > -1e-6
    a, s = (v.item() for v in HO(torch.tensor([t]), DOUBLE))
    h = 0.05 * s
    step = h * torch.eye(n, dtype=DOUBLE).view(n, *xt.shape[1:])
    slope = ((exact(xt + step, t).x0 - exact(xt - step, t).x0) / (2 * h)).flatten(1)  # row: which sample of x_t moved
    torch.testing.assert_close(slope, found[0] * a / s**2, rtol=0, atol=0.02 * max(0.02, float(slope.abs().max())))


@pytest.mark.slow
@pytest.mark.parametrize("t", [1, 10, 30, 100, 200])
def test_a_finer_quadrature_leaves_the_covariance(exact, t):
    finer = FamilyOracle(FAMILY, HO, cells=16384, keep=1024, resolution=0.7)
    x0, _ = FAMILY.sample(16, rng())
    xt = q_sample(x0, t, noise(16, 1, 128, seed=1, dtype=torch.float32), HO)
    size, best = (o.covariance(xt, t).diagonal(dim1=1, dim2=2).sum(1) for o in (exact, finer))
    assert ((size / best).mean() - 1).abs() < 0.03


@pytest.mark.parametrize("kind", ALL, ids=[k.__name__ for k in ALL])
@pytest.mark.parametrize("make", schedules.ALL, ids=[f.__name__ for f in schedules.ALL])
def test_every_oracle_is_a_denoiser(kind, make):
    schedule = make(50)
    exact = build(kind, schedule)
    t, xt = torch.tensor([1, 7, 7, 50]), noise(4, 1, 128, dtype=torch.float32)
    x0, eps = exact(xt, t)
    a, s = schedule(t)
    assert x0.shape == eps.shape == xt.shape and x0.isfinite().all() and eps.isfinite().all()
    torch.testing.assert_close(a * x0 + s * eps, xt, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exact(xt, 7).x0[2], x0[2], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"t must lie in 0…50"):
        exact(xt, 51)


def test_refusals(exact):
    with pytest.raises(ValueError, match=r"Morlet has 4 parameters besides its scale: quadrature covers up to"):
        FamilyOracle(Morlet(shift=(-0.1, 0.1), phase=(0.0, 3.0)), HO)
    with pytest.raises(ValueError, match=r"mean must have shape \(C, L\), .* got \(4,\)"):
        Wiener(torch.zeros(4), torch.eye(4))
    with pytest.raises(ValueError, match=r"covariance must have shape \(4, 4\), .* got \(5, 5\)"):
        Gaussian(torch.zeros(1, 4), torch.eye(5), HO)
    with pytest.raises(TypeError, match="signals must be floating point"):
        FiniteOracle(torch.zeros(3, 1, 4, dtype=torch.int64), HO)
    with pytest.raises(FloatingPointError, match="leave its posterior no digits"):
        exact(torch.full((1, 1, 128), math.nan), 5)
    with pytest.raises(ValueError, match=r"x0 must have shape \(n, C, L\)"):
        fit_gaussian(torch.zeros(3, 4))


# --- of any source ------------------------------------------------------------------------------------

ATOMS = Finite(noise(20, 2, 16, dtype=torch.float32))
SOURCES = {
    "a family": (FAMILY, lambda: FamilyOracle(FAMILY, HO)),
    "a finite set": (ATOMS, lambda: FiniteOracle(ATOMS.signals, HO)),
    "the report's grid": (report_grid(128), lambda: FiniteOracle(report_grid(128).signals, HO)),
    "with noise": (Noisy(FAMILY, 0.1), lambda: NoisyOracle(FamilyOracle(FAMILY, HO), 0.1)),
    "several families": (Mixture([FAMILY, Ricker()]), lambda: MixtureOracle(Mixture([FAMILY, Ricker()]), HO)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_exact_denoiser_of_a_source(kind):
    source, build = SOURCES[kind]
    found, expected = of(source, HO), build()
    assert type(found) is type(expected) and found.schedule is HO
    x0, _ = source.sample(3, rng())
    t = torch.tensor([3, 100, 900])
    xt = q_sample(x0, t, noise(*x0.shape, seed=1, dtype=torch.float32), HO)
    for mine, other in zip(found(xt, t), expected(xt, t), strict=True):
        assert torch.equal(mine, other)


class Biased(BenchmarkMorlet):
    """A family whose law is not the uniform one on its box."""

    def sample(self, n, generator=None):
        return super().sample(n, generator)


class Elsewhere:
    """A source of one's own: nothing but zeros."""

    names, length = ("nothing",), 8

    def sample(self, n, generator=None):
        return torch.zeros(n, 1, 8), torch.zeros(n, 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Augmented(FAMILY, Negate()), "exact denoiser of signals of Augmented is not known"),
        (Elsewhere(), "exact denoiser of signals of Elsewhere is not known"),
        (None, "exact denoiser of signals of NoneType is not known"),
        (Biased(), "Biased draws its signals in its own way"),
        (Noisy(Biased(), 0.1), "Biased draws its signals in its own way"),
        (Morlet(shift=(-0.1, 0.1), phase=(0.0, 3.0)), "Morlet has 4 parameters besides its scale"),
    ],
    ids=["changed signals", "another source", "none", "another law", "another law with noise", "four parameters"],
)
def test_sources_whose_exact_denoiser_is_not_known(source, message):
    with pytest.raises(ValueError, match=message):
        of(source, HO)


def test_another_source_can_register_its_own():
    class Points(Elsewhere):
        pass

    of.register(Points, lambda source, schedule: FiniteOracle(source.sample(1)[0], schedule))
    assert of(Points(), HO)(torch.ones(2, 1, 8), 5).x0.abs().max() == 0
    with pytest.raises(ValueError, match="Elsewhere is not known"):
        of(Elsewhere(), HO)


def test_long_signals_have_a_covariance_by_its_greatest_directions(monkeypatch):
    """The table and the low-rank form say the same, to 1e-4 of the floor; and the latter is always the same."""
    x0, _ = BenchmarkMorlet(length=192).sample(3000, rng(0))
    mean, cov = fit_gaussian(x0)
    monkeypatch.setattr(gaussian, "FULL", 100)
    _, low = fit_gaussian(x0)
    _, again = fit_gaussian(x0)
    assert isinstance(cov, torch.Tensor) and isinstance(low, LowRank) and torch.equal(low.basis, again.basis)
    full, short = Gaussian(mean, cov, HO), Gaussian(mean, low, HO)
    t = torch.arange(1, 1001)
    floor = FamilyOracle(BenchmarkMorlet(length=192), HO)
    x, eps = BenchmarkMorlet(length=192).sample(64, rng(1))[0], noise(64, 1, 192, seed=2, dtype=torch.float32)
    at = torch.linspace(1, 1000, 64).round().long()
    least = loss(floor, x, at, eps).mean()
    assert (full.floor(t) - short.floor(t)).abs().max() < 1e-4 * least
    assert (loss(full, x, at, eps) - loss(short, x, at, eps)).mean().abs() < 1e-4 * least
    assert short.wiener.basis.shape == full.wiener.basis.shape


def test_of_more_directions_than_signals_those_of_the_signals_are_found(monkeypatch):
    monkeypatch.setattr(gaussian, "FULL", 100)
    x0 = torch.randn(5, 2, 80, generator=rng(0))
    mean, low = fit_gaussian(x0)
    assert low.basis.shape == (160, 5)
    wiener = Wiener(mean, low)
    assert len(wiener.power) == 4  # of five signals around their mean
    found = wiener.basis @ torch.diag(wiener.power) @ wiener.basis.T
    torch.testing.assert_close(found, torch.cov(x0.flatten(1).T), rtol=1e-3, atol=1e-4)
