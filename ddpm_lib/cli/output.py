"""What the commands write and print: weights for other programs, a picture, the scale of the signals."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save as to_bytes
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.schedules import LEFTOVER, Schedule
from ..signals.files import Signals
from ..signals.source import Source
from ..training.atomic import atomic_write

__all__ = ["export_weights", "free", "output_path", "picture", "say_scale", "scale_of"]


def scale_of(family: Source) -> dict[str, list[float]]:
    """What was taken off signals from a file, and what they were divided by: by channel."""
    return {k: getattr(family, k).flatten().tolist() for k in ("mean", "scale")} if isinstance(family, Signals) else {}


def say_scale(family: Source, schedule: Schedule) -> None:
    """Print the scale of signals from a file; warn where noise of this schedule drowns or spares all signals."""
    if isinstance(family, Signals):
        print(family)
    size = float(family.sample(256, torch.Generator())[0].square().mean().sqrt())
    left, first = size * float(schedule.alpha_bar(schedule.T).sqrt()), float((1 - schedule.alpha_bar(1)).sqrt())
    if left > LEFTOVER:
        what = f"at t = T they are still {left:.2g} times the noise, and sampling starts without them"
    elif size < first:
        what = f"at t = 1 they are already below the noise, {first:.2g}"
    else:
        return
    how = "Scale them; signals from a file with --recipe.family.standardize true."
    warnings.warn(f"The signals have size {size:.3g} (root mean square): {what}. {how}", stacklevel=2)


def free(path: Path, overwrite: bool, instead: str = "name another place with --out, or add --overwrite") -> None:
    """Refuse to write over what is there, unless told to."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: {instead}.")


def output_path(path: Path, suffix: str, overwrite: bool) -> Path:
    """Return where a command writes; raise unless the name ends in ``suffix`` and no file is lost."""
    if path.suffix != suffix:
        raise ValueError(f"--out must name a {suffix} file, got {path}.")
    free(path, overwrite)
    return path


def export_weights(denoiser: Denoiser, path: Path, **card: Any) -> None:
    """Write network and schedule of a denoiser to a safetensors file, and `card` (a description) into its header.

    The tensors are those of the network, "network.…" in float32, and "log_alpha_bar" (T + 1,) in float64. The header
    names no torch, so ``safetensors.numpy.load_file`` reads the file, and so does a page.
    """
    arrays = {f"network.{k}": v.detach().cpu().float().numpy() for k, v in denoiser.network.state_dict().items()}
    schedule = denoiser.schedule
    arrays["log_alpha_bar"] = schedule.log_alpha_bar(torch.arange(schedule.T + 1)).cpu().numpy()
    header = {"card": json.dumps({"format": "ddpm_lib weights 2", **card})}  # one entry: of more the order would vary
    with atomic_write(path) as file:
        file.write(to_bytes(arrays, metadata=header))


def picture(signals: Tensor, x: Tensor, path: Path) -> bool:
    """Draw the first 16 signals (n, C, L) over positions x (L,) into a .png; False where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        warnings.warn("No picture is drawn: that needs matplotlib (pip install matplotlib).", stacklevel=2)
        return False
    matplotlib.use("agg")
    from ..figures import plots

    plots.style()
    first = signals[:16]
    fig, axes = plots.panels(math.ceil(len(first) / 4), 4, sharey=True)
    for ax in axes.flat[len(first) :]:
        ax.set_axis_off()
    for ax, signal in zip(axes.flat, first, strict=False):
        plots.curves(ax, x, signal)
    with atomic_write(path) as file:
        fig.savefig(file, format="png", metadata={"Software": None})
    return True
