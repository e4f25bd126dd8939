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
from .atomic import atomic_write, prepare
from .recipe import Recipe, longer

__all__ = ["cache_dir", "load", "pretrained", "save", "train_or_load"]


FORMAT = "ddpm_lib 2"
"""What the header of a file says. Files of "ddpm_lib 1" had no checksum; they are still read."""


def save(trained: Fit, path: str | Path, **card: Any) -> None:
    """Write weights, schedule and losses to a safetensors file, and `card` (what it is) into its header.

    The file appears whole or not at all. Its header holds a checksum of all that `load` reads.

    Raises:
        OSError: a full disk or a folder that cannot be written; what was there is untouched.
    """
    denoiser = trained.denoiser
    tensors = {f"network.{k}": v.contiguous() for k, v in denoiser.network.state_dict().items()}
    tensors["losses"], tensors["log_alpha_bar"] = trained.losses, _table(denoiser)
    said = json.dumps(card, sort_keys=True)
    header = {"format": FORMAT, "card": said, "sha256": _checksum(said, tensors)}
    with atomic_write(Path(path)) as file:
        file.write(to_bytes(tensors, metadata=header))


def _checksum(said: str, tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(said.encode())
    for name, x in sorted(tensors.items()):
        found.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        found.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _table(denoiser: Denoiser) -> Tensor:
    return denoiser.schedule.log_alpha_bar(torch.arange(denoiser.schedule.T + 1))


def load(denoiser: Denoiser, path: str | Path) -> Fit:
    """Read a file of `save` into a denoiser of the same build. Raises what `read` does."""
    from .loop import Fit

    losses = read(denoiser, path)
    return Fit(denoiser.eval(), losses)


def read(denoiser: Denoiser, path: str | Path) -> Tensor:
    """`load` without Lightning, which takes seconds to import: fill the denoiser and return the losses (steps,).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, damaged, foreign, of another network or of another schedule; the
            denoiser is then unchanged.
    """
    path = Path(path)
    tensors = _read(path)[1]
    losses, table = tensors.pop("losses"), tensors.pop("log_alpha_bar")
    expected = {f"network.{k}": v.shape for k, v in denoiser.network.state_dict().items()}
    found = {k: v.shape for k, v in tensors.items()}
    if expected != found:
        odd = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise ValueError(
            f"{path} holds another network: {len(odd)} of its tensors differ from what was expected, first {odd[0]} "
            f"(expected {_size(expected.get(odd[0]))}, got {_size(found.get(odd[0]))})."
        )
    ours = _table(denoiser)  # in float64, and yet the last digits differ from one processor to another
    if table.shape != ours.shape or not torch.allclose(table, ours, rtol=1e-9, atol=1e-12):
        raise ValueError(f"{path} was trained with another schedule (T = {len(table) - 1}) than {denoiser.schedule}.")
    denoiser.network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
    return losses


def _read(path: Path, tensors: bool = True) -> tuple[str, dict[str, Tensor]]:
    """The card of a file as it stands in its header, and its tensors where they are wanted."""
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            ours = header.get("format") in ("ddpm_lib 1", FORMAT)
            found = {name: file.get_tensor(name) for name in file.keys()} if ours and tensors else {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}). Train again or fetch it again."
        ) from error
    if not ours:
        raise ValueError(f"{path} was not written by ddpm_lib.save: its header does not say so.")
    said = header.get("card", "{}")
    if tensors and header["format"] == FORMAT and header.get("sha256") != _checksum(said, found):
        raise ValueError(f"{path} is damaged: it does not agree with its checksum. Train again or fetch it again.")
    if tensors and not {"losses", "log_alpha_bar"} <= found.keys():
        raise ValueError(f"{path} lacks the losses or the schedule that ddpm_lib.save writes. Train again.")
    odd = [name for name, x in found.items() if not torch.isfinite(x).all()]
    if odd:
        raise ValueError(f"{path} is damaged: {odd[0]} holds NaN or infinity. Train again or fetch it again.")
    return said, found


def _size(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))


def card(recipe: Recipe) -> dict[str, Any]:
    """What the header of a file says of the recipe that it holds."""
    said = {"recipe": recipe.fingerprint(), "family": repr(recipe.family), "schedule": repr(recipe.schedule)}
    return said | {k: getattr(recipe, k) for k in ("steps", "batch", "lr", "kernel_lr", "ema", "seed", "told")}


def cache_dir() -> Path:
    """Home of trained models: ``DDPM_CACHE``, else ``_build/models`` in a checkout, else ``~/.cache/ddpm_lib``."""
    if "DDPM_CACHE" in os.environ:
        return Path(os.environ["DDPM_CACHE"])
    checkout = Path(__file__).resolve().parents[2]
    inside = (checkout / "_toc.yml").exists()
    return checkout / "_build" / "models" if inside else Path.home() / ".cache" / "ddpm_lib"


SHIPPED = Path(__file__).resolve().parents[1] / "weights"
"""Trained models that come with the package, made by ``make model``; their cards are in its README."""


def _recipe_of(path: Path) -> str:
    """The fingerprint of the recipe that a file says it holds."""
    try:
        return str(json.loads(_read(path, tensors=False)[0])["recipe"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} does not say which recipe it holds. Train again or fetch it again.") from error


def _stored(recipe: Recipe, path: Path) -> Path | None:
    """The file that holds this recipe, if there is one: in the cache, else in the package."""
    name = recipe.fingerprint()
    if path.exists():
        if _recipe_of(path) != name:
            raise ValueError(f"{path} holds recipe {_recipe_of(path)}, not {name}.")
        return path
    return next((p for p in sorted(SHIPPED.glob("*.safetensors")) if _recipe_of(p) == name), None)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time has this file of the cache. Where nothing can be written there is nothing to wait for."""
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # a cache for reading only, or a file system without locks
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
            prepare(path)
        yield


def train_or_load(recipe: Recipe, *, retrain: bool = False, **fit_args: Any) -> Fit:
    """The trained recipe: from the cache, else from the package, else trained now and put into the cache.

    The key of the cache is the recipe and the code that trains it; a file of the package needs the same recipe only.
    Two processes that ask at once train once. A cache that cannot be written is read; what is trained is then
    returned with a warning, and not kept.

    Args:
        retrain: train whatever there is, and replace what the cache holds; ``RETRAIN=1`` in the environment does
            the same.
        fit_args: passed to `fit`.
    """
    from .loop import fit

    path = cache_dir() / f"{recipe.key()}.safetensors"
    with _alone(path):
        if not retrain and os.environ.get("RETRAIN", "0") in ("", "0"):
            try:
                found = _stored(recipe, path)
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
    """The model that comes with the package: the benchmark family, any subset of its parameters asked for or none.

    ``RETRAIN=1`` trains it anew, a quarter of an hour on two cores.
    """
    return train_or_load(longer()).denoiser
