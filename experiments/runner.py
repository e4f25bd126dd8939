"""Declared experiments: what to train, how often, what to measure; a table that goes on where it was stopped."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ddpm_lib import (
    Denoiser,
    Estimate,
    FamilyOracle,
    Recipe,
    Schedule,
    energy_distance,
    fit,
    fit_family,
    loss_over_floor,
    proportion,
    q_sample,
    sample,
    stream,
)
from ddpm_lib.exact import MixtureOracle
from ddpm_lib.measures import parameter_distances, predicted_noise
from ddpm_lib.signals import Mixture
from ddpm_lib.training.atomic import atomic_write

TABLES = Path(__file__).resolve().parent
LOCKS = TABLES.parent / "_build" / "locks"
BANDS = {"t_1_10": (1, 10), "t_11_100": (11, 100), "t_101_400": (101, 400), "t_401_1000": (401, 1000)}
TEST, SAMPLES = 70_001, 70_002  # seeds that no training run has
FORMAT = 1  # of the tables; another number, where what a column means has changed, makes all rows anew

Measure = Callable[[Recipe, Denoiser], dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """A grid of recipes that differ from one default in one thing each, and what is measured of them.

    Args:
        name: of the table, ``experiments/NAME.csv``.
        recipes: by the name of the change.
        seeds: how often each is trained.
        measure: (recipe, trained denoiser) → columns of the table; a tensor goes into ``experiments/NAME.npz``
            under the name of the run, from the first seed.
        watch: recipe → a Lightning callback that watches the training; its dictionary ``found`` joins the columns.
    """

    name: str
    recipes: Mapping[str, Recipe]
    seeds: Iterable[int]
    measure: Measure
    watch: Callable[[Recipe], Any] | None = None

    @property
    def table(self) -> Path:
        return TABLES / f"{self.name}.csv"

    @property
    def tensors(self) -> Path:
        return TABLES / f"{self.name}.npz"

    def rows(self) -> list[dict[str, str]]:
        """The table as it is: one dictionary a row."""
        if not self.table.exists():
            return []
        with self.table.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def missing(self) -> list[tuple[str, int, Recipe]]:
        """The runs that the table lacks: another recipe under the same name, or another format, counts as lacking.

        First every run with the first seed, then with the next: a table that is half filled compares like with like.
        """
        grid = product(self.seeds, self.recipes.items())
        wanted = [(run, seed, replace(recipe, seed=seed)) for seed, (run, recipe) in grid]
        return [one for one in wanted if not self.has(*one)]

    def has(self, run: str, seed: int, recipe: Recipe) -> bool:
        """Whether the table has this run, of this recipe and in this format."""
        key = run, str(seed), recipe.fingerprint(), str(FORMAT)
        return any((r["run"], r["seed"], r["recipe"], r["format"]) == key for r in self.rows())

    def fill(self, seeds: Iterable[int] | None = None) -> None:
        """Train and measure what is missing (of these seeds only), row after row; a row is written when it is done.

        Any number of processes may fill a table together: a row is made by the one that locked it first.
        """
        wanted = set(self.seeds if seeds is None else seeds)
        missing = [one for one in self.missing() if one[1] in wanted]
        print(f"{self.name}: {len(self.rows())} rows are there, {len(missing)} to go", flush=True)
        for run, seed, recipe in missing:
            try:
                with self.lock(f"row-{recipe.fingerprint()}", timeout=0):
                    if not self.has(run, seed, recipe):  # another process may have made it meanwhile
                        start = time.perf_counter()
                        self.make(run, seed, recipe)
                        print(f"  {self.name}: {run}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
            except Timeout:
                continue  # another process is at it

    def make(self, run: str, seed: int, recipe: Recipe) -> None:
        """Train one recipe, measure it, and put its row into the table."""
        start = time.perf_counter()
        watch = None if self.watch is None else self.watch(recipe)
        denoiser = fit(recipe, callbacks=[] if watch is None else [watch]).denoiser
        row = self.head(run, seed, recipe) | {
            "weights": sum(p.numel() for p in denoiser.network.parameters()),
            "seconds": round(time.perf_counter() - start),
        }
        found = self.measure(recipe, denoiser) | ({} if watch is None else watch.found)
        drawn = {f"{run}: {k}": v.numpy() for k, v in found.items() if isinstance(v, torch.Tensor)}
        if drawn and seed == next(iter(self.seeds)):
            self.keep(drawn)
        self.append(row | {k: v for k, v in found.items() if not isinstance(v, torch.Tensor)})

    def head(self, run: str, seed: int, recipe: Any) -> dict[str, Any]:
        """How a row begins: what it is of, and what made it."""
        return {
            "run": run,
            "seed": seed,
            "recipe": recipe.fingerprint(),
            "format": FORMAT,
            "torch": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(),
        }

    def lock(self, name: str, timeout: float = -1) -> FileLock:
        """A lock among the processes that fill this table; one that was killed lets go of it."""
        LOCKS.mkdir(parents=True, exist_ok=True)
        return FileLock(LOCKS / f"{self.name}-{name}.lock", timeout=timeout)

    def keep(self, drawn: Mapping[str, np.ndarray]) -> None:
        """Add arrays to the file beside the table, before its row: a row that is there has its arrays."""
        with self.lock("arrays"):
            there = dict(np.load(self.tensors)) if self.tensors.exists() else {}
            with atomic_write(self.tensors) as file:
                np.savez_compressed(file, **(there | drawn))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; rows of the same run and seed that it replaces are dropped."""
        with self.lock("table"), StringIO() as text:
            rows = [r for r in self.rows() if (r["run"], r["seed"]) != (row["run"], str(row["seed"]))]
            columns = list(dict.fromkeys([*(rows[0] if rows else ()), *row]))
            writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows([*rows, {k: _brief(v) for k, v in row.items()}])
            with atomic_write(self.table) as file:
                file.write(text.getvalue().encode())


def _brief(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


@cache
def fresh(family: Any, schedule: Schedule, low: int, high: int, n: int) -> tuple[torch.Tensor, ...]:
    """Fresh x0, t in low…high and ε, and the exact ε* of them: computed once, however many denoisers are measured."""
    generator = torch.Generator().manual_seed(TEST + low)
    x0, _ = family.sample(n, generator)
    t = torch.randint(low, high + 1, (n,), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    exact = MixtureOracle(family, schedule) if isinstance(family, Mixture) else FamilyOracle(family, schedule)
    return x0, t, eps, predicted_noise(exact, q_sample(x0, t, eps, schedule), t)


def ratio(recipe: Recipe, denoiser: Denoiser, low: int, high: int, n: int) -> Estimate:
    """Loss over floor of a denoiser for t in low…high."""
    x0, t, eps, exact = fresh(recipe.family, recipe.schedule, low, min(high, recipe.schedule.T), n)
    return loss_over_floor(denoiser, exact, x0, t, eps)


def losses(recipe: Recipe, denoiser: Denoiser) -> dict[str, float]:
    """Loss over floor: over all t with its margin, and by bands of t."""
    whole = ratio(recipe, denoiser, 1, recipe.schedule.T, 4096)
    found = {"loss": whole.value, "loss_margin": whole.margin}
    for name, (low, high) in BANDS.items():
        found[name] = ratio(recipe, denoiser, low, high, 1024).value
    return found


def samples(recipe: Recipe, denoiser: Denoiser, n: int = 1024, **sampler: Any) -> dict[str, float]:
    """Validity of n samples and the laws of their parameters over the critical value."""
    generator = stream(SAMPLES, recipe.seed, 0)
    *_, x = sample(denoiser, (n, 1, recipe.family.length), generator=generator, **sampler)
    return judged(x, recipe.family)


def judged(x: torch.Tensor, family: Any) -> dict[str, float]:
    """Validity of signals, median residual; laws of the parameters and distance to real ones, over critical values."""
    fits = fit_family(x, family)
    valid = proportion(fits.valid)
    over = {f"law_{name}": law.value / law.floor for name, law in parameter_distances(fits, family).items()}
    generator = torch.Generator().manual_seed(SAMPLES)
    distance, floor = energy_distance(x, family.sample(len(x), generator)[0], generator=generator)
    return {
        "valid": valid.value,
        "valid_margin": valid.margin,
        "residual": float(fits.residual.median()),
        **over,
        "distance": distance.value / floor,
    }


def both(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """`losses` and `samples`, and four samples to look at."""
    four = torch.Generator().manual_seed(SAMPLES)
    *_, x = sample(denoiser, (4, 1, recipe.family.length), generator=four)
    return losses(recipe, denoiser) | samples(recipe, denoiser) | {"samples": x[:, 0]}
