"""The scoreboard on signals whose quality is known: real ones, spoiled ones, noise, copies."""

import math

import numpy as np
import pytest
import torch
from helpers import mean_and_error, noise, rng
from scipy import stats

from ddpm_lib import BenchmarkMorlet, energy_distance, ks_uniform, memorised, sample_quality
from ddpm_lib.measures import Quality

FAMILY = BenchmarkMorlet()


@pytest.fixture(scope="module")
def real():
    return FAMILY.sample(1024, rng(11))[0]


def caught(scores):
    """Names of the figures that stand apart from real data: outside their own interval and beyond the floor."""
    worse = {name for name, (value, margin, floor) in scores.rows.items() if name != "valid" and value - margin > floor}
    return worse | ({"valid"} if scores["valid"].value + scores["valid"].margin < 1 else set())


@pytest.mark.slow
def test_real_signals_pass(real):
    scores = sample_quality(real, FAMILY, generator=rng(1))
    assert scores["valid"].value == 1.0 and caught(scores) == set()
    assert scores["residual, 90 %"].value < 1e-4


@pytest.mark.slow
def test_one_percent_of_noise_is_still_valid(real):
    spoiled = real + 0.01 * real.square().mean((1, 2), keepdim=True).sqrt() * noise(*real.shape)
    scores = sample_quality(spoiled, FAMILY, generator=rng(1))
    assert scores["valid"].value == 1.0
    assert scores["residual, median"].value == pytest.approx(0.01, rel=0.05)
    assert caught(scores) == {"residual, median", "residual, 90 %"}


@pytest.mark.slow
def test_pure_noise_fails_everything(real):
    scores = sample_quality(0.277 * noise(*real.shape), FAMILY, generator=rng(1))
    assert scores["valid"].value == 0.0 and caught(scores) == set(scores.rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("box", "law"),
    [(dict(b=(-1.8, 2.2)), "b"), (dict(s=(0.43, 1.03)), "s"), (dict(w=(4.15, 7.15)), "w"), (dict(w=(4.0, 6.85)), "w")],
)
def test_a_family_that_is_shifted_by_five_percent_is_caught(box, law):
    x, _ = BenchmarkMorlet(**box).sample(2048, rng(3))
    scores = sample_quality(x, FAMILY, generator=rng(1))
    assert scores[f"law of {law}"].value > scores[f"law of {law}"].floor
    assert not any(f"law of {other}" in caught(scores) for other in set("bsw") - {law})


def test_a_narrow_law_is_caught_even_where_every_signal_is_perfect():
    x, _ = BenchmarkMorlet(b=(-1.0, 1.0)).sample(512, rng(3))
    scores = sample_quality(x, FAMILY, generator=rng(1))
    assert scores["valid"].value == 1.0 and caught(scores) == {"law of b", "distance"}


def test_copies_are_caught(real):
    copies = real[:200][torch.randint(200, (512,), generator=rng(2))] + 0.002 * noise(512, 1, 128)
    scores = sample_quality(copies, FAMILY, training=real[:200], generator=rng(1))
    assert scores["memorised"].value > 0.99 and scores["memorised"].floor < 0.15
    assert "memorised" in caught(scores)


def test_copies_are_three_times_nearer_to_one_than_to_the_next():
    training = torch.tensor([0.0, 1.0, 5.0])[:, None, None]
    x = torch.tensor([0.2, 0.3, -0.4, 4.1, 3.9])[:, None, None]  # ratios 1/4, 3/7, 2/7, 0.9/3.1, 1.1/2.9
    near = torch.cdist(x.flatten(1), training.flatten(1)).topk(2, largest=False).values
    expected = float((near[:, 0] < near[:, 1] / 3).double().mean())
    assert memorised(x, training).value == expected == 3 / 5


def test_ks_against_scipy_and_its_critical_value():
    u = torch.rand(300, generator=rng())
    found = ks_uniform(u)
    assert found.value == pytest.approx(stats.kstest(u.double().numpy(), "uniform").statistic)
    below = [ks_uniform(torch.rand(300, generator=rng(seed))) for seed in range(1, 1001)]
    share = np.mean([score.value < score.floor for score in below])
    assert 0.93 < share < 0.97
    assert found.floor == pytest.approx(1.358 / math.sqrt(300), rel=0.01)


def test_the_interval_of_ks_covers():
    truth = max(v ** (2 / 3) - v for v in np.linspace(0, 1, 10001))  # of u^1.5
    found = [ks_uniform(torch.rand(400, generator=rng(seed)) ** 1.5) for seed in range(400)]
    assert 0.88 < np.mean([abs(score.value - truth) < score.margin for score in found]) < 0.99


def test_energy_distance_is_the_double_sum():
    x, y = noise(7, 1, 3), 0.5 + noise(5, 1, 3, seed=1)
    found, _ = energy_distance(x, y, permutations=3, generator=rng())

    def mean_distance(a, b, same):
        d = [float((p - q).norm()) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return sum(d) / len(d)

    expected = 2 * mean_distance(x, y, False) - mean_distance(x, x, True) - mean_distance(y, y, True)
    assert found.value == pytest.approx(expected, rel=1e-5)


def pairs(n, gap, times):
    """Two sets of n normal numbers, `gap` apart, many times over."""
    return [(noise(n, 1, 1, seed=2 * k), gap + noise(n, 1, 1, seed=2 * k + 1)) for k in range(times)]


def test_energy_distance_of_equal_laws_and_its_floor():
    found = [energy_distance(x, y, 100, rng(k)) for k, (x, y) in enumerate(pairs(60, 0, 200))]
    mean, error = mean_and_error(torch.tensor([distance.value for distance, _ in found]))
    assert abs(mean) < 4 * error  # no bias
    assert 0.90 < np.mean([distance.value < floor for distance, floor in found]) < 0.99


def test_energy_distance_in_closed_form_and_its_interval():
    """Normal numbers one apart: E|x-y| is the mean of a folded normal law."""

    def folded(mean, var):
        return math.sqrt(2 * var / math.pi) * math.exp(-(mean**2) / (2 * var)) + mean * math.erf(
            mean / math.sqrt(2 * var)
        )

    truth = 2 * folded(1, 2) - 2 * folded(0, 2)
    found = [energy_distance(x, y, 2, rng())[0] for x, y in pairs(150, 1, 300)]
    assert 0.90 < np.mean([abs(distance.value - truth) < distance.margin for distance in found]) < 0.98


def test_a_table_is_printed(real):
    text = str(sample_quality(real[:50], FAMILY, generator=rng(1)))
    assert text.splitlines()[0].startswith("valid") and text.count("real") == len(text.splitlines()) == 7
    assert str(Quality(0.5, 0.01, 0.03)) == "0.5000 ± 0.0100   real 0.0300"


def test_what_is_refused(real):
    with pytest.raises(ValueError, match="at least 20 signals, got 19"):
        sample_quality(real[:19], FAMILY)
    with pytest.raises(ValueError, match="x must be finite"):
        sample_quality(torch.full((20, 1, 128), math.nan), FAMILY)
    with pytest.raises(ValueError, match=r"y must have shape \(1024, 1, 128\).* got \(1024, 1, 100\)"):
        energy_distance(real, real[..., :100])
    with pytest.raises(ValueError, match="at least 2"):
        memorised(real, real[:1])
    with pytest.raises(ValueError, match=r"x must have shape \(n, C, L\)"):
        memorised(real[:, 0], real[:, 0])
    with pytest.raises(ValueError, match=r"x must have shape \(n, 1, 128\).* got \(1024, 1, 100\)"):
        sample_quality(real[..., :100], FAMILY)
    for u in (torch.zeros(0), torch.zeros(3, 2), torch.tensor([0.1, math.nan])):
        with pytest.raises(
            ValueError, match=r"^What Kolmogorov and Smirnov's distance is of must (be finite|have shape \(n,\))"
        ):
            ks_uniform(u)
