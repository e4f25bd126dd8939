"""Totals of `mutmut run`, file by file: how many changes of the code the tests notice. Exit status 1 below 85 %.

Survivors are listed with ``mutmut results``, and one is shown with ``mutmut show NAME``.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

ENOUGH = 0.85
NOTICED = {"killed", "timeout", "segfault", "suspicious"}


def main() -> None:
    tool = str(Path(sys.executable).with_name("mutmut"))
    lines = subprocess.run([tool, "results", "--all", "true"], capture_output=True, text=True, check=True).stdout
    found = Counter[tuple[str, str]]()
    for name, _, status in (line.strip().partition(": ") for line in lines.splitlines() if ": " in line):
        found[name.split(".x")[0].split(".")[-1], status] += 1
    good = total = 0
    for module in sorted({module for module, _ in found}):
        counts = {status: n for (m, status), n in found.items() if m == module}
        noticed, made = sum(counts.get(status, 0) for status in NOTICED), sum(counts.values())
        print(f"{module:12} {noticed:5d} of {made:5d} noticed, {noticed / made:.1%}   {counts}")
        good, total = good + noticed, total + made
    print(f"{good} of {total} mutants noticed, {good / max(1, total):.1%}")
    sys.exit(good < ENOUGH * total or not total)


if __name__ == "__main__":
    main()
