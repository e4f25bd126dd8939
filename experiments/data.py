"""Few data: sets of 60 to 10 000 signals, and what augmentation and regularisation do with 250 of them.

Another seed draws another training set, too: an interval over seeds says what holds of sets of this size, not of one
set. The sets are nested, so that the 250 signals of a seed are among its 1 000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ddpm_lib import (
    BenchmarkMorlet,
    Block,
    Denoiser,
    FamilyOracle,
    Finite,
    FiniteOracle,
    LinearSkip,
    Recipe,
    linear_skip,
    loss_over_floor,
    memorised,
    q_sample,
    sample,
    stream,
)
from ddpm_lib.measures import predicted_noise
from ddpm_lib.signals import Augmented, Negate, Reverse, Scale, Shift
from ddpm_lib.training import Muon

from .claims import Claim
from .runner import SAMPLES, TEST, Experiment, fresh, judged, losses

PARENT = BenchmarkMorlet()
SETS = 70_003  # the random stream of the training sets
STOPS = (1 / 9, 2 / 9, 1 / 3, 1 / 2, 2 / 3, 5 / 6)  # shares of a training after which its path is measured


@dataclass(frozen=True)
class Few(Recipe):
    """A recipe whose data are `size` signals of the benchmark family, drawn by its own seed, then changed."""

    steps: int = 600
    size: int = 250
    transforms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        training = self.training()
        object.__setattr__(self, "family", Augmented(training, *self.transforms) if self.transforms else training)

    def training(self) -> Finite:
        """The training set, unchanged."""
        return Finite.drawn(PARENT, self.size, SETS, self.seed)


def decayed(denoiser: nn.Module, recipe: Recipe) -> Muon:
    """Weight decay for every weight: the kernels shrink, too, by as much per step as the others do."""
    return DecayedMuon(denoiser, recipe.lr, recipe.kernel_lr, weight_decay=recipe.weight_decay)


class DecayedMuon(Muon):
    """`Muon` with decay of the kernels: both rates follow one learning rate, so both parts shrink by the same share."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        value = None if closure is None else torch.enable_grad()(closure)()
        others, kernels = self.param_groups
        torch._foreach_mul_(kernels["params"], 1 - others["lr"] * others["weight_decay"])
        super().step()
        return value


class Dropout(nn.Module):
    """In training, sets a share p of the numbers to 0 and raises the rest by 1/(1-p), by its own seed."""

    def __init__(self, p: float, seed: int):
        super().__init__()
        self.p, self.seed, self.calls = p, seed, 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        self.calls += 1
        return x * (torch.rand(x.shape, generator=stream(self.seed, self.calls)) >= self.p) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def dropout(family: Any, seed: int, p: float = 0.1) -> LinearSkip:
    """The network of the book with dropout in every block, before its last convolution, as in Ho et al. 2020."""
    network = linear_skip(family, seed)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    for k, block in enumerate(blocks):
        block.mix = nn.Sequential(Dropout(p, seed + 1000 * k), block.mix)  # type: ignore[assignment]
    return network


# --- what is measured -------------------------------------------------------------------------------


class Own:
    """Noisy versions of the training signals, and what the two exact denoisers say of them."""

    def __init__(self, recipe: Few, n: int):
        generator = stream(TEST, recipe.seed, recipe.size)
        signals = recipe.training().signals
        # every signal as often as the others: with few signals chance would weigh them unevenly
        self.x0 = signals.repeat(-(-n // len(signals)), 1, 1)[:n]
        self.t = torch.randint(1, recipe.schedule.T + 1, (n,), generator=generator)
        self.eps = torch.randn(self.x0.shape, generator=generator)
        self.xt = q_sample(self.x0, self.t, self.eps, recipe.schedule)

    def loss(self, eps: Tensor) -> float:
        return float((self.eps - eps).square().mean())


def sides(recipe: Few, denoiser: Denoiser, n: int = 1024) -> dict[str, float]:
    """The loss on its own signals beside both optima, and how far it went from the family's answer to the set's.

    `towards` is the coefficient of ε̂ - ε_family on ε_set - ε_family, over noisy versions of the training signals: 0 for
    the denoiser of the family, 1 for that of the set.
    """
    own = Own(recipe, n)
    said = predicted_noise(denoiser, own.xt, own.t)
    by_heart = predicted_noise(FiniteOracle(recipe.training().signals, recipe.schedule), own.xt, own.t)
    general = predicted_noise(FamilyOracle(PARENT, recipe.schedule), own.xt, own.t)
    apart = by_heart - general
    return {
        "own": own.loss(said),
        "own: by heart": own.loss(by_heart),
        "own: family": own.loss(general),
        "towards": float(((said - general) * apart).sum() / apart.square().sum()),
    }


def learned_by_heart(recipe: Few) -> float:
    """Loss over floor on fresh signals of the exact denoiser of the training set."""
    x0, t, eps, exact = fresh(PARENT, recipe.schedule, 1, recipe.schedule.T, 4096)
    return loss_over_floor(FiniteOracle(recipe.training().signals, recipe.schedule), exact, x0, t, eps).value


def nearest(x: Tensor, signals: Tensor) -> tuple[Tensor, Tensor]:
    """For each of x its distance to the nearest of the signals, over the norm of that one, and which it is."""
    distance, which = torch.cdist(x.flatten(1), signals.flatten(1)).min(1)
    return distance / signals[which].flatten(1).norm(dim=1), which


def copies(recipe: Few, x: Tensor) -> dict[str, Any]:
    """How near samples come to the training signals, and how near as many fresh signals of the family do."""
    signals = recipe.training().signals
    real, _ = PARENT.sample(len(x), torch.Generator().manual_seed(SAMPLES))
    distance, which = nearest(x, signals)
    share = memorised(x, signals)
    return {
        "copies": share.value,
        "copies: margin": share.margin,
        "copies: real": memorised(real, signals).value,
        "nearest": float(distance.median()),
        "nearest: real": float(nearest(real, signals)[0].median()),
        "samples": x[:6, 0],
        "their nearest": signals[which[:6], 0],
    }


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor on fresh signals, loss on its own ones, samples, copies among them."""
    found: dict[str, Any] = losses(Recipe(family=PARENT, schedule=recipe.schedule), denoiser)
    *_, x = sample(denoiser, (1024, 1, PARENT.length), generator=stream(SAMPLES, recipe.seed, 0))
    found |= judged(x, PARENT)
    if isinstance(recipe, Few):
        found |= {"by heart": learned_by_heart(recipe)} | sides(recipe, denoiser) | copies(recipe, x)
    return found


class Path(Callback):
    """The loss on its own and on fresh signals along the training, of the averaged weights."""

    def __init__(self, recipe: Recipe, n: int = 1024):
        self.recipe, self.n = recipe, n
        self.own = Own(recipe, n) if isinstance(recipe, Few) else None
        self.stops = {max(1, round(share * recipe.steps)): share for share in STOPS}
        self.found: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        share = self.stops.get(trainer.global_step)
        if share is None:
            return
        denoiser = module.average.eval()
        x0, t, eps, exact = fresh(PARENT, self.recipe.schedule, 1, self.recipe.schedule.T, self.n)
        self.found[f"at {share:.2f}: fresh"] = loss_over_floor(denoiser, exact, x0, t, eps).value
        if self.own is not None:
            said = predicted_noise(denoiser, self.own.xt, self.own.t)
            self.found[f"at {share:.2f}: own"] = self.own.loss(said)


DEFAULT = Few()
EXPERIMENT = Experiment(
    name="data",
    recipes={
        "60": replace(DEFAULT, size=60),
        "250": DEFAULT,
        "1 000": replace(DEFAULT, size=1000),
        "10 000": replace(DEFAULT, size=10_000),
        "unlimited": Recipe(steps=600),
        "250, reversal": replace(DEFAULT, transforms=(Reverse(),)),
        "250, shift": replace(DEFAULT, transforms=(Shift(8),)),
        "250, reversal and shift": replace(DEFAULT, transforms=(Reverse(), Shift(8))),
        "250, amplitude": replace(DEFAULT, transforms=(Scale(0.8, 1.2),)),
        "250, sign": replace(DEFAULT, transforms=(Negate(),)),
        "250, weight decay": replace(DEFAULT, weight_decay=1.0, optimiser=decayed),
        "250, dropout": replace(DEFAULT, network=dropout),
        "250, no running mean": replace(DEFAULT, ema=0.0),
        "250, running mean 0.98": replace(DEFAULT, ema=0.98),
        "250, running mean 0.999": replace(DEFAULT, ema=0.999),
        "250, 60 steps": replace(DEFAULT, steps=60),
        "250, a third of the steps": replace(DEFAULT, steps=200),
        "250, three times the steps": replace(DEFAULT, steps=1800),
    },
    seeds=range(3),
    measure=measure,
    watch=Path,
)

CHAPTER = "few_data"
THRICE = "250, three times the steps"
CLAIMS = (
    Claim("With 250 signals the loss on fresh ones is far lower", "loss", "60", "250", by=1.0),
    Claim("A thousand signals are better than 250", "loss", "250", "1 000"),
    Claim("ten thousand signals are as good as unlimited data", "loss", "10 000", "unlimited", same=True),
    Claim("Only a few samples more are valid after training on unlimited data", "valid", "unlimited", "60"),
    Claim("a third of the steps is worse", "loss", "250, a third of the steps", "250"),
    Claim("three times the steps lower the loss on fresh signals", "loss", "250", THRICE),
    Claim("bring by far more valid samples", "valid", THRICE, "250", by=0.1),
    Claim("Reversal lowers the loss on fresh signals", "loss", "250", "250, reversal"),
    Claim("So does the shift", "loss", "250", "250, shift"),
    Claim("A changed amplitude costs fifty points of validity", "valid", "250", "250, amplitude", by=0.3),
    Claim("a changed sign costs more", "valid", "250, amplitude", "250, sign"),
    Claim("Dropout raises the loss", "loss", "250, dropout", "250"),
    Claim("costs nearly fifty points of validity", "valid", "250", "250, dropout", by=0.3),
    Claim("Weight decay changes nothing that can be seen", "loss", "250", "250, weight decay", same=True),
    Claim("whether the running mean is there", "loss", "250", "250, no running mean", same=True),
    Claim("with which decay", "loss", "250", "250, running mean 0.98", same=True),
    Claim("with which decay", "loss", "250", "250, running mean 0.999", same=True),
)
