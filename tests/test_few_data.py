"""The experiment on few data: its sets, its measures against the exact answers, its decay, its dropout, its path."""

import pytest
import torch
from helpers import SHORT, net, noise, rng
from torch import nn

from ddpm_lib import FamilyOracle, Finite, FiniteOracle, fit, loss_over_floor, mean_loss
from ddpm_lib.signals import Reverse
from ddpm_lib.training import Muon
from experiments import data, runner
from experiments.runner import Experiment


def few(**changes):
    """A recipe of few data with a network that trains in no time."""
    return data.Few(**(dict(network=net, steps=9, batch=4, warmup=1, size=20) | changes))


def test_training_sets_are_nested_and_another_seed_draws_another():
    small_set, large_set = (few(size=n).training().signals for n in (20, 50))
    assert torch.equal(small_set, large_set[:20])
    assert not torch.isclose(few(seed=1).training().signals, small_set).all(2).any()
    changed = few(transforms=(Reverse(p=1.0),))
    assert torch.equal(changed.training().signals, small_set) and isinstance(few().family, Finite)
    assert torch.equal(changed.family.sample(5, rng())[0], few().family.sample(5, rng())[0].flip(-1))


def test_the_exact_denoisers_stand_where_they_should():
    """Of the way from the family's answer to the set's the one goes nothing, the other all; the loss follows."""
    recipe = few()
    general, by_heart = FamilyOracle(data.PARENT, recipe.schedule), FiniteOracle(few().family.signals, recipe.schedule)
    found = [data.sides(recipe, denoiser, 40) for denoiser in (general, by_heart)]
    assert found[0]["towards"] == pytest.approx(0, abs=1e-6) and found[1]["towards"] == pytest.approx(1, abs=1e-6)
    assert found[0]["own"] == pytest.approx(found[0]["own: family"], rel=1e-6)
    assert found[1]["own"] == pytest.approx(found[1]["own: by heart"], rel=1e-6)
    assert 0.7 * found[0]["own"] > found[1]["own"] > 0  # of 20 signals
    untrained = data.sides(recipe, few().build(), 40)
    assert untrained["own"] > found[0]["own"]


def test_distances_to_the_nearest_training_signal():
    signals = 3 * noise(6, 1, 16)
    distance, which = data.nearest(signals[[4, 2]] * 1.1, signals)
    assert which.tolist() == [4, 2] and torch.allclose(distance, torch.full((2,), 0.1), atol=1e-5)
    recipe = few()
    of_copies = data.copies(recipe, recipe.training().signals)
    assert of_copies["copies"] == 1 and of_copies["nearest"] < 1e-3
    assert of_copies["copies: real"] < 0.5 and of_copies["nearest: real"] > 0.1
    assert torch.equal(of_copies["samples"], of_copies["their nearest"])


def test_decay_shrinks_every_weight_by_the_same_share():
    def step(kind, decay, gradient):
        network = net(SHORT, 0)
        for k, p in enumerate(network.parameters()):
            nn.init.ones_(p)
            p.grad = gradient * noise(*p.shape, seed=k)
        kind(network, lr=0.1, kernel_lr=0.2, weight_decay=decay).step()
        return [p.detach() for p in network.parameters()]

    assert all(torch.allclose(p, torch.tensor(0.95)) for p in step(data.DecayedMuon, 0.5, 0.0))
    assert not all(torch.allclose(p, torch.tensor(0.95)) for p in step(Muon, 0.5, 0.0))
    same = zip(step(data.DecayedMuon, 0.0, 1.0), step(Muon, 0.0, 1.0), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert isinstance(data.decayed(few().build(), few()), data.DecayedMuon)


def test_dropout_drops_a_share_and_is_its_seed_s():
    layer, again, other = (data.Dropout(0.1, seed) for seed in (0, 0, 1))
    x = torch.ones(40, 50, 60)
    out = layer(x)
    assert abs((out == 0).double().mean() - 0.1) < 0.005 and len(out.unique()) == 2
    assert torch.allclose(out[out > 0], torch.tensor(1 / 0.9))
    assert torch.equal(out, again(x)) and not torch.equal(out, other(x)) and not torch.equal(out, layer(x))
    assert torch.equal(layer.eval()(x), x)
    network = data.dropout(few().family, 0, p=0.0)
    plain = data.linear_skip(few().family, 0)
    x, level = noise(3, 1, 128), torch.zeros(3)
    for k, p in enumerate(zip(network.parameters(), plain.parameters(), strict=True)):
        values = 0.1 * noise(*p[0].shape, seed=k)
        for one in p:
            one.data.copy_(values)
    assert torch.allclose(network(x, level), plain(x, level), atol=1e-5)
    busy = data.dropout(few().family, 0, p=0.5)
    busy.load_state_dict(network.state_dict())
    assert not torch.allclose(busy(x, level), plain(x, level), atol=1e-3)
    assert torch.allclose(busy.eval()(x, level), plain(x, level), atol=1e-5)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_path_is_that_of_the_averaged_weights(ema):
    """What is measured after some steps is what a training that stops there would have returned."""
    recipe = few(ema=ema)
    path = data.Path(recipe, n=32)
    fit(recipe, callbacks=[path])
    stopped = fit(recipe, until=3).denoiser
    own = data.Own(recipe, 32)
    assert path.found["at 0.33: own"] == pytest.approx(mean_loss(stopped, own.x0, own.t, own.eps).value, rel=1e-5)
    x0, t, eps, exact = runner.fresh(data.PARENT, recipe.schedule, 1, 1000, 32)
    assert path.found["at 0.33: fresh"] == pytest.approx(loss_over_floor(stopped, exact, x0, t, eps).value, rel=1e-5)
    assert len(path.found) == 2 * len(data.STOPS) and len(set(path.found.values())) == len(path.found)


def test_what_watches_a_training_fills_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TABLES", tmp_path)
    watch = lambda recipe: data.Path(recipe, n=8)  # noqa: E731
    made = Experiment("table", {"one": few(steps=9)}, range(1), lambda recipe, denoiser: {"value": 1.0}, watch)
    made.fill()
    (row,) = made.rows()
    assert row["value"] == "1" and float(row["at 0.50: own"]) > 0 and float(row["at 0.50: fresh"]) > 1
