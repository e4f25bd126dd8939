"""Trained models on disk: safetensors files and a cache, so that nothing trains twice (chapter 9)."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .diffusion import Denoiser
from .recipes import Recipe

if TYPE_CHECKING:
    from .training import Fit

__all__ = ["cache_dir", "load", "save", "train_or_load"]


def save(trained: Fit, path: str | Path, **card: Any) -> None:
    """Write weights, schedule and losses to a safetensors file, and `card` (what it is) into its header.

    The file appears whole or not at all.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    denoiser = trained.denoiser
    tensors = {f"network.{k}": v.contiguous() for k, v in denoiser.network.state_dict().items()}
    tensors["losses"], tensors["log_alpha_bar"] = trained.losses, _table(denoiser)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(tensors, part, metadata={"format": "ddpm_lib 1", "card": json.dumps(card, sort_keys=True)})
    os.replace(part, path)


def _table(denoiser: Denoiser) -> Tensor:
    return denoiser.schedule.log_alpha_bar(torch.arange(denoiser.schedule.T + 1))


def load(denoiser: Denoiser, path: str | Path) -> Fit:
    """Read a file of `save` into a denoiser of the same build. Raises what `read` does."""
    from .training import Fit

    losses = read(denoiser, path)
    return Fit(denoiser.eval(), losses)


def read(denoiser: Denoiser, path: str | Path) -> Tensor:
    """`load` without Lightning, which takes seconds to import: fill the denoiser and return the losses (steps,).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, foreign, of another network or of another schedule; the denoiser
            is then unchanged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            foreign = (file.metadata() or {}).get("format") != "ddpm_lib 1"
            tensors = {} if foreign else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}). Train again or fetch it again."
        ) from error
    if foreign:
        raise ValueError(f"{path} was not written by ddpm_lib.save: its header does not say so.")
    if not {"losses", "log_alpha_bar"} <= tensors.keys():
        raise ValueError(f"{path} lacks the losses or the schedule that ddpm_lib.save writes. Train again.")
    losses, table = tensors.pop("losses"), tensors.pop("log_alpha_bar")
    expected = {f"network.{k}": v.shape for k, v in denoiser.network.state_dict().items()}
    found = {k: v.shape for k, v in tensors.items()}
    if expected != found:
        odd = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise ValueError(
            f"{path} holds another network: {len(odd)} of its tensors differ from what was expected, first {odd[0]} "
            f"(expected {_size(expected.get(odd[0]))}, got {_size(found.get(odd[0]))})."
        )
    if not torch.equal(table, _table(denoiser)):
        raise ValueError(f"{path} was trained with another schedule (T = {len(table) - 1}) than {denoiser.schedule}.")
    denoiser.network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
    return losses


def _size(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))


def card(recipe: Recipe) -> dict[str, Any]:
    """What the header of a file says of the recipe that it holds."""
    said = {"recipe": recipe.fingerprint(), "family": repr(recipe.family), "schedule": repr(recipe.schedule)}
    return said | {k: getattr(recipe, k) for k in ("steps", "batch", "lr", "kernel_lr", "ema", "seed")}


def cache_dir() -> Path:
    """Home of trained models: ``DDPM_CACHE``, else ``_build/models`` in a checkout, else ``~/.cache/ddpm_lib``."""
    if "DDPM_CACHE" in os.environ:
        return Path(os.environ["DDPM_CACHE"])
    checkout = Path(__file__).resolve().parents[1]
    inside = (checkout / "_toc.yml").exists()
    return checkout / "_build" / "models" if inside else Path.home() / ".cache" / "ddpm_lib"


SHIPPED = Path(__file__).resolve().parent / "weights"
"""Trained models that come with the package, made by ``make model``; their cards are in its README."""


def _shipped(recipe: Recipe) -> Path | None:
    """The file that comes with the package and holds this recipe, if there is one."""
    for path in sorted(SHIPPED.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if json.loads(file.metadata()["card"])["recipe"] == recipe.fingerprint():
                return path
    return None


def train_or_load(recipe: Recipe, *, retrain: bool = False, **fit_args: Any) -> Fit:
    """The trained recipe: from the cache, else from the package, else trained now and put into the cache.

    The key of the cache is the recipe and the code that trains it; a file of the package needs the same recipe only.
    Two processes that ask at once train once.

    Args:
        retrain: train whatever there is, and replace what the cache holds; ``RETRAIN=1`` in the environment does
            the same.
        fit_args: passed to `fit`.
    """
    from .training import fit

    path = cache_dir() / f"{recipe.key()}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not retrain and os.environ.get("RETRAIN", "0") in ("", "0"):
            found = path if path.exists() else _shipped(recipe)
            try:
                if found is not None:
                    return load(recipe.build(), found)
            except ValueError as error:
                warnings.warn(f"A stored model cannot be used and is made anew: {error}", stacklevel=2)
        trained = fit(recipe, **fit_args)
        save(trained, path, **card(recipe))
        return trained
