"""Where a step of training spends its time, and how far it is from what the machine can do.

    python benchmarks/speed.py            # eager; some seconds
    python benchmarks/speed.py --compile  # torch.compile as well; needs a C++ compiler, and a minute

Every time is the median of several repeats, taken in turn, in one process.
"""

import argparse
import json
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import ddpm_lib
from ddpm_lib import Recipe, device, sample


def seconds(work, repeats=15):
    """Median of the times of work(); two runs before they count."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def matrix_rate(place, n=2048, dtype=torch.float32):
    """Floating point operations a second of one large matrix product."""
    a, b = torch.randn(2, n, n, device=place, dtype=dtype)
    return 2 * n**3 / seconds(lambda: a @ b)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true")
    compiled = parser.parse_args().compile

    recipe, place = Recipe(), device()
    denoiser = recipe.build().to(place)
    draw, optimiser = recipe.draw(denoiser.network), recipe.optimiser(denoiser, recipe)
    batch = [v.to(place) for v in draw(0)[:4]]

    def gradient(model=denoiser):
        x0, t, eps, weight = batch
        (weight * ddpm_lib.loss(model, x0, t, eps)).mean().backward()

    def update():
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), recipe.clip)
        optimiser.step()

    with FlopCounterMode(display=False) as counter:
        gradient()
    flops = counter.get_total_flops()
    counter = iter(range(10**6))
    parts = {"draw": seconds(lambda: draw(next(counter))), "gradient": seconds(gradient), "update": seconds(update)}
    step, rate = sum(parts.values()), matrix_rate(place)
    found = {
        "device": str(place),
        "threads": torch.get_num_threads(),
        "ms a step": {name: round(1000 * s, 2) for name, s in parts.items()} | {"all": round(1000 * step, 2)},
        "signals/s": round(recipe.batch / step),
        "share of drawing": round(parts["draw"] / step, 4),
        "GFLOP of a gradient": round(flops / 1e9, 2),
        "GFLOP/s of a gradient": round(flops / parts["gradient"] / 1e9, 1),
        "GFLOP/s of a matrix product": round(rate / 1e9, 1),
        "share of the matrix rate": round(flops / parts["gradient"] / rate, 3),
        "s for 512 samples": round(seconds(lambda: list(sample(denoiser, (512, 1, 128), device=place)), 3), 2),
    }
    if compiled:
        start = time.perf_counter()
        faster = torch.compile(denoiser)
        gradient(faster)
        found["s to compile"] = round(time.perf_counter() - start, 1)
        found["compiled gradient, ms"] = round(1000 * seconds(lambda: gradient(faster)), 2)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
