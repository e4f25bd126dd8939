"""Several families at once: the mixture of two halves of a family is that family, and its evidence is an integral."""

import math

import pytest
import torch
from helpers import HO, assert_mean, noise, rng
from torch.testing import assert_close

from ddpm_lib import BenchmarkMorlet, FamilyOracle, Recipe, linear_skip, mean_loss, q_sample
from ddpm_lib.exact import MixtureOracle
from ddpm_lib.measures import oracle as exact_of
from ddpm_lib.signals import Chirp, Edges, Mixture, Ricker, TwoMorlets

DOUBLE = torch.float64
L = 32
TIMES = [3, 100, 500]


def halves(make, name, low, middle, high):
    """A family, and the mixture of its two halves."""
    return make(length=L, **{name: (low, high)}), Mixture(
        [make(length=L, **{name: (low, middle)}), make(length=L, **{name: (middle, high)})]
    )


CUT = {
    "a shift": lambda: halves(BenchmarkMorlet, "b", -2.0, 0.0, 2.0),
    "a scale": lambda: halves(Ricker, "A", 0.5, 1.0, 1.5),
    "beside a scale": lambda: halves(Edges, "a", -3.0, -1.5, 0.0),
}
cut = pytest.mark.parametrize("make", CUT.values(), ids=CUT)


@pytest.fixture(autouse=True)
def short_signals(recwarn):
    """Signals of 32 samples alias: the families say so."""


def noised(family, t, n=8):
    x0, _ = family.sample(n, rng(1))
    return q_sample(x0, t, noise(*x0.shape, seed=2), HO)


@pytest.mark.slow
@cut
@pytest.mark.parametrize("t", TIMES)
def test_two_halves_are_the_whole(make, t):
    """The mean, the covariance and the evidence: the mixture's prior and the families' normalisation must be right."""
    whole, both = make()
    xt = noised(whole, t)
    one, two = FamilyOracle(whole, HO, keep=128), MixtureOracle(both, HO, keep=128)
    s = float(HO(torch.tensor([t]))[1])
    assert_close(two(xt, t).x0, one(xt, t).x0, atol=0.05 * s, rtol=0)
    assert_close(two.covariance(xt, t), one.covariance(xt, t), atol=0.1 * s**2, rtol=0)
    evidence = torch.stack([part.with_evidence(xt, t)[1] for part in two.oracles], 1)
    assert_close(evidence.logsumexp(1) - math.log(2), one.with_evidence(xt, t)[1], atol=0.1, rtol=0)


@pytest.mark.parametrize("t", TIMES)
def test_the_evidence_is_the_integral_of_the_likelihood(t):
    """By a plain sum over a fine grid of the two parameters, in float64."""
    family = Ricker(length=L, A=(0.5, 1.5), b=(-0.5, 0.5), s=(0.5, 0.6))
    xt = noised(family, t)
    n = (81, 201, 15)
    axes = [
        low + (high - low) * (torch.arange(k, dtype=DOUBLE) + 0.5) / k
        for low, high, k in zip(family.low.tolist(), family.high.tolist(), n, strict=True)
    ]
    a, s = (float(v) for v in HO(torch.tensor([t]), DOUBLE))
    total = torch.full((len(xt),), -math.inf, dtype=DOUBLE)
    for width in axes[2]:
        theta = torch.cartesian_prod(axes[0], axes[1], width[None])
        apart = torch.cdist(xt.flatten(1).double(), a * family.render(theta).flatten(1)).square()
        total = torch.logaddexp(total, (-apart / (2 * s**2)).logsumexp(1))
    expected = total - math.log(math.prod(n)) - L / 2 * math.log(2 * math.pi * s**2)
    found = FamilyOracle(family, HO, keep=256).with_evidence(xt, t)[1]
    assert_close(found.double(), expected, atol=0.03, rtol=0)


def test_a_family_mixed_with_itself_is_itself():
    family = Chirp(length=L)
    xt = noised(family, 200)
    exact = MixtureOracle(Mixture([family, Chirp(length=L)]), HO)
    assert_close(exact.weights(xt, 200), torch.full((8, 2), 0.5))
    assert_close(exact(xt, 200).x0, FamilyOracle(family, HO)(xt, 200).x0)


def test_what_it_believes_of_the_family_comes_true():
    """p(k|x_t) is a probability: its mean over signals is the share of each family, also where unsure."""
    mixture = Mixture([Ricker(length=L), Chirp(length=L), Edges(length=L)])
    x0, which = mixture.sample(800, rng(3))
    xt = q_sample(x0, 300, noise(*x0.shape, seed=4), HO)
    weights = MixtureOracle(mixture, HO, cells=2048).weights(xt, 300)
    assert_close(weights.sum(1), torch.ones(800))
    unsure = (weights.max(1).values < 0.9).float().mean()
    assert 0.2 < unsure < 0.98
    for k in range(3):
        hit = (which[:, 0] == k).float()
        assert_mean(hit - weights[:, k], 0)
        likely = weights[:, k] > 0.6
        assert_mean((hit - weights[:, k])[likely], 0)


def test_nobody_beats_it():
    """Not the families with equal say, nor the likeliest family alone."""
    mixture = Mixture([Ricker(length=L), Chirp(length=L)])
    exact = MixtureOracle(mixture, HO, cells=4096)
    x0, _ = mixture.sample(512, rng(5))
    eps, t = noise(*x0.shape, seed=6), torch.full((512,), 350)
    best = mean_loss(exact, x0, t, eps).value
    weights, means = exact.parts(q_sample(x0, t, eps, HO), t)
    likeliest = means[torch.arange(512), weights.argmax(1)]
    (_, s), gap = HO(t), lambda x: (x - x0).square()
    a = HO(t)[0]
    for rival in (means.mean(1), likeliest):
        assert float((gap(rival) * (a / s) ** 2).mean()) > 1.01 * best


def test_signals_come_from_the_families_and_say_from_which():
    families = [Ricker(length=L), Edges(length=L)]
    x0, which = Mixture(families).sample(2000, rng())
    again, _ = Mixture(families).sample(2000, rng())
    assert torch.equal(x0, again) and x0.shape == (2000, 1, L)
    assert_mean(which, 0.5)
    boxes = x0[which[:, 0] == 1]  # a box is 0 or above everywhere, a Mexican hat is not
    assert (boxes >= 0).all() and (x0[which[:, 0] == 0].amin((1, 2)) < 0).all()


@pytest.mark.parametrize(
    "families", [[], [Ricker()], [Ricker(), Edges(length=64)], [Ricker(), "Edges"], Ricker(), (Ricker(), None)]
)
def test_what_is_no_mixture_is_refused(families):
    with pytest.raises(ValueError, match="two or more families"):
        Mixture(families)


def test_an_oracle_needs_a_mixture_of_families_that_have_one():
    with pytest.raises(TypeError, match="Mixture"):
        MixtureOracle(Ricker(), HO)
    with pytest.raises(ValueError, match="three"):
        MixtureOracle(Mixture([Ricker(), TwoMorlets()]), HO)


def test_a_mixture_can_be_trained_on_and_judged():
    mixture = Mixture([Ricker(length=L), Chirp(length=L)])
    recipe = Recipe(family=mixture, steps=1)
    assert isinstance(exact_of(recipe), MixtureOracle)
    other = Recipe(family=Mixture([Chirp(length=L), Ricker(length=L)]), steps=1)
    assert recipe.fingerprint() != other.fingerprint()
    with pytest.raises(ValueError, match="box of parameters, which Mixture has not"):
        linear_skip(mixture, conditional=True)
