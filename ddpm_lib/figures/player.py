"""Interactive figures that work with a live kernel (Jupyter, Colab) and, in the built pages, without one.

Needs anywidget (the extra `book`); nothing else in the library imports this module. The front end, in plain
JavaScript, is `path_player.js`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

__all__ = ["PathPlayer"]


_INT16 = 32767


class PathPlayer(anywidget.AnyWidget):
    """Curves that change from frame to frame, with a slider and a play button.

    Args:
        frames: name of a curve -> its values, (F, L): F frames of L samples; (L,) for a curve that stays; or (F, n, L)
            for n curves that share a name and a colour.
        description: what the figure shows, in words, for readers who cannot see it.
        labels: F texts, one a frame ("t = 250, SNR 1.1"); by default "frame 1 of F", ...
        x: (L,) positions of the samples; by default 0, 1, ..., L-1.
        title: a few words above the curves.
        x_label: what x is, with its unit.
        colors: name of a curve -> any CSS colour; others take the page's defaults.
        start: the frame shown first, 0..F-1.

    The values travel as 16-bit integers (a step is 1/65534 of the range), so that 60 frames of two curves of 128
    samples make 40 kB of saved state. `frame` (int, 0..F-1) is the frame shown; a kernel can set and observe it.

    Raises:
        ValueError: for no curve, a curve of another shape than (F, L) or (L,), values that are not finite, labels,
            colours, x or start that do not fit the curves.

    >>> import numpy as np
    >>> PathPlayer({"x_t": np.zeros((3, 8))}, description="A flat line.", title="Nothing happens")
    PathPlayer('Nothing happens': 3 frames of x_t)
    """

    _esm = (Path(__file__).with_name("js") / "path_player.js").read_text("utf-8")

    frame = traitlets.Int(0).tag(sync=True)
    meta = traitlets.Dict().tag(sync=True)
    values = traitlets.Bytes(b"").tag(sync=True)

    def __init__(
        self,
        frames: Mapping[str, Any],
        *,
        description: str,
        labels: Sequence[str] | None = None,
        x: Any = None,
        title: str = "",
        x_label: str = "",
        colors: Mapping[str, str] | None = None,
        start: int = 0,
    ) -> None:
        curves = {(name, k): one for name, value in frames.items() for k, one in enumerate(_arrays(name, value))}
        if not curves:
            raise ValueError("frames is empty; at least one curve is needed.")
        if not description.strip():
            raise ValueError("description is empty; say in words what the figure shows.")
        n = max(len(curve) for curve in curves.values())
        length = next(iter(curves.values())).shape[1]
        for (name, _), curve in curves.items():
            if curve.shape not in {(n, length), (1, length)}:
                raise ValueError(f"Curve {name!r} is {curve.shape}; ({n}, {length}) or ({length},) is expected.")
        places = np.arange(length) if x is None else np.asarray(x, dtype=float)
        if places.shape != (length,) or not np.isfinite(places).all():
            raise ValueError(f"x must be {length} finite numbers, one a sample; its shape is {places.shape}.")
        texts = [f"frame {i + 1} of {n}" for i in range(n)] if labels is None else [str(text) for text in labels]
        if len(texts) != n:
            raise ValueError(f"labels has {len(texts)} texts; {n} are expected, one a frame.")
        unknown = sorted(set(colors or {}) - set(frames))
        if unknown:
            raise ValueError(f"colors names {unknown[0]!r}, which is no curve; the curves are {', '.join(frames)}.")
        if not 0 <= start < n:
            raise ValueError(f"start is {start}; it must be a frame, 0..{n - 1}.")

        every = np.concatenate([curve.ravel() for curve in curves.values()])
        low, high = float(every.min()), float(every.max())
        if low == high:
            low, high = low - 1.0, high + 1.0
        scaled = np.round(((every - low) / (high - low) * 2 - 1) * _INT16).astype("<i2")
        meta = {
            "curves": [
                {"name": "" if k else name, "frames": len(curve), "color": (colors or {}).get(name, "")}
                for (name, k), curve in curves.items()
            ],
            "frames": n,
            "length": length,
            "low": round(low, 6),
            "high": round(high, 6),
            "x": [round(float(value), 6) for value in (places.min(), places.max())],
            "places": [round(float(p), 6) for p in places] if _uneven(places) else [],
            "labels": texts,
            "title": title,
            "description": description.strip(),
            "x_label": x_label,
        }
        super().__init__(meta=meta, values=scaled.tobytes(), frame=start)

    def __repr__(self) -> str:
        names = ", ".join(curve["name"] for curve in self.meta["curves"] if curve["name"])
        return f"PathPlayer({self.meta['title']!r}: {self.meta['frames']} frames of {names})"


def _arrays(name: str, value: Any) -> list[np.ndarray]:
    """The curves of one name, each (F, L) float64; F = 1 for one that stays."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value, dtype=float)
    if array.ndim not in (1, 2, 3) or 0 in array.shape:
        raise ValueError(f"Curve {name!r} is {array.shape}; (F, L), (L,) or (F, n, L) is expected, none of them 0.")
    if not np.isfinite(array).all():
        raise ValueError(f"Curve {name!r} has values that are not finite.")
    return list(array.swapaxes(0, 1)) if array.ndim == 3 else [array if array.ndim == 2 else array[None]]


def _uneven(places: np.ndarray) -> bool:
    return len(places) > 2 and not np.allclose(np.diff(places), np.ptp(places) / (len(places) - 1))


ALL = (PathPlayer,)
