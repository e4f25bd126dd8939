"""Training with Lightning: a recipe, the training step, checkpoints and resume (chapter 9)."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from torch import Tensor, nn

from .data import batches, stream
from .diffusion import Denoiser, Eps, Parametrisation, draw_times, loss
from .networks import LinearSkip, UNet1D
from .optim import Muon
from .oracle import Wiener, fit_gaussian
from .schedules import Schedule, linear
from .signals import BenchmarkMorlet, Family, Finite

__all__ = ["Fit", "LitDDPM", "Recipe", "by_linear_error", "device", "fit", "linear_skip"]

BATCHES, COVARIANCE = 0, 1  # purposes of the random streams of one seed


def linear_skip(family: Family | Finite, seed: int = 0, n: int = 50_000, **sizes: int) -> LinearSkip:
    """The network of the book: a `UNet1D` around the linear denoiser, whose covariance comes from n signals.

    Args:
        family: draws the signals.
        seed: of these draws.
        sizes: width, levels, … of the `UNet1D`.
    """
    x0 = family.signals if isinstance(family, Finite) else family.sample(n, stream(seed, 0, COVARIANCE))[0]
    channels = x0.shape[1]
    return LinearSkip(UNet1D(2 * channels, channels, **sizes), Wiener(*fit_gaussian(x0)))


def by_linear_error(network: nn.Module, schedule: Schedule) -> Tensor | None:
    """How often to draw each t: in proportion to the linear denoiser's error there; None without a `LinearSkip`."""
    if not isinstance(network, LinearSkip):
        return None
    return network.wiener.eps_error(*schedule(torch.arange(1, schedule.T + 1))).sqrt().flatten()


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on. The same recipe on the same machine gives the same weights.

    Args:
        family: what to draw signals from, afresh at every step.
        schedule: the noise schedule.
        network: (family, seed) → network; `linear_skip` or any function of the two.
        parametrisation: what the network's output means.
        density: (network, schedule) → how often each t is drawn, or None for uniform t.
        steps: optimiser steps; the learning rate warms up, stays, and falls to 0 over the last 70 %.
        batch: signals a step, over all processes.
        lr, kernel_lr, weight_decay: of `Muon`; both rates follow `learning_rate`.
        warmup: steps over which the rates climb.
        clip: greatest norm of the gradient.
        ema: decay of the running mean of the weights, which is what is sampled from.
        seed: of the weights and of every batch.
    """

    family: Family | Finite = field(default_factory=BenchmarkMorlet)
    schedule: Schedule = field(default_factory=linear)
    network: Callable[[Any, int], nn.Module] = linear_skip
    parametrisation: Parametrisation = field(default_factory=Eps)
    density: Callable[[nn.Module, Schedule], Tensor | None] = by_linear_error
    steps: int = 4000
    batch: int = 64
    lr: float = 2e-3
    kernel_lr: float = 0.02
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.warmup < 0:
            raise ValueError(
                f"A recipe needs steps >= 1, batch >= 1 and warmup >= 0, got {self.steps}, {self.batch}, {self.warmup}."
            )
        if not (self.lr > 0 and self.kernel_lr > 0 and self.clip > 0 and 0 <= self.ema < 1 and self.weight_decay >= 0):
            raise ValueError(
                "A recipe needs lr > 0, kernel_lr > 0, clip > 0, 0 <= ema < 1 and weight_decay >= 0, "
                f"got {self.lr}, {self.kernel_lr}, {self.clip}, {self.ema}, {self.weight_decay}."
            )

    def build(self) -> Denoiser:
        """The untrained denoiser, its weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Denoiser(self.network(self.family, self.seed), self.schedule, self.parametrisation)

    def draw(self, network: nn.Module) -> Callable[[int], tuple[Tensor, ...]]:
        """step → (x0, t, eps, weight): the batch of that step."""
        density = self.density(network, self.schedule)

        def draw(step: int) -> tuple[Tensor, ...]:
            generator = stream(self.seed, step, BATCHES)
            x0, _ = self.family.sample(self.batch, generator)
            t, weight = draw_times(self.batch, self.schedule, generator, density)
            return x0, t, torch.randn(x0.shape, generator=generator), weight

        return draw

    def optimiser(self, denoiser: nn.Module) -> Muon:
        """`Muon` with this recipe's rates."""
        return Muon(denoiser, self.lr, self.kernel_lr, weight_decay=self.weight_decay)

    def learning_rate(self, step: int) -> float:
        """Share of the rates at a step: up over `warmup` steps, flat, down to 0 over the last 70 % of the run."""
        return min(1.0, (step + 1) / (self.warmup + 1), (self.steps - step) / (0.7 * self.steps))

    def key(self) -> str:
        """Ten hexadecimal digits that change with the recipe, the network or the code that trains it."""
        denoiser = self.build()
        parts = [
            repr(self.family),
            _digest(self.family.signals) if isinstance(self.family, Finite) else "",
            _digest(self.schedule.log_alpha_bar(torch.arange(self.schedule.T + 1))),
            repr(denoiser.network),
            str([(k, tuple(v.shape)) for k, v in denoiser.state_dict().items()]),
            type(self.parametrisation).__qualname__,
            str(self.density(denoiser.network, self.schedule) is None),
            str(
                [
                    self.steps,
                    self.batch,
                    self.lr,
                    self.kernel_lr,
                    self.warmup,
                    self.weight_decay,
                    self.clip,
                    self.ema,
                    self.seed,
                ]
            ),
            *(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem in _TRAINING_CODE),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


_TRAINING_CODE = ("data", "diffusion", "networks", "optim", "oracle", "schedules", "signals", "training")


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


class Fit(NamedTuple):
    """A trained denoiser (averaged weights, evaluation mode, on the CPU) and the loss of every step (steps,)."""

    denoiser: Denoiser
    losses: Tensor


class LitDDPM(lightning.LightningModule):
    """The training step for Lightning: L_simple, weighted so that any density over t estimates the same mean."""

    def __init__(self, denoiser: Denoiser, recipe: Recipe):
        super().__init__()
        self.denoiser, self.recipe = denoiser, recipe
        self.losses: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        x0, t, eps, weight = batch
        errors = loss(self.denoiser, x0, t, eps)
        value = (weight * errors).mean()
        if not torch.isfinite(value):
            k = int((~torch.isfinite(errors)).nonzero()[0])
            raise FloatingPointError(
                f"The loss is {value.item()} at step {self.global_step}: signal {k} of the batch, at t = {int(t[k])}. "
                "The last checkpoint is untouched; lower the learning rate or look at that signal."
            )
        self.losses.append(value.detach())
        self.log("loss", value, prog_bar=True, logger=False)
        return value

    def configure_optimizers(self) -> Any:
        optimiser = self.recipe.optimiser(self.denoiser)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, self.recipe.learning_rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"] = torch.stack(self.losses).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses = list(checkpoint["losses"].to(self.device))


class _Data(lightning.LightningDataModule):
    """Begins at the global step, so that a resumed run sees the batches that it has not seen."""

    def __init__(self, recipe: Recipe, network: nn.Module, workers: int):
        super().__init__()
        self.recipe, self.network, self.workers = recipe, network, workers

    def train_dataloader(self) -> Any:
        trainer = self.trainer
        assert trainer is not None
        return batches(
            self.recipe.draw(self.network), self.recipe.steps, start=trainer.global_step,
            rank=trainer.global_rank, ranks=trainer.world_size, workers=self.workers,
        )  # fmt: skip


def _ema(decay: float) -> WeightAveraging:
    """Running mean of the weights. Early on it forgets faster, or the first random weights would stay in it."""

    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor) -> None:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return WeightAveraging(use_buffers=False, multi_avg_fn=average)


def device() -> str:
    """Where to compute: ``DDPM_DEVICE`` where it is set, else "cuda" or "mps" where there is one, else "cpu"."""
    asked = os.environ.get("DDPM_DEVICE")
    if asked:
        return asked
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _progress() -> bool:
    """A bar where somebody watches; ``DDPM_PROGRESS=0`` or 1 decides otherwise."""
    asked = os.environ.get("DDPM_PROGRESS")
    return asked != "0" if asked else sys.stderr.isatty() or "ipykernel" in sys.modules


def fit(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    until: int | None = None,
    workers: int = 0,
    callbacks: list[Callback] | None = None,
    **trainer: Any,
) -> Fit:
    """Train a recipe with Lightning and return the averaged weights.

    Args:
        recipe: what to train.
        folder: where checkpoints go, ten over the run; none are written where it is not given.
        resume: go on from ``last.ckpt`` of the folder.
        until: stop after this many steps of the recipe's (to go on later); the last one by default.
        workers: processes that draw batches ahead; the batches are the same for any number.
        callbacks, trainer: passed to Lightning's Trainer (``devices``, ``precision``, …).

    Raises:
        ValueError: ``resume`` without a checkpoint, or with one that is not complete or of another network.
        FloatingPointError: the loss became NaN or infinite; the last checkpoint stays.
    """
    denoiser = recipe.build()
    module = LitDDPM(denoiser, recipe)
    data = _Data(recipe, denoiser.network, workers)
    last = None if folder is None else Path(folder) / "last.ckpt"
    saver = ModelCheckpoint(
        dirpath=folder, filename="last", every_n_train_steps=max(1, recipe.steps // 10),
        save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True,
    )  # fmt: skip
    bar = [TQDMProgressBar(refresh_rate=20)] if _progress() else []
    place = device()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    settings: dict[str, Any] = dict(
        max_steps=recipe.steps if until is None else until,
        max_epochs=1,
        accelerator={"cuda": "gpu"}.get(place.split(":")[0], place.split(":")[0]),
        devices=[int(place.split(":")[1])] if ":" in place else 1,
        gradient_clip_val=recipe.clip,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=bool(bar),
        enable_checkpointing=folder is not None,
    )
    settings.update(trainer)
    settings["callbacks"] = [_ema(recipe.ema), *bar, *([saver] if folder is not None else []), *(callbacks or [])]
    if resume and (last is None or not last.exists()):
        raise ValueError(f"There is nothing to resume: no checkpoint {last}.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
        engine = lightning.Trainer(**settings)
        try:
            engine.fit(module, data, ckpt_path=last if resume else None, weights_only=True)
        except (RuntimeError, KeyError, EOFError) as error:
            if resume and engine.global_step == 0:
                raise ValueError(f"{last} is not a complete checkpoint of this recipe: {error}") from error
            raise
    return Fit(denoiser.cpu().eval(), torch.stack(module.losses).cpu())
