"""Training with Lightning: the step, the running mean of the weights, checkpoints and resume (chapter `training`)."""

from __future__ import annotations

import io
import logging
import math
import os
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from torch import Tensor, nn

from ..checks import check_tensor
from ..diffusion.denoiser import Denoiser
from ..diffusion.losses import loss
from ..signals.batches import batches
from .atomic import prepare, write_whole
from .distributed import lost, over_processes, place
from .recipe import Recipe
from .threads import Threads

__all__ = ["Fit", "LitDDPM", "device", "fit"]


class Fit(NamedTuple):
    """A trained denoiser (averaged weights, evaluation mode, on the CPU) and the loss of every step (steps,)."""

    denoiser: Denoiser
    losses: Tensor


class LitDDPM(lightning.LightningModule):
    """The training step for Lightning: the recipe's loss, weighted so that any density over t estimates its mean."""

    def __init__(self, denoiser: Denoiser, recipe: Recipe):
        super().__init__()
        self.denoiser, self.recipe = denoiser, recipe
        self.losses: list[float] = []  # numbers: thousands of little tensors would pin down torch's memory

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        x0, t, eps, weight, *told = batch
        check_tensor(x0, "x0", "B", "C", "L", values=False)
        rank, ranks = place()
        broken = (~torch.isfinite(x0)).flatten(1).any(1).nonzero()
        if len(broken):
            k = int(broken[0])
            raise FloatingPointError(
                f"NaN or infinity in the data at step {self.global_step}: signal {rank + k * ranks} of the batch, "
                f"at t = {int(t[k])}. The last checkpoint is untouched; look at that signal."
            )
        errors = weight * loss(self.denoiser, x0, t, eps, self.recipe.weight, told[0] if told else None)
        value = errors.mean()
        self.losses.append(over_processes(value))
        if not math.isfinite(self.losses[-1]):  # in all processes at once, so that none waits for another
            k = int(errors.nan_to_num(nan=math.inf).argmax())
            which = f"signal {rank + k * ranks} of the batch, at t = {int(t[k])}"
            raise FloatingPointError(
                f"The loss is {self.losses.pop()} at step {self.global_step}: "
                f"{'another process says where' if value.isfinite() else which}. "
                "The last checkpoint is untouched; lower the learning rate or look at that signal."
            )
        self.log("loss", self.losses[-1], prog_bar=True, logger=False)
        return value

    def configure_optimizers(self) -> Any:
        optimiser = self.recipe.optimiser(self.denoiser)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, self.recipe.learning_rate)
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


class _Checkpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and that are read only if they agree with their checksums.

    Lightning's own are written to the system's temporary folder and moved: a copy, if that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_whole(Path(path), buffer.getbuffer())

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


def _ema(decay: float) -> WeightAveraging:
    """Running mean of the weights. Early on it forgets faster, or the first random weights would stay in it."""

    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor) -> None:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return WeightAveraging(use_buffers=False, multi_avg_fn=average)


def device() -> str:
    """Where to compute: ``DDPM_DEVICE`` where it is set, else "cuda" or "mps" where there is one, else "cpu"."""
    asked = os.environ.get("DDPM_DEVICE")
    if asked:
        try:
            torch.device(asked)
        except RuntimeError as error:
            raise ValueError(f"DDPM_DEVICE must be a device such as cpu, cuda:0 or mps, got {asked!r}.") from error
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
    threads: int | None = None,
    callbacks: list[Callback] | None = None,
    **trainer: Any,
) -> Fit:
    """Train a recipe with Lightning and return the averaged weights.

    Args:
        recipe: what to train.
        folder: where checkpoints go, ten over the run; none are written where it is not given.
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
    if until is not None and (not isinstance(until, int) or not 1 <= until <= recipe.steps):
        raise ValueError(f"`until` must be a number of steps from 1 to {recipe.steps}, got {until!r}.")
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
        use_distributed_sampler=False,  # `batches` gives each process its share
        gradient_clip_val=recipe.clip,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=bool(bar),
        enable_checkpointing=folder is not None,
    )
    settings.update(trainer)
    average = _ema(recipe.ema)
    settings["plugins"] = [_Checkpoints(), *(settings.get("plugins") or [])]
    pace = Threads(threads)
    each_step = LambdaCallback(
        on_train_batch_end=lambda _, model, *__: pace.step() if model.device.type == "cpu" else None
    )
    settings["callbacks"] = [average, *bar, *([saver] if folder is not None else []), each_step, *(callbacks or [])]
    if resume and (last is None or not last.exists()):
        raise ValueError(f"There is nothing to resume: no checkpoint {last}.")
    if last is not None:
        prepare(last)
    with pace, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 beside torch 2.13
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
        engine = lightning.Trainer(**settings)
        if recipe.batch % (ranks := engine.world_size):
            raise ValueError(f"{ranks} processes cannot share a batch of {recipe.batch} evenly: change one of the two.")
        try:
            engine.fit(module, data, ckpt_path=last if resume else None, weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            if ranks > 1 and lost(error):
                kept = f"{last} is untouched: resume from it." if last and last.exists() else "There is no checkpoint."
                raise ConnectionError(f"Another process of this run has ended, and with it this one. {kept}") from error
            if resume and engine.global_step == 0:
                told = isinstance(error, (RuntimeError, ValueError))
                reason = str(error).split(". ")[0].splitlines()[0].rstrip(":") if told else "it cannot be read"
                raise ValueError(f"{last} is not a complete checkpoint of this recipe: {reason}.") from error
            raise
    if resume:  # where the checkpoint was that of the last step, Lightning has not put the average in place
        average._copy_average_to_current(module)
    module.check()
    return Fit(denoiser.cpu().eval(), torch.tensor(module.losses))
