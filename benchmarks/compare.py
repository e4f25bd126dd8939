"""This library and its peers, side by side: the same seconds, the same two threads, the same signals.

    python benchmarks/compare.py             # fills in the rows that are missing, then shows them (make benchmark)
    python benchmarks/compare.py --print     # shows the rows that are there

Every row runs in a process of its own and is written to results.jsonl when it is done, so a run that was stopped goes
on where it was. Rows of another recipe are not used; delete the file to begin anew.
"""

import argparse
import copy
import functools
import hashlib
import inspect
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import matplotlib.pyplot as plt
import torch
from contenders import ALL, SCHEDULE, Judged, descend, warm_cosine

from ddpm_lib import (
    BenchmarkMorlet,
    FamilyOracle,
    Morlet,
    Recipe,
    fit_family,
    loss_over_floor,
    proportion,
    q_sample,
    sample_quality,
)
from ddpm_lib.measures import parameter_distances, predicted_noise

HERE = Path(__file__).resolve().parent
RESULTS, TABLE, FIGURE = HERE / "results.jsonl", HERE / "table.md", HERE / "loss_over_time.svg"
KEPT = HERE.parent / "_build" / "benchmark"
FAMILIES = {"benchmark": BenchmarkMorlet, "untuned": Morlet}
BANDS = ((1, 10), (11, 50), (51, 100), (101, 200), (201, 400), (401, 1000))
MARKS = (5, 10, 15, 20, 30, 45, 60, 80, 100, 120, 140, 160)
OURS, PEERS = "ddpm_lib", ("diffusers", "denoising-diffusion-pytorch", "MLP")


def draws(family, n, low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    x0, _ = family.sample(n, generator)
    return x0, torch.randint(low, high + 1, (n,), generator=generator), torch.randn(x0.shape, generator=generator)


class Test:
    """Fresh draws, and what the exact denoiser says of them, asked once."""

    def __init__(self, family, *drawn):
        x0, t, eps = self.drawn = drawn
        self.exact = predicted_noise(FamilyOracle(family, SCHEDULE), q_sample(x0, t, eps, SCHEDULE), t)

    def over_floor(self, contender):
        return [round(v, 4) for v in loss_over_floor(Judged(contender), self.exact, *self.drawn)]


def train(contender, family, seconds, seed, lr):
    """Train by the clock, from before the network is built. Copies for the curve are made while the clock stands."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first optimiser of a process imports for a second
    start, paused = time.perf_counter(), 0.0
    made = ALL[contender](family, seed, lr)
    i, copies, marks = 0, [], [m for m in MARKS if m < seconds]
    while (elapsed := time.perf_counter() - start - paused) < seconds:
        if marks and elapsed >= marks[0]:
            before = time.perf_counter()
            marks.pop(0)
            copies.append((elapsed, copy.deepcopy(made.averaged.state_dict())))
            paused += time.perf_counter() - before
        made.step(i, elapsed / seconds)
        i += 1
    return made, i, copies


def trained_row(row, path):
    family = FAMILIES[row["family"]]()
    made, steps, copies = train(row["contender"], family, row["seconds"], row["seed"], row["lr"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.save(made.averaged.state_dict(), path)
    made.averaged.eval()
    result = {
        "weights": sum(p.numel() for p in made.averaged.parameters()),
        "steps": steps,
        "signals/s": round(steps * made.batch / row["seconds"]),
        "memory": round(memory, 2),
    }
    with torch.no_grad():
        result["loss"] = Test(family, *draws(family, 4096, 1, 1000, seed=40_001)).over_floor(made)
        if row["seconds"] < 180:  # a search for a learning rate, or the sixty seconds: one number is enough
            return result
        result["bands"] = [
            Test(family, *draws(family, 1024, low, high, seed=40_001 + low)).over_floor(made) for low, high in BANDS
        ]
        result["curve"], test = [], Test(family, *draws(family, 1024, 1, 1000, seed=40_002))
        for elapsed, state in copies:
            made.averaged.load_state_dict(state)
            result["curve"].append([round(elapsed, 1), test.over_floor(made)[0]])
    result["curve"].append([row["seconds"], result["loss"][0]])
    return result


def sampled_row(row, path):
    family = FAMILIES[row["family"]]()
    made = ALL[row["contender"]](family, row["seed"], row["lr"])
    made.averaged.load_state_dict(torch.load(path, weights_only=True))
    made.averaged.eval()
    with torch.no_grad():
        start = time.perf_counter()
        x = made.sample(512, 50_001)
        result = {"s per 512": round(time.perf_counter() - start, 2)}
        # ours is cheap enough for five seeds of 2048; the peers' 512 are those that were timed
        runs = [made.sample(2048, 50_002 + k) for k in range(5)] if row["contender"] == OURS else [x]
    found = [fit_family(y, family) for y in runs]
    over = [
        {name: score.value / score.floor for name, score in parameter_distances(fits, family).items()} for fits in found
    ]
    result["n"], result["runs"] = len(runs[0]), len(runs)
    result["valid"] = [round(v, 4) for v in proportion(torch.cat([fits.valid for fits in found]))]
    result["laws"] = {name: round(statistics.median(one[name] for one in over), 2) for name in over[0]}
    board = sample_quality(runs[0], family, generator=torch.Generator().manual_seed(50_000))
    result["distance"] = round(board["distance"].value / board["distance"].floor, 2)
    result["residual"] = [round(board[f"residual, {q}"].value, 4) for q in ("median", "90 %")]
    return result


# --- which rows, and their keeping ------------------------------------------------------------------------


@functools.cache
def ours():
    """What our rows depend on beside the contenders."""
    return Recipe().fingerprint()


def key(row):
    """Digits that change with what a row asks for, with the code of its contender, and with our recipe.

    Not with the list of rates to try: each row has its own.
    """
    contender = ALL[row["contender"]]
    code = "".join(map(inspect.getsource, (contender, descend, warm_cosine)))
    code = re.sub(r"^ +rates = .*\n", "", code, flags=re.M)
    if row["contender"] == OURS:
        code += ours()
    return hashlib.sha256((json.dumps(row, sort_keys=True) + code).encode()).hexdigest()[:12]


def done():
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {entry["key"]: entry for entry in map(json.loads, lines)}


def row(kind, contender, family="benchmark", seconds=180, seed=0, lr=None):
    return {"kind": kind, "contender": contender, "family": family, "seconds": seconds, "seed": seed, "lr": lr}


def tried(contender):
    """The rows of a contender's search for its learning rate."""
    return [row("train", contender, seconds=60, lr=lr) for lr in ALL[contender].rates]


def best_rate(contender, results):
    entries = [results.get(key(r)) for r in tried(contender)]
    if contender == OURS or None in entries:
        return None
    return min(entries, key=lambda e: e["loss"][0])["row"]["lr"]


def wanted(results):
    """All rows in order; those that need a learning rate come when it is known."""
    rows = [row("train", OURS, seconds=s, seed=seed) for s in (180, 60) for seed in range(3)]
    rows += [row("sample", OURS, seed=seed) for seed in range(3)]
    rows += [r for peer in PEERS for r in tried(peer)]
    rows += [row(kind, OURS, family="untuned") for kind in ("train", "sample")]
    for peer in PEERS:
        if all(key(r) in results for r in tried(peer)):
            rate = best_rate(peer, results)
            rows += [row("train", peer, lr=rate), row("sample", peer, lr=rate)]
            rows += [row("train", peer, family="untuned", lr=rate)]
    return rows


def weights_of(r):
    return KEPT / f"{key({**r, 'kind': 'train'})}.pt"


def run_row(r):
    """One row in this process; its result on the last line."""
    path = weights_of(r)
    path.parent.mkdir(parents=True, exist_ok=True)
    result = (trained_row if r["kind"] == "train" else sampled_row)(r, path)
    entry = {"key": key(r), "row": r, **result, "torch": torch.__version__, "threads": torch.get_num_threads()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def fill():
    while True:
        results = done()
        missing = [r for r in wanted(results) if key(r) not in results]
        if not missing:
            return
        r = missing[0]
        if r["kind"] == "sample" and not weights_of(r).exists():  # the weights were cleaned away: train again
            r = {**r, "kind": "train"}
        print(f"{len(missing)} rows to go: {r}", flush=True)
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--row", json.dumps(r)], check=True)
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)


# --- table and figure -------------------------------------------------------------------------------------


def show():
    results = done()

    def get(*args, **kwargs):
        return results.get(key(row(*args, **kwargs)), {})

    def number(value, digits=2):
        return "–" if value is None else f"{value:.{digits}f}"

    lines = [
        "| | weights | learning rate | steps | signals/s | memory, GiB | loss / floor | "
        + " | ".join(f"t {low}–{high}" for low, high in BANDS)
        + " | valid | b | s | w | distance | s per 512 | another family |",
        "|---" * (16 + len(BANDS)) + "|",
    ]
    for name in ALL:
        lr = best_rate(name, results)
        for seed in range(3 if name == OURS else 1):
            label = f"seed {seed}" if name == OURS else ""
            a, b = get("train", name, seed=seed, lr=lr), get("sample", name, seed=seed, lr=lr)
            other = get("train", name, family="untuned", lr=lr) if seed == 0 else {}
            if not a:
                continue
            cells = [f"{name} {label}".strip(), f"{a['weights']:,}", "–" if lr is None else f"{lr:g}"]
            cells += [f"{a['steps']:,}", f"{a['signals/s']:,}", number(a["memory"], 1)]
            cells += ["{:.3f} ± {:.3f}".format(*a["loss"]), *(number(v[0]) for v in a["bands"])]
            cells += ["{:.1%} ± {:.1%}".format(*b["valid"]) if b else "–"]
            cells += [number(b.get("laws", {}).get(p)) for p in "bsw"]
            cells += [number(b.get("distance")), number(b.get("s per 512"), 1)]
            cells += ["{:.3f} ± {:.3f}".format(*other["loss"]) if other else "–"]
            lines.append("| " + " | ".join(cells) + " |")
    short = [get("train", OURS, seconds=60, seed=seed) for seed in range(3)]
    if all(short):
        lines += ["", "ddpm_lib after 60 s, three seeds: " + ", ".join(f"{e['loss'][0]:.3f}" for e in short)]
    searched = [(p, [(r["lr"], results[key(r)]["loss"][0]) for r in tried(p) if key(r) in results]) for p in PEERS]
    lines += ["", "Learning rates tried, and the loss over floor that each gave after 60 s:", ""]
    lines += [f"- {p}: " + ", ".join(f"{lr:g}: {v:.3f}" for lr, v in found) for p, found in searched if found]
    TABLE.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for k, name in enumerate(ALL):
        for seed in range(3 if name == OURS else 1):
            entry = get("train", name, seed=seed, lr=best_rate(name, results))
            if entry:
                axes.plot(*zip(*entry["curve"], strict=True), f"C{k}", label=name if seed == 0 else None)
    axes.axhline(1, color="k", lw=1)
    axes.set(xlabel="seconds of training", ylabel="loss / floor", yscale="log", yticks=[1, 1.1, 1.5, 2, 3, 5, 10])
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
    figure.savefig(FIGURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--print", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if args.row:
        run_row(args.row)
        return
    if not args.print:
        fill()
    show()


if __name__ == "__main__":
    main()
