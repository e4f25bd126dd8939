"""Trained models on disk: safetensors files and a cache, so that nothing trains twice (chapter `training`)."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

if TYPE_CHECKING:
    from .loop import Fit
from ..diffusion.denoiser import Denoiser
from ..shapes import Float
from .atomic import atomic_write, prepare
from .recipe import Recipe, shipped_recipe

__all__ = ["cache_dir", "load", "pretrained", "save", "train_or_load"]


FORMAT = "ddpm_lib 2"
"""The format that the header of a file names. Files of "ddpm_lib 1" have no checksum; they are still read."""


def save(trained: Fit, path: str | Path, **card: Any) -> None:
    """Write weights, schedule and losses to a safetensors file, and `card` (a description) into its header.

    The file appears whole or not at all. Its header holds a checksum of all that `load` reads.

    Raises:
        OSError: a full disk or a folder that cannot be written; an older file is untouched.
    """
    denoiser = trained.denoiser
    tensors = {f"network.{k}": v.contiguous() for k, v in denoiser.network.state_dict().items()}
    tensors |= {"losses": trained.losses, "log_alpha_bar": _log_alpha_bar(denoiser)}
    text = json.dumps(card, sort_keys=True)
    header = {"format": FORMAT, "card": text, "sha256": _checksum(text, tensors)}
    with atomic_write(Path(path)) as file:
        file.write(to_bytes(tensors, metadata=header))


def _checksum(card: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(card.encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _log_alpha_bar(denoiser: Denoiser) -> Float[Tensor, "T_plus_1"]:
    return denoiser.schedule.log_alpha_bar(torch.arange(denoiser.schedule.T + 1))


def load(denoiser: Denoiser, path: str | Path) -> Fit:
    """Read a file of `save` into a denoiser of the same build. Raises what `read_into` does."""
    from .loop import Fit

    _, losses = read_into(denoiser, path)
    return Fit(denoiser.eval(), losses)


def read_into(denoiser: Denoiser, path: str | Path) -> tuple[dict[str, Any], Float[Tensor, "steps"]]:
    """Read a file of `save` into a denoiser and return its card and the losses.

    This is `load` without Lightning, which takes seconds to import.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, damaged, foreign, of another network or of another schedule; the
            denoiser is then unchanged.
    """
    card, tensors = read(path)
    losses, log_alpha_bar = tensors.pop("losses"), tensors.pop("log_alpha_bar")
    expected = {f"network.{k}": v.shape for k, v in denoiser.network.state_dict().items()}
    found = {k: v.shape for k, v in tensors.items()}
    if expected != found:
        odd = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise ValueError(
            f"{path} holds another network: {len(odd)} of its tensors differ from what was expected, first {odd[0]} "
            f"(expected {_size(expected.get(odd[0]))}, got {_size(found.get(odd[0]))})."
        )
    ours = _log_alpha_bar(denoiser)
    same_length = log_alpha_bar.shape == ours.shape
    if not same_length or not torch.allclose(log_alpha_bar, ours, rtol=1e-9, atol=1e-12):  # processors differ by less
        steps = len(log_alpha_bar) - 1
        raise ValueError(f"{path} was trained with another schedule (T = {steps}) than {denoiser.schedule}.")
    denoiser.network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
    return card, losses


def _size(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))


def read(path: str | Path, *, header_only: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the card and the tensors of a file of `save`: "network.…", "losses" and "log_alpha_bar".

    With ``header_only`` there are no tensors, and nothing is compared with the checksum. A card that cannot be parsed
    is empty.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, damaged or foreign.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}.")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") not in ("ddpm_lib 1", FORMAT):
                raise ValueError(f"{path} was not written by ddpm_lib.save: its header does not say so.")
            if not header_only:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}). Train again or fetch it again."
        ) from error
    if not header_only:
        _check(path, header, tensors)
    try:
        card = json.loads(header.get("card", "{}"))
    except json.JSONDecodeError:
        card = {}
    return card if isinstance(card, dict) else {}, tensors


def _check(path: Path, header: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Raise unless the tensors of a file are complete, finite, and those of its checksum."""
    if header["format"] == FORMAT and header.get("sha256") != _checksum(header.get("card", "{}"), tensors):
        raise ValueError(f"{path} is damaged: it does not agree with its checksum. Train again or fetch it again.")
    if not {"losses", "log_alpha_bar"} <= tensors.keys():
        raise ValueError(f"{path} lacks the losses or the schedule that ddpm_lib.save writes. Train again.")
    for name, x in tensors.items():
        if not torch.isfinite(x).all():
            raise ValueError(f"{path} is damaged: {name} holds NaN or infinity. Train again or fetch it again.")


def card(recipe: Recipe) -> dict[str, Any]:
    """Describe a recipe for the header of a file."""
    words = {"recipe": recipe.fingerprint(), "family": repr(recipe.family), "schedule": repr(recipe.schedule)}
    numbers = ("steps", "batch", "lr", "kernel_lr", "ema", "seed", "p_conditional")
    return words | {k: getattr(recipe, k) for k in numbers}


def cache_dir() -> Path:
    """Return the folder of trained models: ``DDPM_CACHE``, or ``_build/models`` of a checkout, or a folder of the user.

    That of the user is ``~/.cache/ddpm_lib``.
    """
    if "DDPM_CACHE" in os.environ:
        return Path(os.environ["DDPM_CACHE"])
    checkout = Path(__file__).resolve().parents[2]
    inside = (checkout / "_toc.yml").exists()
    return checkout / "_build" / "models" if inside else Path.home() / ".cache" / "ddpm_lib"


SHIPPED = Path(__file__).resolve().parents[1] / "weights"
"""The folder of the models that come with the package, made by ``make model``; its README has their cards."""


def _fingerprint(path: Path) -> str:
    """Return the fingerprint of the recipe that a file holds."""
    card, _ = read(path, header_only=True)
    if "recipe" not in card:
        raise ValueError(f"{path} does not say which recipe it holds. Train again or fetch it again.")
    return str(card["recipe"])


def _find(recipe: Recipe, path: Path) -> Path | None:
    """Find the file that holds a recipe: ``path`` in the cache, or one of the package."""
    fingerprint = recipe.fingerprint()
    if path.exists():
        found = _fingerprint(path)
        if found != fingerprint:
            raise ValueError(f"{path} holds recipe {found}, not {fingerprint}.")
        return path
    return next((p for p in sorted(SHIPPED.glob("*.safetensors")) if _fingerprint(p) == fingerprint), None)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes from a file of the cache, where the cache can be written."""
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # a read-only cache, or a file system without locks
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
            prepare(path)
        yield


def train_or_load(recipe: Recipe, *, retrain: bool = False, **fit_args: Any) -> Fit:
    """Return a trained recipe: from the cache, from the package, or trained now and added to the cache.

    The key of the cache is the recipe and the code that trains it; a file of the package needs the same recipe only.
    Two processes at once train once. A cache that cannot be written is read; a newly trained model is then returned
    with a warning, and not kept.

    Args:
        retrain: train in any case, and replace the file of the cache; ``RETRAIN=1`` in the environment does the same.
        fit_args: passed to `fit`.
    """
    from .loop import fit

    path = cache_dir() / f"{recipe.key()}.safetensors"
    with _lock(path):
        if not retrain and os.environ.get("RETRAIN", "0") in ("", "0"):
            try:
                found = _find(recipe, path)
                if found is not None:
                    return load(recipe.build(), found)
            except (ValueError, OSError) as error:
                warnings.warn(f"A stored model cannot be used and is made anew: {error}", stacklevel=2)
        trained = fit(recipe, **fit_args)
        try:
            save(trained, path, **card(recipe))
        except OSError as error:
            warnings.warn(f"The trained model is not kept: {error} Set DDPM_CACHE to another folder.", stacklevel=2)
        return trained


def pretrained() -> Denoiser:
    """Load the model that comes with the package: the benchmark family, given any of its parameters or none.

    ``RETRAIN=1`` trains it again, a quarter of an hour on two cores.
    """
    return train_or_load(shipped_recipe()).denoiser
