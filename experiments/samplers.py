"""How few evaluations are enough? The model that ships, sampled in many ways; 2048 signals and three seeds each.

    python experiments/samplers.py         # fills in what is missing in samplers.csv; an hour, most of it 1000 steps

Chapter 18 shows the table; what `sample` does by default was chosen by it.
"""

import csv
import time
from pathlib import Path

from ddpm_lib import (
    BenchmarkMorlet,
    Recipe,
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    even_log_snr,
    even_steps,
    fit_family,
    heun,
    sample,
    share,
    stream,
    train_or_load,
)
from ddpm_lib.samplers import TILT
from ddpm_lib.scores import laws

TABLE = Path(__file__).with_name("samplers.csv")
STEPS = {"ancestral": ancestral, "DDIM": ddim, "Heun": heun, "2M": dpmpp_2m, "SDE-2M": dpmpp_2m_sde}
EVALUATIONS = (5, 10, 15, 20, 30, 50, 100)
SEEDS = (0, 1, 2)
N = 2048


def row(recipe, denoiser, name, evaluations, seed):
    """Sample, fit, and say what share is valid and how far the laws are off, over their critical value."""
    whole = evaluations == denoiser.schedule.T
    steps = (evaluations + 1) // 2 if name == "Heun" else evaluations
    times = even_steps(denoiser.schedule, steps) if whole else even_log_snr(denoiser.schedule, steps, TILT)
    start = time.perf_counter()
    *_, x = sample(denoiser, (N, 1, 128), times, STEPS[name], stream(seed, evaluations, 2))
    seconds = time.perf_counter() - start
    fits = fit_family(x, BenchmarkMorlet())
    return {
        "recipe": recipe.fingerprint(),
        "sampler": name,
        "evaluations": evaluations,
        "seed": seed,
        "valid": f"{share(fits.valid).value:.4f}",
        **{f"law_{k}": f"{law.value / law.floor:.2f}" for k, law in laws(fits, BenchmarkMorlet()).items()},
        "residual": f"{fits.residual.median():.4f}",
        "seconds": f"{seconds:.1f}",
    }


def main() -> None:
    recipe = Recipe()
    denoiser = train_or_load(recipe).denoiser
    todo = [(name, n, seed) for n in EVALUATIONS for name in STEPS for seed in SEEDS]
    todo += [("ancestral", denoiser.schedule.T, seed) for seed in SEEDS]
    done = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.exists() else []
    known = {(r["sampler"], r["evaluations"], r["seed"]) for r in done if r["recipe"] == recipe.fingerprint()}
    for name, n, seed in todo:
        if (name, str(n), str(seed)) in known:
            continue
        found = row(recipe, denoiser, name, n, seed)
        with TABLE.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, found, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(found)
        print(found, flush=True)


if __name__ == "__main__":
    main()
