"""A trained denoiser to play with: noise becomes a wavelet, a hole in a signal is filled (chapter `sampling`).

With a live kernel torch samples; in the built pages a worker does, from a script of `page`. The front end is
`sampler.js`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anywidget
import torch
import traitlets
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.measurement import Measurement
from ..measures.fit import fit_family
from ..sampling.conditioning import ClassifierFreeGuidance
from ..sampling.grids import TILT, even_log_snr
from ..sampling.inverse import LinearCovariance, PseudoinverseGuidance
from ..sampling.loop import sample
from ..sampling.steps import ALL as STEPPERS
from ..signals.family import Family
from .model_script import manifest, script_name

__all__ = ["Sampler"]


HERE = Path(__file__).with_name("js")


SIGMA = 0.01  # the noise of a measured sample, where holes are filled


STEPS = {step.__name__: step for step in STEPPERS}  # the front end sends a name


class Sampler(anywidget.AnyWidget):
    """Press, and noise becomes a wavelet: sampler, steps, seed; the fit and its residual; holes to fill.

    Args:
        denoiser: a `LinearSkip` around a `UNet1D` with `Eps()`. Where it has conditions, they can be set.
        family: the benchmark family, which every sample is fitted by.
        title: a few words above the curves.
        seed: the one that is shown first. One seed draws other noise in the page than torch does in a kernel.

    Raises:
        ValueError: a denoiser or a family that the page cannot compute.

    >>> from ddpm_lib import BenchmarkMorlet, Recipe
    >>> Sampler(Recipe().build(), BenchmarkMorlet(), title="Try it")
    Sampler('Try it': BenchmarkMorlet, no conditions)
    """

    _esm = "\n".join((HERE / part).read_text("utf-8") for part in ("stage.js", "noise.js", "sampler.js"))

    meta = traitlets.Dict().tag(sync=True)

    def __init__(self, denoiser: Denoiser, family: Family, *, title: str = "Play with the sampler", seed: int = 1):
        facts = manifest(denoiser, family)
        conditional = any(name.startswith("network.conditions") for name, _ in facts["tensors"])
        limits = {side: [round(v, 6) for v in facts["family"][side]] for side in ("low", "high")}
        self.denoiser, self.family = denoiser, family
        super().__init__(
            meta={
                "title": title,
                "seed": seed,
                "names": list(family.names),
                "grid": [float(family.x[0]), float(family.x[-1]), family.length],
                "conditions": list(family.names) if conditional else [],
                "script": script_name(denoiser),
                **limits,
            }
        )
        self.on_msg(self._hear)

    def _hear(self, _: Any, request: Mapping[str, Any], buffers: Any) -> None:
        try:
            for reply, curve in replies(self.denoiser, self.family, request):
                self.send(reply, [curve.flatten().numpy().astype("<f4").tobytes()])
        except Exception as error:  # nobody reads the log of a kernel: the figure says what went wrong
            self.send({"run": request.get("run"), "error": str(error)})

    def __repr__(self) -> str:
        conditions = ", ".join(self.meta["conditions"]) or "no"
        return f"Sampler({self.meta['title']!r}: {type(self.family).__name__}, {conditions} conditions)"


def replies(denoiser: Denoiser, family: Family, request: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """What the worker of the page would say to a request: (content, curve) of every state, then of the fit.

    Args:
        request: run (any number, sent back), sampler, steps, seed, cond (a value or None for each parameter, or
            empty), and for a signal with holes signal (L numbers) and known (L truth values).
    """
    run, device = request["run"], next(denoiser.network.parameters()).device
    source: Any = denoiser
    if request["cond"]:
        source = ClassifierFreeGuidance(
            denoiser, torch.tensor([[math.nan if value is None else value for value in request["cond"]]])
        )
    if request.get("signal") is not None:
        known, y = torch.tensor(request["known"], dtype=torch.bool), torch.tensor(request["signal"])
        if known.any():
            measured = Measurement.samples(known, SIGMA)
            source = PseudoinverseGuidance(LinearCovariance(source), measured, y[known][None].to(device))
    times = even_log_snr(denoiser.schedule, request["steps"], TILT)
    generator = torch.Generator().manual_seed(request["seed"])
    shape = (1, 1, family.length)
    for k, x in enumerate(sample(source, shape, times, STEPS[request["sampler"]], generator, device)):
        yield {"run": run, "k": k, "t": times[k], "curve": "x"}, x.cpu()
    fit = fit_family(x.cpu(), family)
    content = {"params": fit.params[0].tolist(), "residual": fit.residual.item(), "valid": bool(fit.valid)}
    yield {"run": run, **content, "curve": "fitted"}, fit.signals


ALL = (Sampler,)
