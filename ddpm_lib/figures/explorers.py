"""Interactive figures that compute a formula of the book as the reader moves what is in it.

Chapters `forward_process`, `reverse_process` and `the_bound`.

They work in the built pages as in a live kernel: the tables come from the library, the front end is the formula in
JavaScript, and a test in a browser holds it to Python's. What the reader has set is a trait that Python can read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor

from ..checks import check_tensor
from ..diffusion.schedules import Schedule, cosine, linear, log_linear, quadratic, sigmoid
from ..signals.family import Family
from ..signals.wavelets import BenchmarkMorlet

__all__ = ["BoundExplorer", "ForwardExplorer", "PosteriorExplorer"]


HERE = Path(__file__).with_name("js")


NOT_RESCALED = "linear, β not rescaled"


def _script(*parts: str) -> str:
    return "\n".join((HERE / part).read_text("utf-8") for part in parts)


def _logs(schedule: Schedule) -> np.ndarray:
    """log ᾱ_t, t = 0…T."""
    return np.asarray(schedule.log_alpha_bar(torch.arange(schedule.T + 1)))


def _not_rescaled(T: int) -> Schedule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it leaves too much of the signal is what it is there to show
        return Schedule.from_betas(torch.linspace(1e-4, 0.02, T, dtype=torch.float64))


class ForwardExplorer(anywidget.AnyWidget):
    """A wavelet, a schedule, a number of steps, a time: what is seen, what is left, and where on the schedule one is.

    Args:
        params: (b, s, w) of the wavelet that is shown first.
        steps: numbers of steps T to choose from, ascending.
        t: the time that is shown first, of the last T.
        title: a few words above the curves.

    >>> ForwardExplorer()
    ForwardExplorer(6 schedules, T in (50, 100, 300, 1000))
    """

    _esm = _script("stage.js", "noise.js", "forward_explorer.js")
    meta = traitlets.Dict().tag(sync=True)
    tables = traitlets.Bytes(b"").tag(sync=True)
    t = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        params: Sequence[float] = (-0.5, 0.7, 5.5),
        *,
        steps: Sequence[int] = (50, 100, 300, 1000),
        t: int = 200,
        title: str = "A wavelet sinks into noise",
    ):
        family: Family = BenchmarkMorlet()
        curves = (linear, quadratic, cosine, sigmoid, log_linear)  # those of chapter `forward_process`
        made = {make.__name__.replace("_", "-"): make for make in curves} | {NOT_RESCALED: _not_rescaled}
        tables = [_logs(make(T)) for make in made.values() for T in steps]
        self._says = f"ForwardExplorer({len(made)} schedules, T in {tuple(steps)})"
        super().__init__(
            meta={
                "title": title,
                "schedules": list(made),
                "steps": list(steps),
                "names": list(family.names),
                "low": [round(v, 6) for v in family.low.tolist()],
                "high": [round(v, 6) for v in family.high.tolist()],
                "grid": [float(family.x[0]), float(family.x[-1]), family.length],
                "start": [float(v) for v in params],
            },
            tables=np.concatenate(tables).astype("<f4").tobytes(),
            t=t,
        )

    def __repr__(self) -> str:
        return self._says


class PosteriorExplorer(anywidget.AnyWidget):
    """x_0, x_t and t: where x_{t-1} lies, by report (40), (42) and (43), for one number instead of a signal.

    Args:
        steps: numbers of steps T of the linear schedule to choose from; the first is shown first.
        t: the time that is shown first.
        title: a few words above the curves.

    >>> PosteriorExplorer()
    PosteriorExplorer(T in (10, 50, 1000))
    """

    _esm = _script("stage.js", "posterior_explorer.js")
    meta = traitlets.Dict().tag(sync=True)
    tables = traitlets.Bytes(b"").tag(sync=True)
    t = traitlets.Int(2).tag(sync=True)

    def __init__(
        self, *, steps: Sequence[int] = (10, 50, 1000), t: int = 4, title: str = "Where was x one step before?"
    ):
        tables = [_logs(linear(T)) for T in steps]
        super().__init__(
            meta={"title": title, "steps": list(steps)},
            tables=np.concatenate(tables).astype("<f8").tobytes(),
            t=t,
        )

    def __repr__(self) -> str:
        return f"PosteriorExplorer(T in {tuple(self.meta['steps'])})"


class BoundExplorer(anywidget.AnyWidget):
    """The terms L_t of the bound over t, for a variance between β̃ and β or the best one: steps D11 and D13.

    Args:
        errors: name of a denoiser → its E‖x_0 - x̂_0‖² at t = 1…T, (T,).
        schedule: the schedule of all of them.
        dim: dimensions of a signal, C·L.
        mix: where between β̃ (0) and β (1) the variance lies at first, in the logarithm.
        title: a few words above the curves.

    >>> BoundExplorer({"a guess": torch.ones(1000)}, linear(), 128)
    BoundExplorer(a guess; T = 1000)
    """

    _esm = _script("stage.js", "bound_explorer.js")
    meta = traitlets.Dict().tag(sync=True)
    tables = traitlets.Bytes(b"").tag(sync=True)
    mix = traitlets.Float(1.0).tag(sync=True)

    def __init__(
        self,
        errors: Mapping[str, Tensor],
        schedule: Schedule,
        dim: int,
        *,
        mix: float = 1.0,
        title: str = "The terms of the bound",
    ):
        columns = [_logs(schedule)]
        for name, error in errors.items():
            checked = check_tensor(error, f"The error of {name!r} at t = 1…{schedule.T}", schedule.T)
            columns.append(np.concatenate([[0.0], np.asarray(checked.detach().cpu().double())]))
        super().__init__(
            meta={"title": title, "names": list(errors), "dim": dim, "T": schedule.T, "bits": True},
            tables=np.concatenate(columns).astype("<f8").tobytes(),
            mix=float(mix),
        )

    def __repr__(self) -> str:
        return f"BoundExplorer({', '.join(self.meta['names'])}; T = {self.meta['T']})"


ALL = (ForwardExplorer, PosteriorExplorer, BoundExplorer)
