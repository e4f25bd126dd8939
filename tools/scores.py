"""How good is the model that ships? It is measured on fresh signals, and one JSON line is printed (``make scores``).

``--train`` trains it first and writes it, with its card, into the package (``make model``).
"""

import argparse
import json
import platform
import statistics
import time

import torch

from ddpm_lib import (
    BenchmarkMorlet,
    FamilyOracle,
    Recipe,
    ancestral,
    dpmpp_2m_sde,
    fit_family,
    load,
    loss_over_floor,
    proportion,
    sample,
    save,
    train_or_load,
)
from ddpm_lib.measures import parameter_distances
from ddpm_lib.training import shipped_recipe
from ddpm_lib.training.store import SHIPPED, card

BANDS = ((1, 10), (11, 50), (51, 100), (101, 200), (201, 400), (401, 1000))
EVALUATIONS = 20  # the library's default
FILE = SHIPPED / "benchmark.safetensors"


def draws(n: int, low: int, high: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Fresh signals, times and noise: a seed of its own, which no training run and no tuning has seen."""
    generator = torch.Generator().manual_seed(seed)
    x0, _ = BenchmarkMorlet().sample(n, generator)
    return x0, torch.randint(low, high + 1, (n,), generator=generator), torch.randn(x0.shape, generator=generator)


def samples(denoiser, n: int, seed: int, steps: int = EVALUATIONS, step=dpmpp_2m_sde) -> torch.Tensor:
    return list(sample(denoiser, (n, 1, 128), steps, step, torch.Generator().manual_seed(seed)))[-1]


def measure(denoiser) -> dict:
    """The four figures of the JSON line."""
    family = BenchmarkMorlet()
    exact = FamilyOracle(family, denoiser.schedule)
    seconds = []
    for seed in range(3):
        start = time.perf_counter()
        samples(denoiser, 512, seed)
        seconds.append(time.perf_counter() - start)
    return {
        "loss_over_floor": round(loss_over_floor(denoiser, exact, *draws(8192, 1, 1000, seed=20_001)).value, 4),
        "valid": round(proportion(fit_family(samples(denoiser, 2048, 30_001), family).valid).value, 4),
        "evaluations": EVALUATIONS,
        "seconds_per_512": round(statistics.median(seconds), 2),
    }


def table(denoiser) -> list[tuple[str, str]]:
    """The rows of the model card."""
    family = BenchmarkMorlet()
    exact = FamilyOracle(family, denoiser.schedule)
    whole = loss_over_floor(denoiser, exact, *draws(8192, 1, 1000, seed=20_001))
    rows = [("loss over floor, t uniform on 1…1000", f"{whole.value:.3f} ± {whole.margin:.3f}")]
    for low, high in BANDS:
        part = loss_over_floor(denoiser, exact, *draws(2048, low, high, seed=20_001 + low))
        rows.append((f"loss over floor, t = {low}…{high}", f"{part.value:.3f} ± {part.margin:.3f}"))
    for steps, step in ((EVALUATIONS, dpmpp_2m_sde), (20, ancestral), (100, ancestral)):
        fits = fit_family(samples(denoiser, 2048, 30_001, steps, step), family)
        text = ", ".join(
            f"{name} {score.value / score.floor:.2f}" for name, score in parameter_distances(fits, family).items()
        )
        rows.append((f"valid of 2048, {steps} steps of {step.__name__}", str(proportion(fits.valid))))
        rows.append(("… laws: distance over its critical value", text))
        rows.append(("… residual, median and 90 %", f"{fits.residual.median():.4f}, {fits.residual.quantile(0.9):.4f}"))
    return rows


def model_card(recipe: Recipe, denoiser, seconds: float) -> str:
    weights = sum(p.numel() for p in denoiser.network.parameters())
    figures = "\n".join(f"| {name} | {value} |" for name, value in table(denoiser))
    said = "\n".join(f"| {name} | {value} |" for name, value in card(recipe).items())
    version = torch.__version__.split("+")[0]
    return f"""# benchmark.safetensors

The book's own model, `pretrained()`: a `UNet1D` around the linear denoiser, {weights:,} weights, trained on the
benchmark family by `make model`. It is `Recipe()`, whose figures the chapter on training and `benchmarks/table.md`
give, with more steps, and with parameters told in training: it generates the 128-sample wavelets of that family, of
given parameters if asked, and is good for nothing else. Licence: MIT. `make scores` measures it again.

| recipe | |
|---|---|
{said}

Measured on fresh signals by `tools/scores.py`; intervals are 95 %. One is the exact answer, for losses.
For laws, real signals stay below 1 in 95 of 100 cases.

| figure | |
|---|---|
{figures}
| seconds to train, {torch.get_num_threads()} threads, {platform.machine()}, torch {version} | {seconds:.0f} |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true", help="train the model anew and write it into the package")
    train = parser.parse_args().train
    recipe = shipped_recipe()
    if train:
        start = time.perf_counter()
        trained = train_or_load(recipe, retrain=True)
        seconds = time.perf_counter() - start
        save(trained, FILE, **card(recipe))
        (SHIPPED / "README.md").write_text(model_card(recipe, trained.denoiser, seconds), "utf-8")
        return
    print(json.dumps(measure(load(recipe.build(), FILE).denoiser)))


if __name__ == "__main__":
    main()
