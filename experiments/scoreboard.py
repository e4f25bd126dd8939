"""Every method of the book on one family, one row each: ``python -m experiments.scoreboard`` (make scoreboard).

What needs no training is measured anew, on fresh signals: real ones, the exact and the linear denoiser, the network
that ships, each with its sampler. What was trained for a chapter is read from that chapter's table, three seeds each.
"""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from ddpm_lib import (
    BenchmarkMorlet,
    Estimate,
    FamilyOracle,
    Gaussian,
    Recipe,
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    fit_gaussian,
    linear,
    pretrained,
    sample,
)
from ddpm_lib.diffusion import log_likelihood
from ddpm_lib.exact import NoisyOracle
from ddpm_lib.signals import Noisy
from ddpm_lib.training.store import SHIPPED

from . import data, few_steps, flow, models, noise, targets
from .claims import interval, number
from .runner import SAMPLES, judged, ratio

FAMILY, SCHEDULE = BenchmarkMorlet(), linear()
INSTRUMENT = 0.1  # noise of the data of which the likelihood is asked: clean wavelets have no density


@dataclass(frozen=True)
class Row:
    """One method. What was not measured of it is None.

    Attributes:
        method: the chapter that tells of it, and its name.
        weights: of the network.
        seconds: of training, on one core (the network that ships: on two).
        evaluations: of the denoiser, a sample.
        loss: over the floor, all t.
        valid: share of samples.
        law, distance: the worst law of three and the distance to real signals, over their critical values.
        bits: per dimension above the truth, of wavelets with noise 0.1.
    """

    method: str
    weights: float | None = None
    seconds: float | None = None
    evaluations: int | None = None
    loss: Estimate | None = None
    valid: Estimate | None = None
    law: Estimate | None = None
    distance: Estimate | None = None
    bits: Estimate | None = None


def titled(chapter: str, method: str) -> str:
    """A method with the number of its chapter."""
    return f"{number(chapter):<2} {method}"


def scores(runs: list[dict[str, float]]) -> dict[str, Estimate]:
    """Validity, worst law and distance of what `judged` says of some batches."""
    worst = [max(value for key, value in run.items() if key.startswith("law_")) for run in runs]
    named = {"valid": [run["valid"] for run in runs], "distance": [run["distance"] for run in runs]}
    return {name: Estimate(*interval(values)) for name, values in (named | {"law": worst}).items()}


def drawn(denoiser: Any, n: int, step: Any, times: list[float] | int, seeds: int = 3) -> dict[str, Estimate]:
    """Scores of n samples, some seeds."""
    found = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(SAMPLES + 10 + seed)
        *_, x = sample(denoiser, (n, 1, FAMILY.length), times, step, generator)
        found.append(judged(x, FAMILY))
    return scores(found)


def bits(denoiser: Any, truth: torch.Tensor, y: torch.Tensor, steps: int) -> Estimate:
    """Bits per dimension of the flow of a denoiser above the true ones, on noisy wavelets."""
    found = log_likelihood(NoisyOracle(denoiser, INSTRUMENT), y, steps=steps).nats
    apart = (truth - found).double() / (FAMILY.length * math.log(2))
    return Estimate(float(apart.mean()), float(1.96 * apart.std() / math.sqrt(len(apart))))


def measured(n: int = 1024) -> list[Row]:
    """The rows that need no training, measured now."""
    exact = FamilyOracle(FAMILY, SCHEDULE)
    best_linear = Gaussian(*fit_gaussian(FAMILY.sample(50_000, torch.Generator().manual_seed(1))[0]), SCHEDULE)
    unet, recipe = pretrained(), Recipe()
    y, _ = Noisy(FAMILY, INSTRUMENT).sample(8, torch.Generator().manual_seed(SAMPLES))
    truth = NoisyOracle(exact, INSTRUMENT).log_density(y)
    real = [judged(FAMILY.sample(n, torch.Generator().manual_seed(SAMPLES + 20 + k))[0], FAMILY) for k in range(3)]
    weights = sum(p.numel() for p in unet.network.parameters())
    (seconds,) = re.findall(r"seconds to train.*\| (\d+) \|", (SHIPPED / "README.md").read_text("utf-8"))
    ours = {"weights": weights, "seconds": float(seconds), "loss": ratio(recipe, unet, 1, 1000, 4096)}
    rows = [
        Row(titled("is_it_any_good", "real signals"), **scores(real)),
        Row(titled("best_denoiser", "the exact denoiser, SDE-2M"), evaluations=20, loss=Estimate(1.0, 0.0),
            bits=Estimate(0.0, 0.0), **drawn(exact, n // 4, dpmpp_2m_sde, 20)),
        Row(titled("best_denoiser", "the linear denoiser, SDE-2M"), evaluations=20,
            loss=ratio(recipe, best_linear, 1, 1000, 4096), bits=bits(best_linear, truth, y, 16),
            **drawn(best_linear, n, dpmpp_2m_sde, 20)),
        Row(titled("training", "what ships, SDE-2M"), evaluations=20, **ours, bits=bits(unet, truth, y, 16),
            **drawn(unet, n, dpmpp_2m_sde, 20)),
    ]  # fmt: skip
    for name, step in {"2M": dpmpp_2m, "DDIM": ddim, "ancestral": ancestral}.items():
        rows.append(
            Row(titled(few_steps.CHAPTER, f"what ships, {name}"), evaluations=20, **ours, **drawn(unet, n, step, 20))
        )
    return rows


def stored() -> list[Row]:
    """The rows that stand in the tables of the chapters, with three seeds each."""
    rows = [
        *(of(models, run, run) for run in MODELS),
        of(noise, "0.1", "trained on noise 0.1 alone, cleaned", "to √2: "),
        *(of(data, run, f"{run} training signals") for run in ("60", "250", "1 000", "10 000")),
        *(of(targets, run, run) for run in TARGETS),
        *(of(few_steps, "ancestral", f"what ships, ancestral, {n} steps", f"{n}: ", n) for n in (1000, 100)),
        *(of(few_steps, "distilled", f"what ships, distilled to {n}", f"{n}: ", n) for n in (8, 4, 2, 1)),
        *(of(flow, run, run, "2m sde 20: ") for run in FLOWS),
    ]
    return [row for row in rows if row is not None]


MODELS = (
    "the U-Net", "plain conv net", "no bridges", "not told the noise level", "one number for the linear denoiser",
    "the U-Net, t uniform", "no linear denoiser, t uniform", "MLP", "MLP, 7 times as long",
)  # fmt: skip
TARGETS = ("plain, x₀ with its own loss", "plain, v with its own loss", "min-SNR-5", "the bound")
FLOWS = ("plain, flow matching", "the recipe, flow matching, t by error")


def of(module: ModuleType, run: str, name: str, prefix: str = "", evaluations: int = 20) -> Row | None:
    """The row of a run; None where the table has not three seeds of it."""
    rows = [row for row in module.EXPERIMENT.rows() if row["run"] == run]
    if len(rows) < 3:
        return None

    def column(key: str) -> Estimate | None:
        values = [float(row[key]) for row in rows if row.get(key)]
        return Estimate(*interval(values)) if len(values) == len(rows) else None

    worst = [max((float(v) for k, v in row.items() if k.startswith(f"{prefix}law_")), default=0.0) for row in rows]
    law = column(f"{prefix}law") or Estimate(*interval(worst))
    weights = column("weights")
    # the median: one row in some was made while the machine did other things; what trains nothing has no time
    seconds = None if run in few_steps.SAMPLERS else statistics.median(float(row["seconds"]) for row in rows)
    return Row(
        titled(module.CHAPTER, name), weights and weights.value, seconds, evaluations, column("loss"),
        column(f"{prefix}valid"), law, column(f"{prefix}distance"),
    )  # fmt: skip


def text(rows: list[Row]) -> str:
    """The rows as a table."""

    def cell(value: Any, form: str, width: int) -> str:
        if value is None:
            return "–".rjust(width)
        if isinstance(value, Estimate):
            return f"{value.value:{form}} ± {value.margin:{form}}".rjust(width)
        return f"{value:{form}}".rjust(width)

    titles = {"weights": 9, "seconds": 8, "asked": 6, "loss / floor": 16, "valid": 15, "worst law": 14, "distance": 15}
    lines = [f"{'':42}" + "".join(name.rjust(width) for name, width in titles.items()) + "      bits above"]
    for row in rows:
        cells = (
            (row.weights, ",.0f", 9), (row.seconds, ".0f", 8), (row.evaluations, "d", 6), (row.loss, ".3f", 16),
            (row.valid, ".1%", 15), (row.law, ".2f", 14), (row.distance, ".2f", 15), (row.bits, ".3f", 16),
        )  # fmt: skip
        lines.append(f"{row.method:42}" + "".join(cell(*one) for one in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    print(text([*measured(), *stored()]))
