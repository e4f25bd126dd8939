"""Draw the picture of the README: noise becomes wavelets in 20 steps of the model that ships (``make picture``)."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch

from ddpm_lib import BenchmarkMorlet, even_log_snr, fit_family, pretrained, sample
from ddpm_lib.figures import plots
from ddpm_lib.sampling.grids import TILT

FILE = Path(__file__).resolve().parents[1] / "assets" / "noise_to_wavelet.svg"
SIGNALS, STEPS, SEED = 2, 20, 3
SHOWN = (0, 3, 5, 7, 9, STEPS)  # of the states of a path


def draw(file: Path = FILE) -> None:
    """Write the picture: the same on every run, except that another processor may round differently."""
    unet, family = pretrained(), BenchmarkMorlet()
    times = even_log_snr(unet.schedule, STEPS, TILT)  # the times that `sample` visits by default
    path = list(sample(unet, (SIGNALS, 1, 128), times, generator=torch.Generator().manual_seed(SEED)))
    nearest = fit_family(path[-1], family).signals

    plots.style()
    plt.rcParams["svg.hashsalt"] = file.stem
    fig, axes = plots.panels(SIGNALS, len(SHOWN), height=1.15, width=9.0, sharey=True)
    for column, k in zip(axes.T, SHOWN, strict=True):
        column[0].set_title(f"t = {times[k]:.0f}")
        for row, ax in enumerate(column):
            ax.set_axis_off()
            if k < STEPS:
                with torch.no_grad():
                    estimate = unet(path[k], times[k]).x0[row]
                plots.curves(ax, family.x, path[k][row], plots.NOISE, linewidth=0.9, label="noisy signal")
                plots.curves(ax, family.x, estimate, plots.MODEL, label="the network's estimate of the clean signal")
            else:
                plots.curves(ax, family.x, path[k][row], plots.SIGNAL, linewidth=2.4, label="sample")
                plots.curves(ax, family.x, nearest[row], plots.EXACT, linestyle=":", label="nearest exact wavelet")
    lines = [*axes[0, 0].lines, *axes[0, -1].lines]
    fig.legend(lines, [line.get_label() for line in lines], loc="outside lower center", ncols=len(lines))
    fig.savefig(file, metadata={"Date": None})
    file.write_text(re.sub(r' d="[^"]*"', lambda path: shorter(path[0]), file.read_text("utf-8")), "utf-8")


def shorter(path: str) -> str:
    """The path of an SVG, rounded to a tenth of a point; one of straight lines alone needs no letter before each."""
    rounded = re.sub(r"(\.\d)\d+", r"\1", path)
    return rounded if "Q" in path else rounded.replace(" \nL ", " ")


if __name__ == "__main__":
    draw()
