"""A training step beside programs that take the cores: the number of threads kept, and given way.

    python benchmarks/busy.py                # alone, and beside two busy loops; a minute
    python benchmarks/busy.py --kernel       # the same inside a Jupyter kernel, as in a chapter

Each line is a run of `Recipe()` by `fit`: the mean time of its steps, and the threads that its last step had. The runs
are taken in turn, some rounds of them, so that a slow minute of the machine falls on all.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch.callbacks import LambdaCallback

from ddpm_lib import Recipe, fit


def run(steps, others, threads):
    """(milliseconds a step, threads at the end) of a run beside this many busy loops."""
    starts, last = [], []

    def begin(*_):
        starts.append(time.perf_counter())
        last[:] = [torch.get_num_threads()]

    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        watch = LambdaCallback(on_train_batch_start=begin, on_train_end=begin)
        fit(replace(Recipe(), steps=steps), threads=threads, callbacks=[watch])
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return 1e3 * (starts[-1] - starts[0]) / steps, last[0]


def measure(steps, others, rounds):
    most = torch.get_num_threads()
    ways = {"kept": most, "one": 1, "given way": None}
    found = {(n, way): [] for n in (0, others) for way in ways}
    for _ in range(rounds):
        for n, way in found:
            found[n, way].append(run(steps, n, ways[way]))
    print(f"{steps} steps, {most} threads, median of {rounds}")
    for (n, way), runs in found.items():
        times = sorted(time for time, _ in runs)
        spread = f"{median(times):4.0f} ms a step ({times[0]:.0f} to {times[-1]:.0f})"
        print(f"beside {n} busy loops, threads {way:9}: {spread}, {runs[-1][1]} at the end")


def in_a_kernel(command):
    """Print what this command prints in a fresh Jupyter kernel."""
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{command}")
    nb = NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=3600, kernel_name="python3").execute()
    print("".join(output.text for output in nb.cells[0].outputs if output.get("name") == "stdout"), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", action="store_true")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--others", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    numbers = options.steps, options.others, options.rounds
    if options.kernel:
        in_a_kernel(f"import busy; busy.measure{numbers}")
    else:
        measure(*numbers)


if __name__ == "__main__":
    main()
