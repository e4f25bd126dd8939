"""Why the recipe is as it is: one change at a time, the same number of signals, loss over floor on fresh ones.

    python experiments/choices.py          # fills in what is missing in choices.csv; some two minutes a row on one core

The chapter on training shows the table.
"""

import argparse
import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ddpm_lib import (
    FamilyOracle,
    LinearSkip,
    Recipe,
    UNet1D,
    fit,
    fit_family,
    linear_skip,
    loss_over_floor,
    proportion,
    sample,
)
from ddpm_lib.measures import parameter_distances
from ddpm_lib.training import Muon

TABLE = Path(__file__).with_name("choices.csv")
BASE = Recipe(steps=750)
SEEDS = (0, 1, 2)  # of the recipe itself: how far apart runs of one recipe are


def adamw(denoiser, recipe):
    """AdamW for the kernels, too."""
    return Muon(denoiser, recipe.lr, weight_decay=recipe.weight_decay, is_kernel=lambda name, p: False)


def by_error(network, schedule):
    """Density over t by the linear denoiser's error alone."""
    return network.wiener.eps_error(*schedule(torch.arange(1, schedule.T + 1))).sqrt().flatten()


def uniform(network, schedule):
    return None


class Bare(torch.nn.Module):
    """A U-Net without the linear denoiser around it: it sees x_t alone, and gives ε̂ itself."""

    def __init__(self, family, seed):
        super().__init__()
        self.unet = UNet1D(1, 1)

    def forward(self, x, log_snr, cond=None):
        return self.unet(x, log_snr)


CHOICES = {
    "the recipe": BASE,
    "no linear denoiser, t uniform": replace(BASE, network=Bare, density=uniform),
    "t drawn uniformly": replace(BASE, density=uniform),
    "t drawn by the error alone": replace(BASE, density=by_error),
    "AdamW for the kernels too": replace(BASE, optimiser=adamw),
    "not told where along the signal": replace(BASE, network=partial(linear_skip, position=False)),
    "width 48, 2 blocks, kernel 5": replace(BASE, network=partial(linear_skip, width=48, blocks=2, kernel=5)),
}


def row(name: str, seed: int) -> dict[str, str]:
    """Train one recipe and measure it on fresh signals, over all t and at t ≤ 10, and on 4096 of its samples."""
    recipe = replace(CHOICES[name], seed=seed)
    denoiser = fit(recipe).denoiser
    generator = torch.Generator().manual_seed(40_001)
    exact = FamilyOracle(recipe.family, recipe.schedule)

    def ratio(low, high):
        x0, _ = recipe.family.sample(4096, generator)
        t = torch.randint(low, high + 1, (4096,), generator=generator)
        return loss_over_floor(denoiser, exact, x0, t, torch.randn(x0.shape, generator=generator)).value

    *_, samples = sample(denoiser, (4096, 1, recipe.family.length), generator=generator)
    fits = fit_family(samples, recipe.family)
    skip = denoiser.network
    unet = skip.network if isinstance(skip, LinearSkip) else skip
    return {
        "choice": name,
        "seed": str(seed),
        "weights": str(sum(p.numel() for p in unet.parameters())),
        "ratio": f"{ratio(1, 1000):.4f}",
        "ratio_to_10": f"{ratio(1, 10):.3f}",
        "valid": f"{proportion(fits.valid).value:.4f}",
        **{
            f"law_{name}": f"{score.value / score.floor:.2f}"
            for name, score in parameter_distances(fits, recipe.family).items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", default="0/1", help="k/n: every n-th row from the k-th on, to split the work")
    k, n = map(int, parser.parse_args().share.split("/"))
    todo = [("the recipe", seed) for seed in SEEDS] + [(name, 0) for name in CHOICES if name != "the recipe"]
    for name, seed in todo[k::n]:
        done = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.exists() else []
        if any(line["choice"] == name and line["seed"] == str(seed) for line in done):
            continue
        found = row(name, seed)
        with TABLE.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, found, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(found)
        print(found, flush=True)


if __name__ == "__main__":
    main()
