"""What the commands print and write: the scale of the signals, weights for other programs, a picture."""

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

__all__ = ["export_weights", "output_path", "plot_signals", "print_scale", "refuse_to_overwrite", "scale_of"]


def scale_of(family: Source) -> dict[str, list[float]]:
    """Return the mean and the scale of each channel of signals from a file; nothing for other sources."""
    if not isinstance(family, Signals):
        return {}
    return {"mean": family.mean.flatten().tolist(), "scale": family.scale.flatten().tolist()}


def print_scale(family: Source, schedule: Schedule) -> None:
    """Print the scale of signals from a file; warn if any signals are too large or too small for the schedule."""
    if isinstance(family, Signals):
        print(family)
    signals, _ = family.sample(256, torch.Generator())
    size = float(signals.square().mean().sqrt())
    left = size * float(schedule.alpha_bar(schedule.T).sqrt())
    first = float((1 - schedule.alpha_bar(1)).sqrt())
    if left > LEFTOVER:
        problem = f"at t = T they are still {left:.2g} times the noise, and sampling starts without them"
    elif size < first:
        problem = f"at t = 1 they are already below the noise, {first:.2g}"
    else:
        return
    advice = "Scale them; signals from a file with --recipe.family.standardize true."
    warnings.warn(f"The signals have size {size:.3g} (root mean square): {problem}. {advice}", stacklevel=2)


def refuse_to_overwrite(
    path: Path, overwrite: bool, advice: str = "name another place with --out, or add --overwrite"
) -> None:
    """Raise if a file exists and may not be overwritten."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: {advice}.")


def output_path(out: str | None, folder: str | None, name: str, overwrite: bool) -> Path:
    """Return the file that --out names, or the one of this name in the folder; raise if a file would be lost."""
    path, suffix = Path(out or Path(folder or "", name)), Path(name).suffix
    if path.suffix != suffix:
        raise ValueError(f"--out must end in {suffix}, got {path}.")
    refuse_to_overwrite(path, overwrite)
    return path


def export_weights(denoiser: Denoiser, path: Path, card: dict[str, Any]) -> None:
    """Write network and schedule of a denoiser to a safetensors file, and `card` (a description) into its header.

    The tensors are those of the network, "network.…" in float32, and "log_alpha_bar" (T + 1,) in float64. Any reader
    of safetensors files reads it, without torch.
    """
    arrays = {f"network.{k}": v.detach().cpu().float().numpy() for k, v in denoiser.network.state_dict().items()}
    schedule = denoiser.schedule
    arrays["log_alpha_bar"] = schedule.log_alpha_bar(torch.arange(schedule.T + 1)).cpu().numpy()
    header = {"card": json.dumps({"format": "ddpm_lib weights 2", **card})}  # the order of several entries would vary
    with atomic_write(path) as file:
        file.write(to_bytes(arrays, metadata=header))


def plot_signals(signals: Tensor, x: Tensor, path: Path) -> bool:
    """Draw the first 16 signals (n, C, L) over positions x (L,) into a .png; return whether matplotlib was there."""
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
