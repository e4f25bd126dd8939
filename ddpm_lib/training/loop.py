"""Training with Lightning: the step, the running mean of the weights, checkpoints and resume (chapter `training`)."""

from __future__ import annotations

import copy
import io
import logging
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn

from ..checks import check_count
from ..diffusion.denoiser import Denoiser
from ..diffusion.losses import loss
from ..shapes import Float
from ..signals.batches import batches
from .atomic import atomic_write, prepare
from .distributed import is_lost_peer, mean_over_processes, rank_and_size
from .recipe import Batch, Recipe
from .threads import Threads

__all__ = ["Fit", "LitDDPM", "device", "fit"]


class Fit(NamedTuple):
    """A trained denoiser (averaged weights, evaluation mode, on the CPU) and the loss of every step."""

    denoiser: Denoiser
    losses: Float[Tensor, "steps"]


class LitDDPM(lightning.LightningModule):
    """The training step for Lightning: the recipe's loss, weighted so that any density over t estimates its mean.

    Attributes:
        average: the running mean of the weights. Early on it forgets faster, or the first random weights would stay.
        losses: the loss of every step.
    """

    def __init__(self, denoiser: Denoiser, recipe: Recipe):
        super().__init__()
        self.denoiser, self.recipe = denoiser, recipe
        self.average = copy.deepcopy(denoiser).requires_grad_(False)
        self.losses: list[float] = []  # numbers: thousands of little tensors would pin down torch's memory

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        x0, t, eps, importance, cond = batch
        errors = importance * loss(self.denoiser, x0, t, eps, self.recipe.weight, cond)
        value = errors.mean()
        self.losses.append(mean_over_processes(value))  # all that a step reads back from the device
        if not math.isfinite(self.losses[-1]):  # in all processes at once, so that none waits for another
            raise FloatingPointError(self._broken(Batch(*batch), errors))
        return value

    def _broken(self, batch: Batch, errors: Float[Tensor, "B"]) -> str:
        """Which signal made the loss NaN or infinite, looked up after the fact."""
        rank, ranks = rank_and_size()
        data = (~torch.isfinite(batch.x0)).flatten(1).any(1)
        wrong = (data if data.any() else ~torch.isfinite(errors)).nonzero().flatten().tolist()
        which = f"signal {rank + wrong[0] * ranks} of the batch, at t = {int(batch.t[wrong[0]])}" if wrong else ""
        what = "NaN or infinity in the data" if data.any() else f"The loss is {self.losses.pop()}"
        return (
            f"{what} at step {self.global_step}: {which or 'another process says where'}. "
            "The last checkpoint is untouched; look at that signal, or lower the learning rate."
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        n = self.global_step  # steps before this one
        decay = min(self.recipe.ema, (1 + n) / (10 + n)) if n else 0.0
        averaged: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self.denoiser.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - decay)

    def configure_optimizers(self) -> Any:
        optimiser = self.recipe.optimiser(self.denoiser, self.recipe)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.recipe.rate(step, self.recipe))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def check(self) -> None:
        """Refuse weights that are not finite: neither a checkpoint nor a result is made of them."""
        if not all(torch.isfinite(p).all() for p in self.parameters()):
            raise FloatingPointError(
                f"A weight is NaN or infinite after {self.global_step} steps, because a gradient was. "
                "The last checkpoint is untouched; lower the learning rate."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check()
        checkpoint["losses"] = torch.tensor(self.losses)
        checkpoint["recipe"] = self.recipe.fingerprint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("recipe") != self.recipe.fingerprint():
            raise ValueError(f"it belongs to recipe {checkpoint.get('recipe')}, this is {self.recipe.fingerprint()}")
        self.losses = checkpoint["losses"].tolist()


class _Bar(TQDMProgressBar):
    """Shows the loss of the last step; to log it would cost a copy to the device and back, every step."""

    def get_metrics(self, trainer: Any, module: Any) -> dict[str, Any]:
        return {"loss": module.losses[-1] if module.losses else math.nan, **super().get_metrics(trainer, module)}


class _Checkpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and that are read only if they agree with their checksums.

    Lightning's own are written to the system's temporary folder and moved: a copy, if that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} does not agree with its checksum")
        return super().load_checkpoint(path, *args, **options)


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


def device() -> str:
    """Where to compute: ``DDPM_DEVICE`` where it is set, else "cuda" or "mps" where there is one, else "cpu"."""
    chosen = os.environ.get("DDPM_DEVICE")
    if chosen:
        try:
            torch.device(chosen)
        except RuntimeError as error:
            raise ValueError(f"DDPM_DEVICE must be a device such as cpu, cuda:0 or mps, got {chosen!r}.") from error
        return chosen
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _progress() -> bool:
    """A bar where somebody watches; ``DDPM_PROGRESS=0`` or 1 decides otherwise."""
    chosen = os.environ.get("DDPM_PROGRESS")
    return chosen != "0" if chosen else sys.stderr.isatty() or "ipykernel" in sys.modules


def fit(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    until: int | None = None,
    workers: int = 0,
    threads: int | None = None,
    callbacks: list[Callback] | None = None,
    **trainer: Any,
) -> Fit:
    """Train a recipe with Lightning and return the averaged weights.

    Args:
        recipe: what to train.
        folder: where checkpoints go, ten over the run; none are written by default.
        resume: go on from ``last.ckpt`` of the folder.
        until: stop after this many steps of the recipe's (to go on later); the last one by default.
        workers: processes that draw batches ahead; the batches are the same for any number (`batches`).
        threads: the number of threads, which is then kept, so that a run on the CPU is equal to the bit. By default
            torch's, and fewer while other programs take the cores (`Threads`); a run of up to 20 steps keeps them.
        callbacks, trainer: passed to Lightning's Trainer (``devices``, ``precision``, …).

    Raises:
        ValueError: ``resume`` without a checkpoint, or with one that is not complete or of another network; a batch
            that the processes cannot share evenly.
        FloatingPointError: the loss or a weight became NaN or infinite; the last checkpoint stays.
        ConnectionError: of many processes one has ended; the last checkpoint stays.
        OSError: a checkpoint cannot be written (a full disk, a folder for reading only); the last one stays.
    """
    denoiser = recipe.build()
    recipe.fingerprint(denoiser)  # now, and not when a checkpoint asks for it: it would be built again
    module = LitDDPM(denoiser, recipe)
    last = None if folder is None else Path(folder) / "last.ckpt"
    if resume and (last is None or not last.exists()):
        raise ValueError(f"There is nothing to resume: no checkpoint {last}.")
    pace = Threads(threads)
    each_step = LambdaCallback(
        on_train_batch_end=lambda _, model, *__: pace.step() if model.device.type == "cpu" else None
    )
    settings = _settings(recipe, folder) | trainer
    settings["max_steps"] = recipe.steps if until is None else check_count(until, "until", 1, recipe.steps)
    settings["plugins"] = [_Checkpoints(), *(settings.get("plugins") or [])]
    settings["callbacks"] = [*settings["callbacks"], each_step, *(callbacks or [])]
    if last is not None:
        prepare(last)
    with pace, _quiet():
        engine = lightning.Trainer(**settings)
        if recipe.batch % engine.world_size:
            raise ValueError(
                f"{engine.world_size} processes cannot share a batch of {recipe.batch} evenly: change one of the two."
            )
        try:
            data = _Data(recipe, module.denoiser.network, workers)
            engine.fit(module, data, ckpt_path=last if resume else None, weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            raise _explained(error, engine, last, resume) from error
    module.check()
    denoiser.load_state_dict(module.average.state_dict())
    return Fit(denoiser.cpu().eval(), torch.tensor(module.losses))


def _settings(recipe: Recipe, folder: str | Path | None) -> dict[str, Any]:
    """Lightning's Trainer for a recipe; checkpoints go to the folder, ten over the run."""
    where = device()
    kind, _, number = where.partition(":")
    bar = [_Bar(refresh_rate=20)] if _progress() else []
    saver = ModelCheckpoint(
        dirpath=folder, filename="last", every_n_train_steps=max(1, recipe.steps // 10),
        save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True,
    )  # fmt: skip
    return dict(
        max_epochs=1,
        accelerator={"cuda": "gpu"}.get(kind, kind),
        devices=[int(number)] if number else 1,
        use_distributed_sampler=False,  # `batches` gives each process its share
        gradient_clip_val=recipe.clip,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=bool(bar),
        enable_checkpointing=folder is not None,
        callbacks=[*bar, *([saver] if folder is not None else [])],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says about things that are meant to be as they are."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 beside torch 2.13
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
        yield


def _explained(error: Exception, engine: Any, last: Path | None, resume: bool) -> Exception:
    """An error that says what happened to the run, where Lightning's own does not."""
    if engine.world_size > 1 and is_lost_peer(error):
        kept = f"{last} is untouched: resume from it." if last and last.exists() else "There is no checkpoint."
        return ConnectionError(f"Another process of this run has ended, and with it this one. {kept}")
    if resume and engine.global_step == 0:
        known = isinstance(error, (RuntimeError, ValueError))
        reason = str(error).split(". ")[0].splitlines()[0].rstrip(":") if known else "it cannot be read"
        return ValueError(f"{last} is not a complete checkpoint of this recipe: {reason}.")
    return error
