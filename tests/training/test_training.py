"""Training: Lightning against the plain loop, resume to the bit, a run that fails, and one that learns."""

from functools import partial

import pytest
import torch
from helpers import HO, SHORT, mean_and_error, net, rng, small
from lightning.pytorch.callbacks import LambdaCallback
from torch import nn
from torch.testing import assert_close

from ddpm_lib import (
    X0,
    BenchmarkMorlet,
    Denoiser,
    FamilyOracle,
    Gaussian,
    Recipe,
    UNet1D,
    device,
    fit,
    fit_gaussian,
    linear_skip,
    loss,
    loss_over_floor,
)
from ddpm_lib.training import LitDDPM, algorithm_1, loop, reference_loop, threads
from ddpm_lib.training.threads import Threads

FAMILY = SHORT
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec.*:")


def weights(denoiser):
    return [v.clone() for v in denoiser.state_dict().values()]


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def whole():
    """A run of 20 steps without a break."""
    return fit(small())


# --- the loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [net, partial(linear_skip, n=500, width=8, blocks=1, dim=16)], ids=["net", "skip"])
def test_lightning_is_the_plain_loop(network):
    """The ten lines that the book shows, with the same recipe: the same losses and weights; then their running mean."""
    recipe, states = small(network=network, ema=0.9), []
    denoiser, losses = reference_loop(recipe)
    keep = LambdaCallback(on_train_batch_end=lambda _, module, *__: states.append(copies(module.denoiser)))
    trained = fit(recipe, callbacks=[keep])
    assert_close(trained.losses, losses, rtol=0, atol=1e-6)
    assert_close(states[-1], copies(denoiser), rtol=1e-4, atol=1e-6)
    average = states[0]
    for step, now in enumerate(states[1:], 1):
        decay = min(recipe.ema, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * p for a, p in zip(average, now, strict=True)]
    assert_close(copies(trained.denoiser), average, rtol=1e-4, atol=1e-6)
    assert not trained.denoiser.training and losses[0] != losses[-1]


def copies(module):
    return [p.detach().clone() for p in module.parameters()]


def test_algorithm_1_is_the_loss():
    """As Ho et al. print it: with the same t and noise it is what `loss` gives, whatever the network predicts."""
    x0 = FAMILY.sample(16, rng(0))[0]
    denoiser = small(network=partial(linear_skip, n=500, width=8, blocks=1, dim=16)).build()
    generator = rng(3)
    t, eps = torch.randint(1, 1001, (16,), generator=generator), torch.randn(x0.shape, generator=generator)
    assert_close(algorithm_1(denoiser, x0, rng(3)), loss(denoiser, x0, t, eps).mean())
    of_x0 = Denoiser(denoiser.network, denoiser.schedule, X0())
    assert_close(algorithm_1(of_x0, x0, rng(3)), loss(of_x0, x0, t, eps, lambda schedule, t: torch.ones(len(t))).mean())


def threads_of(steps, **options):
    """torch's number of threads at each step of a run of small batches."""
    numbers = []
    seen = LambdaCallback(on_train_batch_start=lambda *_: numbers.append(torch.get_num_threads()))
    fit(small(steps=steps), callbacks=[seen], **options)
    return numbers


@pytest.mark.slow
def test_a_run_gives_way_to_other_programs(monkeypatch):
    """As if it had none of its cores: from the 21st step on, and never where the number of threads is said."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert set(threads_of(20)) == {2}
        monkeypatch.setattr(loop, "Threads", partial(Threads, used=lambda: 0.0))
        monkeypatch.setattr(threads, "WINDOW", (20, 0.0))
        assert threads_of(30)[:21] == [2] * 20 + [1]
        assert set(threads_of(30, threads=2)) == {2} and set(threads_of(3, threads=1)) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_run_can_be_repeated_to_the_bit(whole):
    torch.manual_seed(5)  # the global generator has no say
    again = fit(small(), workers=1)
    assert torch.equal(again.losses, whole.losses) and equal(weights(again.denoiser), weights(whole.denoiser))
    other = fit(small(seed=1))
    assert not torch.equal(other.losses, whole.losses)


@pytest.mark.parametrize("stop", [10, 7])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(stop, tmp_path, whole):
    half = fit(small(), tmp_path, until=stop)
    assert torch.equal(half.losses, whole.losses[:stop])
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    rest = fit(small(), tmp_path, resume=True)
    assert torch.equal(rest.losses, whole.losses) and equal(weights(rest.denoiser), weights(whole.denoiser))


def test_resuming_a_finished_run_gives_its_weights(tmp_path, whole):
    fit(small(), tmp_path)
    again = fit(small(), tmp_path, resume=True)
    assert torch.equal(again.losses, whole.losses) and equal(weights(again.denoiser), weights(whole.denoiser))


def test_where_to_compute(monkeypatch):
    monkeypatch.setenv("DDPM_DEVICE", "cuda:1")
    assert device() == "cuda:1"
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    assert device() == "cpu"
    monkeypatch.delenv("DDPM_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device() == "cpu"


def test_the_asked_device_reaches_lightning(monkeypatch):
    seen = {}

    class Trainer:
        global_step, world_size = 0, 1

        def __init__(self, **settings):
            seen.update(settings)

        def fit(self, module, *args, **options):
            module.losses.append(0.0)

    monkeypatch.setattr("lightning.Trainer", Trainer)
    for asked, accelerator, devices in [("cpu", "cpu", 1), ("cuda:3", "gpu", [3]), ("cuda", "gpu", 1)]:
        monkeypatch.setenv("DDPM_DEVICE", asked)
        fit(small())
        assert (seen["accelerator"], seen["devices"]) == (accelerator, devices)
    fit(small(), devices=2)
    assert seen["devices"] == 2 and seen["max_steps"] == 20 and seen["gradient_clip_val"] == 1.0


# --- runs that fail -----------------------------------------------------------------------------------


class Breaks(nn.Module):
    """A network that says NaN for the sixth signal from its fourteenth call on."""

    def __init__(self):
        super().__init__()
        self.inside, self.calls = net(FAMILY, 0), 0

    def forward(self, x, log_snr, cond):
        self.calls += 1
        out = self.inside(x, log_snr, cond)
        return out if self.calls < 14 else out.index_fill(0, torch.tensor([5]), torch.nan)


def test_nan_in_the_loss_names_its_place_and_the_last_checkpoint_stays(tmp_path):
    recipe = small(network=lambda family, seed: Breaks())
    t = int(recipe.draw(recipe.build().network)(13)[1][5])
    with pytest.raises(FloatingPointError, match=rf"nan at step 13: signal 5 of the batch, at t = {t}\..*checkpoint"):
        fit(recipe, tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 12 and len(checkpoint["losses"]) == 12
    assert all(v.isfinite().all() for v in checkpoint["state_dict"].values())
    mended = fit(small(network=lambda family, seed: Breaks()), tmp_path, resume=True, until=13)
    assert len(mended.losses) == 13


class Poison(torch.autograd.Function):
    """The identity, with a gradient of NaN where it is told so."""

    @staticmethod
    def forward(ctx, x, poisoned):
        ctx.poisoned = poisoned
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan if ctx.poisoned else gradient, None


class Poisoned(Breaks):
    def forward(self, x, log_snr, cond):
        self.calls += 1
        return Poison.apply(self.inside(x, log_snr, cond), self.calls == 12)


def test_nan_in_a_gradient_does_not_reach_the_checkpoint(tmp_path):
    """The loss of step 12 is finite and its weights are not: a checkpoint is due just then."""
    with pytest.raises(FloatingPointError, match="checkpoint"):
        fit(small(network=lambda family, seed: Poisoned()), tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(v.isfinite().all() for v in checkpoint["state_dict"].values()) and checkpoint["global_step"] == 10


class Holed(BenchmarkMorlet):
    """A family whose third signal of the eighth batch holds a NaN."""

    batch = 0

    def sample(self, n, generator=None):
        x0, params = super().sample(n, generator)
        if n == 8:  # a batch
            x0[2, 0, 7] = torch.nan if self.batch == 7 else x0[2, 0, 7]
            self.batch += 1
        return x0, params

    def identity(self):
        return "a family with a hole"


def test_nan_in_a_signal_names_its_place():
    with pytest.raises((FloatingPointError, ValueError), match="step 7: signal 2 of the batch"):
        fit(small(family=Holed(length=64)))


def test_an_infinite_loss_is_told_too():
    with pytest.raises(FloatingPointError, match=r"at step [1-9]: signal \d+ of the batch, at t = \d+"):
        fit(small(lr=1e30, kernel_lr=1e30, warmup=0))


def test_nothing_to_resume(tmp_path):
    for folder in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="nothing to resume: no checkpoint"):
            fit(small(), folder, resume=True)
    assert not list(tmp_path.iterdir())


def checkpoint_of(tmp_path):
    fit(small(), tmp_path, until=4)
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize("damage", ["half", "tenth", "one byte short", "empty", "garbage", "of another library"])
def test_damaged_checkpoints_are_refused_and_left_alone(tmp_path, damage):
    last = checkpoint_of(tmp_path)
    whole = last.read_bytes()
    if damage == "of another library":
        torch.save({"model": torch.zeros(3)}, last)
    else:
        cut = {"half": len(whole) // 2, "tenth": len(whole) // 10, "one byte short": -1, "empty": 0}
        last.write_bytes(b"not a checkpoint " * 99 if damage == "garbage" else whole[: cut[damage]])
    damaged = last.read_bytes()
    with pytest.raises(ValueError, match=r"last\.ckpt is not a complete checkpoint of this recipe") as caught:
        fit(small(), tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert last.read_bytes() == damaged and len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    last = checkpoint_of(tmp_path)
    before = last.read_bytes()
    for other in (partial(net, width=6), lambda family, seed: UNet1D(width=8, levels=1, blocks=1, kernel=3, dim=16)):
        with pytest.raises(ValueError, match=r"last\.ckpt is not a complete checkpoint of this recipe"):
            fit(small(network=other), tmp_path, resume=True)
    with pytest.raises(ValueError, match="recipe"):
        fit(small(seed=1), tmp_path, resume=True)
    assert last.read_bytes() == before


def test_the_training_step_is_an_unbiased_mean():
    """With any density over t the weighted loss estimates L_simple with uniform t."""
    denoiser = small().build()
    module = LitDDPM(denoiser, small())
    values = {}
    for name, density in {"even": None, "early": 1 / (100.0 + torch.arange(1, 1001))}.items():
        recipe = small(batch=64, density=lambda network, schedule, density=density: density)
        draw = recipe.draw(denoiser.network)
        with torch.no_grad():
            values[name] = torch.stack([module.training_step(draw(step), step) for step in range(150)])
    (even, a), (early, b) = (mean_and_error(v) for v in values.values())
    assert abs(even - early) < 4.5 * (a**2 + b**2) ** 0.5
    assert abs(even - 1) < 4.5 * a  # an untrained network says ε̂ = 0


# --- learning -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_short_training_beats_the_linear_denoiser():
    """On fresh signals, paired; the linear denoiser stands at 3.2 times the floor and this at about 2."""
    family = BenchmarkMorlet()
    network = partial(linear_skip, n=20_000, width=24, blocks=1, dim=32)
    trained = fit(Recipe(family=family, network=network, steps=300, batch=32, warmup=10, ema=0.98))
    t = torch.arange(1, 1001, 2)
    x0, _ = family.sample(len(t), rng(1))
    eps = torch.randn(x0.shape, generator=rng(2))
    wiener = Gaussian(*fit_gaussian(family.sample(20_000, rng())[0]), HO)
    exact = FamilyOracle(family, HO)
    with torch.no_grad():
        gain, error = mean_and_error(loss(wiener, x0, t, eps) - 1.3 * loss(trained.denoiser, x0, t, eps))
    assert gain > 3 * error
    ours, linear_one = (loss_over_floor(d, exact, x0, t, eps) for d in (trained.denoiser, wiener))
    assert ours.value + ours.margin < linear_one.value - linear_one.margin
    assert 1 < ours.value < 2.5 and trained.losses[-50:].mean() < trained.losses[:50].mean()
