"""What the commands write and print: arrays that anything can read, a picture, the scale of the signals."""

from __future__ import annotations

import json
import math
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion.schedules import LEFTOVER, Schedule
from ..signals.files import Signals
from ..signals.source import Source
from ..training.atomic import atomic_write

__all__ = ["export_arrays", "free", "picture", "places", "say_scale", "scale_of"]


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


def places(npz: str | Path, other: str, overwrite: bool) -> tuple[Path, Path]:
    """Where an .npz goes, and the file of another suffix beside it; both must be free."""
    out = Path(npz)
    if out.suffix != ".npz":
        raise ValueError(f"--out must name an .npz file, got {out}.")
    for path in (out, out.with_suffix(other)):
        free(path, overwrite)
    return out, out.with_suffix(other)


def export_arrays(tensors: Mapping[str, Tensor], path: Path, **said: Any) -> None:
    """Write tensors to ``path`` (.npz, float32, little endian) and a manifest beside it (.json).

    The manifest holds ``said``, and for each tensor its shape and the place of its first byte in the .npz, which is
    not compressed: a program that knows no .npz reads 4·size bytes from there.
    """
    with atomic_write(path) as file:
        np.savez(file, **{k: v.detach().cpu().numpy().astype("<f4") for k, v in tensors.items()})  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as archive:
        places = {info.filename.removesuffix(".npy"): _place(archive, info) for info in archive.infolist()}
    weights = {k: {"shape": list(v.shape), "offset": places[k]} for k, v in tensors.items()}
    with atomic_write(path.with_suffix(".json")) as file:
        head = {"format": "ddpm_lib weights 1", "file": path.name, "dtype": "float32, little endian, row-major"}
        file.write(json.dumps({**head, **said, "tensors": weights}, indent=1).encode())


def _place(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Offset of the first number of a member: after its header in the zip, and that of the .npy."""
    with archive.open(info) as member:
        np.lib.format.read_magic(member)
        np.lib.format.read_array_header_1_0(member)
        header = member.tell()
    assert archive.fp is not None
    archive.fp.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", archive.fp.read(4))
    return info.header_offset + 30 + name + extra + header


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
