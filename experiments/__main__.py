"""Run what the tables lack: ``python -m experiments`` (all) or ``python -m experiments models schedules``."""

import argparse
from importlib import import_module

NAMES = ("models", "noise", "families", "schedules")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names or NAMES:
        import_module(f"{__package__}.{name}").EXPERIMENT.fill()


if __name__ == "__main__":
    main()
