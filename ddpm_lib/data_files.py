"""Signals of your own from a file, and arrays into files that anything can read."""

from __future__ import annotations

import json
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import Path_fr
from torch import Tensor

from .files import written
from .finite import Finite
from .noisy import Source
from .schedules import LEFTOVER, Schedule

__all__ = ["Signals", "export_arrays", "free", "picture", "places", "say_scale", "scale_of", "signal_shape"]


class Signals(Finite):
    """Signals of your own, from a file: each equally likely, at the scale that they have.

    Args:
        path: ``.npy``, one array (K, L) or (K, C, L), memory-mapped where it is float32; ``.npz``, the same, named
            ``signals`` or alone; ``.parquet``, one column of lists, each a signal, or columns of numbers, each row
            a signal. K signals (at least 2) of C channels and L samples, finite; whole numbers become float32.
        standardize: take the mean of each channel off and divide it by its standard deviation. Samples are given back
            at the scale of the file.

    Attributes:
        raw: (K, C, L), as in the file.
        mean: (C, 1), what was taken off; 0 without ``standardize``.
        scale: (C, 1), what was divided by; 1 without ``standardize``.

    Raises:
        FileNotFoundError, TypeError, ValueError: no such file, not numbers, or not finite and of such a shape.
    """

    def __init__(self, path: Path_fr, standardize: bool = False):  # a Path_fr in a config is relative to the config
        self.path = Path(os.fspath(path))
        self.raw = signals = _signals(self.path)
        self.mean, self.scale = torch.zeros(signals.shape[1], 1), torch.ones(signals.shape[1], 1)
        if standardize:
            self.mean = signals.mean((0, 2), dtype=torch.float64).float()[:, None]
            self.scale = signals.double().std((0, 2)).float()[:, None]
            if not (self.scale > 0).all():
                raise ValueError(f"{path} cannot be standardized: one of its channels is constant.")
            signals = (signals - self.mean) / self.scale
        super().__init__(signals)

    def restore(self, x: Tensor) -> Tensor:
        """Signals x (n, C, L) of a model, at the scale of the file."""
        return x * self.scale + self.mean

    def __str__(self) -> str:
        (k, c, length), x = self.raw.shape, self.raw
        scale = f"mean {x.mean():.4g}, standard deviation {x.std():.4g}, from {x.min():.4g} to {x.max():.4g}"
        used = "standardized for training" if (self.scale != 1).any() else "used at this scale"
        return f"{self.path.name}: {k} signals of {c} × {length} samples; {scale}; {used}"


def signal_shape(family: Source) -> tuple[int, int]:
    """(C, L) of the signals of a family or a file."""
    _, channels, length = family.sample(1, torch.Generator())[0].shape
    return channels, length


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


def _signals(path: Path) -> Tensor:
    """The signals of a file, (K, C, L) in float32."""
    x = _array(path)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{path} holds {x.dtype}: signals are real numbers, floating point or whole.")
    x = x[:, None] if x.ndim == 2 else x
    if x.ndim != 3 or 0 in x.shape or len(x) < 2:
        raise ValueError(f"{path} must hold at least 2 signals, (K, L) or (K, C, L), got shape {_shape(x)}.")
    if x.dtype != np.float32:
        warnings.warn(f"{path.name} holds {x.dtype}: it is converted to float32.", stacklevel=3)
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(x).all((1, 2)))
    if len(broken):
        raise ValueError(
            f"{path} must be finite, but {len(broken)} of {len(x)} signals hold NaN or infinity in float32, "
            f"first signal {broken[0]}."
        )
    return torch.from_numpy(np.asarray(x))


def _shape(x: np.ndarray) -> tuple[int, ...]:
    return (x.shape[0], x.shape[2]) if x.ndim == 3 and x.shape[1] == 1 else x.shape


def _array(path: Path) -> np.ndarray:
    """What the file holds. Pickle is refused: it can run code."""
    read = {".npy": _npy, ".npz": _npz, ".parquet": _parquet}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path} is neither .npy nor .npz nor .parquet: save the signals as one of these.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        return read(path)
    except ImportError as error:
        raise ValueError(f"Reading {path} needs pyarrow: pip install pyarrow.") from error
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _npy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="c", allow_pickle=False)  # c: torch wants memory that it may write to


def _npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        names = file.files
        if "signals" not in names and len(names) != 1:
            raise ValueError(f"one array, or one named signals, was expected, got {', '.join(names) or 'none'}.")
        return file["signals" if "signals" in names else names[0]]


def _parquet(path: Path) -> np.ndarray:
    from pyarrow import parquet, types

    table = parquet.read_table(path, memory_map=True)
    if not table.num_columns or any(column.null_count for column in table.columns):
        raise ValueError("it has no columns, or missing values.")
    lists = [c for c in table.columns if types.is_list(c.type) or types.is_fixed_size_list(c.type)]
    if not lists:
        return np.stack([column.to_numpy() for column in table.columns], 1)
    if len(lists) > 1:
        raise ValueError(f"one column of lists was expected, got {len(lists)}.")
    column = lists[0].combine_chunks()
    flat = column.flatten()
    lengths = {len(row) for row in column}
    if len(lengths) != 1 or flat.null_count:
        raise ValueError(f"its signals must have one length and no missing values; lengths {sorted(lengths)[:5]}.")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


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
    with written(path) as file:
        np.savez(file, **{k: v.detach().cpu().numpy().astype("<f4") for k, v in tensors.items()})  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as archive:
        places = {info.filename.removesuffix(".npy"): _place(archive, info) for info in archive.infolist()}
    weights = {k: {"shape": list(v.shape), "offset": places[k]} for k, v in tensors.items()}
    with written(path.with_suffix(".json")) as file:
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
    from . import plots

    plots.style()
    first = signals[:16]
    fig, axes = plots.panels(math.ceil(len(first) / 4), 4, sharey=True)
    for ax in axes.flat[len(first) :]:
        ax.set_axis_off()
    for ax, signal in zip(axes.flat, first, strict=False):
        plots.curves(ax, x, signal)
    with written(path) as file:
        fig.savefig(file, format="png", metadata={"Software": None})
    return True
