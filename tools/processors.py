"""Do the chapters give their stored outputs with other numbers of threads, and on processors with fewer instructions?

    python tools/processors.py                 every configuration, one after the other: hours
    python tools/processors.py "2 threads"     some only
    python tools/processors.py --list          their names

Each runs every cell of every chapter, training included, against its stored output, and prints one line. What failed
stands in _build/processors. Slow processors are imitated by the switches that torch and its libraries have for it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "_build" / "processors"
FOUR = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE")
CONFIGURATIONS = {
    "1 thread": {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "at most AVX2": dict(zip(FOUR, ("avx2", "AVX2", "AVX2", "Haswell"), strict=True)),
    "no AVX": dict(zip(FOUR, ("default", "SSE41", "SSE4_2", "Nehalem"), strict=True)),
}


def run(name: str) -> bool:
    """Run the chapters under a configuration, print its line, and say whether all cells held."""
    start, log = time.monotonic(), LOGS / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "--nbval", "chapters", "-q", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory() as models, log.open("w") as out:  # its own models: it trains them itself
        settings = {"OMP_NUM_THREADS": "1", **CONFIGURATIONS[name], "DDPM_CACHE": models}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, stdout=out, stderr=out, check=False)
    lines = log.read_text("utf-8").splitlines()
    failed = [re.sub(r" - .*", "", line) for line in lines if line.startswith("FAILED")]
    switches = " ".join(f"{k}={v}" for k, v in ({"OMP_NUM_THREADS": "1"} | CONFIGURATIONS[name]).items())
    counted = re.sub(r"\x1b\[[0-9;]*m|=", "", lines[-1] if lines else "nothing ran").strip()
    print("\n".join([f"{name} ({switches}): {counted}, {time.monotonic() - start:.0f} s in all", *failed]), flush=True)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(CONFIGURATIONS))
    if options.list or unknown:
        sys.exit("\n".join([*(f"There is no {name!r}. There are:" for name in unknown[:1]), *CONFIGURATIONS]))
    results = [run(name) for name in options.names or CONFIGURATIONS]
    print(f"processors: {sum(results)} of {len(results)} configurations hold")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
