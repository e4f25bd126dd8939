"""Check the 52 equations of the report: `python -m equations`, or some of them, `python -m equations 44 45`."""

from __future__ import annotations

import sys

from . import ALL


def main(words: list[str]) -> int:
    wanted = [e for e in ALL if not words or str(e.number) in words]
    failed = controls = broken = 0
    for e in wanted:
        finding, found = e.run(), e.run_controls()
        passing = [name for name, f in found.items() if f.ok]
        failed += not finding.ok
        controls += len(found)
        broken += len(passing)
        state = "ok  " if finding.ok and not passing else "FAIL"
        print(f"({e.number:2d})  {state}  {e.verdict:33s}  {finding}")
        for name in passing:
            print(f"      the control “{name}” passes, and must not: {found[name]}")
    end = (
        f"{controls} controls fail as they must" if not broken else f"{broken} of {controls} controls pass and must not"
    )
    print(f"{len(wanted)} of {len(wanted) if words else 52} checked, {failed} failed, {end}")
    return 1 if failed or broken or (not words and len(wanted) != 52) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
