"""Recipes: the batch of a step, the learning rate, refusals, and a key that changes with whatever matters."""

import ast
import pickle
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers import HO, SHORT, net, small
from torch import nn

from ddpm_lib import (
    BenchmarkMorlet,
    Eps,
    Finite,
    Morlet,
    V,
    by_linear_error,
    cosine,
    fit,
    fit_gaussian,
    linear,
    linear_skip,
    loss,
    min_snr,
    pretrained,
    report_grid,
    simple,
    stream,
    vlb,
)
from ddpm_lib.diffusion import draw_times
from ddpm_lib.training import recipe as recipe_module
from ddpm_lib.training import shipped_recipe

FAMILY = SHORT
LIBRARY = Path(recipe_module.__file__).parents[1]


def equal(one, other):
    return len(one) == len(other) and all(x is y or torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_the_learning_rate():
    recipe = small(steps=100, warmup=9)
    rates = [recipe.rate(step, recipe) for step in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and rates[9:31] == [1.0] * 22
    assert rates[65] == pytest.approx(0.5) and rates[100] == 0 and min(rates[:100]) > 0
    assert all(b < a for a, b in pairwise(rates[30:]))


def test_a_batch_is_fresh_and_seeded():
    draw = small().draw(net(FAMILY, 0))
    x0, t, eps, weight, cond = draw(3)
    assert cond is None
    assert x0.shape == eps.shape == (8, 1, 64) and t.shape == weight.shape == (8,)
    assert equal(draw(3), small().draw(net(FAMILY, 0))(3)) and (weight == 1).all()
    assert not torch.equal(draw(4)[0], x0) and not torch.equal(draw(4)[2], eps)
    assert not torch.equal(small(seed=1).draw(net(FAMILY, 0))(3)[0], x0)


def test_a_recipe_travels_to_another_process():
    """Where processes are spawned and not forked, a worker gets the recipe pickled."""
    draw = small().draw(net(FAMILY, 0))
    assert equal(pickle.loads(pickle.dumps(draw))(3), draw(3))


def test_times_are_drawn_where_the_linear_denoiser_errs():
    skip = linear_skip(FAMILY, n=500, width=8, dim=16)
    density = by_linear_error(skip, HO)
    assert density.shape == (1000,)
    # the widths of the steps tile the log-SNR from t = ½ to T, so the density is an error per log-SNR
    error = skip.wiener.eps_error(*HO(torch.arange(1, 1001))).flatten()
    assert float((density.square() / error).sum()) == pytest.approx(float(HO.log_snr(0.5) - HO.log_snr(1000)), rel=1e-4)
    assert float(density[4].square() / error[4]) == pytest.approx(float(HO.log_snr(4.5) - HO.log_snr(5.5)), rel=1e-4)
    assert by_linear_error(net(FAMILY, 0), HO) is None
    _, t, _, weight, _ = small(batch=4000).draw(skip)(0)
    assert float(t.float().mean()) < 350 and abs(float(weight.mean()) - 1) < 0.15


def test_the_network_of_the_book():
    skip = linear_skip(report_grid(128), width=8, dim=16)
    mean, _ = fit_gaussian(report_grid(128).signals)
    torch.testing.assert_close(skip.wiener.mean, mean)
    one, other = (linear_skip(FAMILY, seed, n=100, width=8, dim=16) for seed in (0, 1))
    assert not torch.equal(one.wiener.mean, other.wiener.mean)
    one, other = (list(small(seed=3).build().state_dict().values()) for _ in range(2))
    assert equal(one, other)


# --- what the network is told --------------------------------------------------------------------------


def test_half_of_the_signals_are_told_half_of_their_parameters():
    recipe = small(batch=8000, p_conditional=0.6)
    x0, t, eps, weight, cond = recipe.draw(net(FAMILY, 0))(3)
    heard = ~cond.isnan()
    assert abs(float(heard.any(1).double().mean()) - 0.6 * (1 - 0.5**3)) < 0.02
    assert (heard.double().mean(0) - 0.3).abs().max() < 0.02
    params = FAMILY.sample(8000, stream(0, 3, 0))[1]
    assert torch.equal(cond[heard], params[heard]) and torch.equal(FAMILY.render(params), x0)
    assert equal((x0, t, eps, weight), small(batch=8000).draw(net(FAMILY, 0))(3)[:4]), (
        "the rest of the batch is the same"
    )


def test_training_tells_the_network():
    """What stands for the values moves only where values are told; what stands for silence, only where some are not."""
    network = partial(linear_skip, n=500, conditional=True, width=8, blocks=1, dim=16)

    def moved(told):
        recipe = small(network=network, p_conditional=told, weight_decay=0.0)
        before, after = (d.network.network.conditions for d in (recipe.build(), fit(recipe).denoiser))
        return [not torch.equal(getattr(before, k), getattr(after, k)) for k in ("value", "null")]

    assert moved(0.0) == [False, True] and moved(1.0) == [True, True]


def test_the_model_of_the_book_hears():
    """Told the parameters it errs far less than the best denoiser that is not told."""
    model, family = pretrained(), shipped_recipe().family
    x0, params = family.sample(512, stream(9, 0, 0))
    t, eps = torch.full((512,), 300), torch.randn(x0.shape, generator=stream(9, 1, 0))
    told, silent = (float(loss(model, x0, t, eps, cond=c).mean()) for c in (params, None))
    assert told < 0.2 * silent


def test_a_share_and_a_family_are_needed():
    with pytest.raises(ValueError, match="p_conditional of a recipe must be a number from 0 to 1"):
        small(p_conditional=1.5)
    with pytest.raises(ValueError, match="family with a box"):
        linear_skip(report_grid(128), conditional=True)


# --- the weight ---------------------------------------------------------------------------------------


def twice(schedule, t):
    return 2 * simple(schedule, t)


def at_500(schedule, t):
    """Only the term of t = 500 counts."""
    return torch.where(t == 500, schedule.snr(t), 0.0)


def test_the_weight_of_a_recipe_is_the_weight_of_its_loss():
    """The first loss of a run is that of the untrained denoiser on the first batch, weighted; of any density over t."""
    for density in (None, torch.arange(1000, 0, -1.0)):
        recipe = small(steps=1, weight=vlb, density=lambda network, schedule, density=density: density)
        denoiser = recipe.build()
        x0, t, eps, over, _ = recipe.draw(denoiser.network)(0)
        by_hand = (over * vlb(HO, t) / HO.snr(t) * loss(denoiser, x0, t, eps)).mean()
        assert fit(recipe).losses.item() == pytest.approx(by_hand.item(), rel=1e-5)
        assert fit(small(steps=1, density=recipe.density)).losses.item() != pytest.approx(by_hand.item(), rel=0.1)


def test_the_size_of_a_weight_means_nothing_to_the_optimiser():
    """Muon and AdamW divide by the size of the gradient: twice the loss is the same path, while nothing is clipped."""
    one, two = (fit(small(clip=1e6, weight=weight)) for weight in (simple, twice))
    torch.testing.assert_close(two.losses, 2 * one.losses, rtol=1e-3, atol=0)
    clipped, unclipped = (fit(small(clip=clip, weight=twice)).losses for clip in (1e-9, 1e6))
    assert not torch.allclose(clipped, unclipped, rtol=1e-3)


def test_any_density_estimates_the_same_weighted_loss():
    """(1/T)/p(t) in front keeps the mean of the weighted loss, whatever the weight."""
    denoiser, n = small().build(), 20_000
    t, over = draw_times(n, HO, stream(5, 0), 1 / torch.arange(1.0, 1001))
    even = torch.arange(n) % 1000 + 1
    x0, eps = FAMILY.sample(n, stream(5, 1))[0], torch.randn(n, 1, 64, generator=stream(5, 2))
    for weight in (simple, vlb, min_snr):
        weighed = over * loss(denoiser, x0, t, eps, weight)
        mean, error = weighed.mean().item(), weighed.std().item() / n**0.5
        assert abs(mean - loss(denoiser, x0, even, eps, weight).mean().item()) < 4.5 * error


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ("min_snr", "a function of"),
        (None, "a function of"),
        (lambda schedule, t: -schedule.snr(t), "must not be negative"),
        (lambda schedule, t: 0 * schedule.snr(t), "nor 0 at every t"),
        (lambda schedule, t: schedule.snr(t) * torch.nan, "hold NaN"),
        (lambda schedule, t: torch.ones(3), r"must have shape \(1000,\)"),
        (lambda schedule, t: 5.0, "must be a tensor"),
    ],
)
def test_weights_that_are_refused(weight, said):
    with pytest.raises((TypeError, ValueError), match=rf"weight of a recipe .*{said}"):
        small(weight=weight)


# --- recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        dict(steps=0), dict(batch=0), dict(warmup=-1), dict(lr=0.0), dict(lr=-1.0), dict(lr=float("nan")),
        dict(kernel_lr=0.0), dict(clip=0.0), dict(ema=1.0), dict(ema=-0.1), dict(weight_decay=-1.0),
    ],
    ids=str,
)  # fmt: skip
def test_recipes_that_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name} of a recipe must be .*got {value}\.$"):
        small(**wrong)


DIFFERENT = {
    "seed": small(seed=1),
    "steps": small(steps=21),
    "batch": small(batch=9),
    "lr": small(lr=1e-3),
    "kernel_lr": small(kernel_lr=0.01),
    "warmup": small(warmup=4),
    "clip": small(clip=2.0),
    "ema": small(ema=0.9),
    "weight decay": small(weight_decay=0.0),
    "width": small(network=partial(net, width=12)),
    "activation": small(network=lambda family, seed: nn.Sequential(net(family, seed), nn.Tanh())),
    "schedule": small(schedule=cosine()),
    "T": small(schedule=linear(500)),
    "parametrisation": small(parametrisation=V()),
    "family": small(family=Morlet(length=64, frequency=(5.0, 12.0))),
    "box": small(family=BenchmarkMorlet(length=64, b=(-1.0, 2.0))),
    "length": small(family=BenchmarkMorlet(length=68)),
    "what is fixed": small(family=Morlet(length=64, amplitude=1.0, frequency=(5.0, 12.0))),
    "its value": small(family=Morlet(length=64, amplitude=2.0, frequency=(5.0, 12.0))),
    "signals": small(family=Finite(torch.zeros(3, 1, 64))),
    "other signals": small(family=Finite(torch.ones(3, 1, 64))),
    "weight": small(weight=vlb),
    "another weight": small(weight=min_snr),
    "cut elsewhere": small(weight=partial(min_snr, gamma=4.0)),
    "twice the weight": small(weight=twice),
    "a weight that is 0 nearly everywhere": small(weight=at_500),
    "even times": small(density=lambda network, schedule: torch.ones(schedule.T)),
    "early times": small(density=lambda network, schedule: 1 / torch.arange(1.0, schedule.T + 1)),
}


def test_keys_differ_where_recipes_differ():
    keys = {"itself": small().key()} | {name: recipe.key() for name, recipe in DIFFERENT.items()}
    same = {name: key for name, key in keys.items() if list(keys.values()).count(key) > 1}
    assert not same


def test_a_key_is_stable():
    keys = {small().key(), small(family=BenchmarkMorlet(length=64)).key(), small(parametrisation=Eps()).key()}
    torch.manual_seed(9)
    assert keys == {small(schedule=linear()).key()}
    assert len(small().fingerprint()) == 10 and small().key().startswith(small().fingerprint() + "-")


def imported(file, found):
    """The files of the library that this one imports, and those that they import."""
    if file not in found:
        found.add(file)
        for node in ast.walk(ast.parse((LIBRARY / file).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = (LIBRARY / file).parents[node.level - 1].joinpath(*(node.module or "").split("."))
                for path in (folder.with_suffix(".py"), *(folder / f"{alias.name}.py" for alias in node.names)):
                    if path.exists():
                        imported(path.relative_to(LIBRARY), found)
    return found


def test_a_key_sees_every_file_that_trains(tmp_path):
    """What is imported is read from the code: what trains must stand in one of the rooms that the key is made of."""
    names = imported(Path("training/loop.py"), set())
    assert {Path("training/threads.py"), Path("networks/unet.py"), Path("checks.py")} < names
    shutil.copytree(LIBRARY, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    same = recipe_module._code(tmp_path / "code")
    assert small().key().endswith(same)
    for name in sorted(names):
        file = tmp_path / "code" / name
        text = file.read_text("utf-8")
        file.write_text(f"{text}# edited\n", "utf-8")
        assert recipe_module._code(tmp_path / "code") != same, f"an edit of {name} does not change the key"
        file.write_text(text, "utf-8")
    assert recipe_module._code(tmp_path / "code") == same
    shutil.rmtree(tmp_path / "code" / "exact")
    with pytest.raises(FileNotFoundError):
        recipe_module._code(tmp_path / "code")


def test_a_key_sees_the_code(monkeypatch):
    before, recipe = small().key(), small().fingerprint()
    monkeypatch.setattr("ddpm_lib.training.recipe.ROOMS", ("signals",))
    assert small().key() != before and small().fingerprint() == recipe
