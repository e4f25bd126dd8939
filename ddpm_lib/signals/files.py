"""Signals of your own from a file."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import Path_fr
from torch import Tensor

from ..shapes import Float
from .finite import Finite
from .source import digest

__all__ = ["Signals"]


class Signals(Finite):
    """Signals of your own from a file: each equally likely, at the scale of the file.

    Args:
        path: ``.npy``, one array (K, L) or (K, C, L), memory-mapped where it is float32; ``.npz``, the same, named
            ``signals`` or alone; ``.parquet``, one column of lists, each a signal, or columns of numbers, each row
            a signal. K signals (at least 2) of C channels and L samples, finite; whole numbers become float32.
        standardize: subtract the mean of each channel and divide by its standard deviation. `restore` returns samples
            to the scale of the file.

    Attributes:
        raw: (K, C, L), as in the file.
        mean: (C, 1), of each channel; 0 without ``standardize``.
        scale: (C, 1), the standard deviation of each channel; 1 without ``standardize``.

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

    def identity(self) -> str:
        """What the file holds, and whether it is standardized."""
        return f"signals {digest(self.raw)}{' standardized' if (self.scale != 1).any() else ''}"

    def restore(self, x: Float[Tensor, "n C L"]) -> Float[Tensor, "n C L"]:
        """Return signals x of a model at the scale of the file."""
        return x * self.scale + self.mean

    def __str__(self) -> str:
        (k, c, length), x = self.raw.shape, self.raw
        scale = f"mean {x.mean():.4g}, standard deviation {x.std():.4g}, from {x.min():.4g} to {x.max():.4g}"
        used = "standardized for training" if (self.scale != 1).any() else "used at this scale"
        return f"{self.path.name}: {k} signals of {c} × {length} samples; {scale}; {used}"


def _signals(path: Path) -> Float[Tensor, "K C L"]:
    """Read the signals of a file, in float32."""
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
    invalid = np.flatnonzero(~np.isfinite(x).all((1, 2)))
    if len(invalid):
        raise ValueError(
            f"{path} must be finite, but {len(invalid)} of {len(x)} signals hold NaN or infinity in float32, "
            f"first signal {invalid[0]}."
        )
    return torch.from_numpy(np.require(np.asarray(x), requirements="W"))  # a view of a Parquet file is read-only


def _shape(x: np.ndarray) -> tuple[int, ...]:
    return (x.shape[0], x.shape[2]) if x.ndim == 3 and x.shape[1] == 1 else x.shape


def _array(path: Path) -> np.ndarray:
    """Read the array of a file. Pickle is refused: it can run code."""
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
    return np.load(path, mmap_mode="c", allow_pickle=False)  # c: torch needs writable memory


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
