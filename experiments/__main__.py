"""Run what the tables lack: ``python -m experiments`` (all) or ``python -m experiments models schedules``.

With ``--jobs 2`` two processes share the rows, and the processor's threads. What was stopped goes on where it was.
"""

import argparse
import os
import subprocess
import sys
from importlib import import_module

TRAINED = ("models", "noise", "families", "schedules", "targets", "flow", "data", "real", "longer")
NAMES = (*TRAINED, "coverage", "few_steps")  # these load the model that ships


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the rows (default: 1)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="these seeds only: a first look")
    arguments = parser.parse_args()
    if arguments.jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
        only = ["--seeds", *map(str, arguments.seeds)] if arguments.seeds else []
        command = [sys.executable, "-m", __package__, *arguments.names, *only]
        started = [
            subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}) for _ in range(arguments.jobs)
        ]
        sys.exit(max(process.wait() for process in started))
    for name in arguments.names or NAMES:
        import_module(f"{__package__}.{name}").EXPERIMENT.fill(arguments.seeds)


if __name__ == "__main__":
    main()
