"""Augmentation: which change keeps the law of the family, exactly, and which does not."""

import math

import pytest
import torch
from helpers import mean_and_error, noise, rng

from ddpm_lib import BenchmarkMorlet, Finite, Morlet, Recipe, fit_family, linear_skip, stream
from ddpm_lib.measures import parameter_distances
from ddpm_lib.signals import Augmented, Negate, Reverse, Scale, Shift
from ddpm_lib.signals.augmentation import ALL

FAMILY = BenchmarkMorlet()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_change_keeps_shape_and_type_and_is_the_generator_s(kind):
    for x0 in (noise(5, 1, 12), noise(5, 2, 7).double()):
        one, same, other = (kind()(x0, rng(seed)) for seed in (1, 1, 2))
        assert one.shape == x0.shape and one.dtype == x0.dtype
        assert torch.equal(one, same) and not torch.equal(one, other)
        assert torch.equal(x0, x0.clone())


def test_a_reversed_wavelet_is_that_of_the_other_shift():
    """ψ is even in u = (x - b)/s, and the grid lies evenly around 0: x → -x is b → -b, and b is as often either."""
    x0, params = FAMILY.sample(50, rng(0))
    mirrored = FAMILY.render(params * torch.tensor([-1.0, 1.0, 1.0]))
    assert (Reverse(p=1.0)(x0) - mirrored).abs().max() < 1e-5
    assert torch.equal(FAMILY.low[:1], -FAMILY.high[:1])


def test_reversal_does_not_keep_every_law():
    """A family whose wavelets have a phase is not even: the same change makes signals that it does not hold."""
    leaning = Morlet(amplitude=1.0, frequency=(5.0, 8.0), width=(0.1, 0.2), shift=0.0, phase=1.0)
    x0, _ = leaning.sample(40, rng(1))
    assert fit_family(x0, leaning).valid.all() and not fit_family(Reverse(p=1.0)(x0), leaning).valid.any()


def test_a_shift_moves_the_wavelet_and_its_law():
    """Where nothing reaches the ends of the grid, a shift by k samples is b → b + k·Δ."""
    narrow = BenchmarkMorlet(s=(0.4, 0.45), b=(-1.0, 1.0))
    x0, params = narrow.sample(400, rng(2))
    moved = Shift(8)(x0, rng(3))
    step = narrow.x[1] - narrow.x[0]
    candidates = torch.stack([narrow.render(params + torch.tensor([k * step, 0, 0])) for k in range(-8, 9)])
    apart = (candidates - moved).abs().amax((2, 3))
    assert apart.min(0).values.max() < 1e-5
    counts = apart.argmin(0).bincount(minlength=17)
    assert ((counts - 400 / 17).square() / (400 / 17)).sum() < 39  # χ² with 16 degrees: above 39 once in a thousand
    # the whole family: those that were pushed over the edge of the box, E|k|Δ/4 of them, are no longer valid
    many, _ = FAMILY.sample(1000, rng(4))
    invalid = 1 - fit_family(Shift(8)(many, rng(5)), FAMILY).valid.double().mean().item()
    over = float(torch.arange(-8, 9).abs().double().mean() * step / 4)
    assert 0.3 * over < invalid < 1.5 * over and over > 0.03  # 2 % of the box on each side are forgiven


def test_a_negative_and_a_scaled_wavelet_are_none_of_the_family():
    x0, _ = FAMILY.sample(40, rng(6))
    assert not fit_family(Negate(p=1.0)(x0), FAMILY).valid.any()
    louder = fit_family(Scale(1.2, 1.3)(x0, rng(7)), FAMILY)
    assert not louder.valid.any() and 0.15 < louder.residual.min() < louder.residual.max() < 0.3


@pytest.mark.slow
def test_only_what_keeps_the_law_keeps_it():
    """Shares and laws of all four, at the defaults."""
    x0, _ = FAMILY.sample(400, rng(8))
    valid = {}
    for kind in ALL:
        fits = fit_family(kind()(x0, rng(9)), FAMILY)
        valid[kind] = fits.valid.double().mean().item()
        if kind is Reverse:
            assert all(law.value < law.floor for law in parameter_distances(fits, FAMILY).values())
    assert valid[Reverse] == 1.0
    assert valid[Shift] < 0.99 and valid[Scale] < 0.5 and abs(valid[Negate] - 0.5) < 0.06


@pytest.mark.parametrize(("kind", "changed"), [(Reverse, lambda x: x.flip(-1)), (Negate, lambda x: -x)])
def test_the_share_that_is_changed(kind, changed):
    x0 = noise(4000, 1, 3)
    hits = (kind(p=0.3)(x0, rng(10)) == changed(x0)).all(2)
    mean, error = mean_and_error(hits)
    assert abs(mean - 0.3) < 4.5 * error
    assert torch.equal(kind(p=0.0)(x0, rng(10)), x0) and torch.equal(kind(p=1.0)(x0, rng(10)), changed(x0))


def test_amplitudes_are_uniform():
    a = Scale(-1.0, 3.0)(torch.ones(5000, 1, 2), rng(11))
    assert torch.equal(a[..., 0], a[..., 1])
    mean, error = mean_and_error(a[:, 0, 0])
    assert abs(mean - 1) < 4.5 * error and abs(a.std().item() - 4 / math.sqrt(12)) < 0.05
    assert a.min() >= -1 and a.max() <= 3


def test_an_augmented_source_changes_what_it_draws():
    training = Finite(FAMILY.sample(20, rng(12))[0])
    both = Augmented(training, Reverse(p=1.0), Negate(p=1.0))
    x0, params = both.sample(50, rng(13))
    raw, index = training.sample(50, rng(13))
    assert torch.equal(x0, -raw.flip(-1)) and torch.equal(params, index)
    assert both.length == 128 and both.names == ("index",)
    random = Augmented(training, Shift(3), Scale())
    assert torch.equal(random.sample(9, rng(14))[0], random.sample(9, rng(14))[0])


def test_a_recipe_of_changed_signals():
    """Batches are those of the seed; fingerprint and linear denoiser change with the transforms."""
    training = Finite(FAMILY.sample(20, rng(15))[0])
    sources = [training, Augmented(training, Reverse()), Augmented(training, Shift(2)), Augmented(training, Shift(3))]
    recipes = [Recipe(family=source, steps=2, batch=4) for source in sources]
    assert len({recipe.fingerprint() for recipe in recipes}) == len(recipes)
    network = linear_skip(sources[1])
    assert linear_skip(sources[0]).wiener.power.numel() < network.wiener.power.numel() <= 40  # 20 signals, reversed: 40
    one, two = (recipes[1].draw(network)(1) for _ in range(2))
    assert one.cond is two.cond is None
    assert all(torch.equal(a, b) for a, b in zip(one[:-1], two[:-1], strict=True))
    drawn, _ = sources[1].sample(4, stream(0, 1, 0))
    assert torch.equal(one.x0, drawn)


def test_what_cannot_be_is_told():
    training = Finite(noise(4, 1, 8))
    for wrong, message in (
        (lambda: Augmented(training), "at least one transform"),
        (lambda: Augmented(training, 3), "A transform is a function"),
        (lambda: Augmented(training, lambda x0, generator: x0[..., 1:]).sample(2), "shape .* 7"),
        (lambda: Reverse(p=1.5), "share of signals"),
        (lambda: Negate(p=math.nan), "share of signals"),
        (lambda: Scale(1.2, 0.8), "low < high"),
        (lambda: Shift(-1), "integer"),
        (lambda: linear_skip(Augmented(FAMILY, Reverse()), conditional=True), "conditional network .* Augmented"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            wrong()
