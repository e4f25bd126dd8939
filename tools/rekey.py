"""Rewrite the keys of the tables and of the model that ships, after what a recipe is known by was changed.

    python tools/rekey.py keys.json        before the change: note the key of every run
    python tools/rekey.py keys.json after  after it: compute them anew, and write new ones where old ones stand

A row is that of a run and a seed. One whose stored key is not the noted one is left as it is, and counted.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def keys() -> dict[str, str]:
    """The key of every declared run and seed, and of the recipe of the model that ships."""
    from ddpm_lib.training import shipped_recipe
    from experiments.__main__ import NAMES

    found = {"longer": shipped_recipe().fingerprint()}
    for name in NAMES:
        experiment = import_module(f"experiments.{name}").EXPERIMENT
        for seed in experiment.seeds:
            for run, recipe in experiment.recipes.items():
                found[f"{name}|{run}|{seed}"] = replace(recipe, seed=seed).fingerprint()
    return found


def rewritten(name: str, table: str, old: dict[str, str], new: dict[str, str]) -> tuple[str, int]:
    """A table with new keys, and the number of its rows that are left as they are."""
    rows, left = list(csv.DictReader(io.StringIO(table))), 0
    for row in rows:
        run = f"{name}|{row['run']}|{row['seed']}"
        if old.get(run) == row["recipe"]:
            row["recipe"] = new[run]
        else:
            left += 1
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue(), left


def ship(old: str, new: str) -> None:
    """The card of the model that ships."""
    from ddpm_lib.training import shipped_recipe, store

    path = store.SHIPPED / "benchmark.safetensors"
    card, _ = store.read(path)
    denoiser = shipped_recipe().build()
    store.save(store.load(denoiser, path), path, **{**card, "recipe": new})
    readme = store.SHIPPED / "README.md"
    readme.write_text(readme.read_text("utf-8").replace(old, new), "utf-8")


def main() -> None:
    warnings.simplefilter("ignore")
    noted = Path(sys.argv[1])
    if "after" not in sys.argv[2:]:
        noted.write_text(json.dumps(keys(), indent=1, ensure_ascii=False), "utf-8")
        return
    old, new = json.loads(noted.read_text("utf-8")), keys()
    for file in sorted((ROOT / "experiments").glob("*.csv")):
        table = file.read_text("utf-8")
        if "recipe" in table.splitlines()[0].split(","):
            text, left = rewritten(file.stem, table, old, new)
            file.write_text(text, "utf-8")
            print(f"{file.stem:12} {left} rows left as they are")
    ship(old["longer"], new["longer"])


if __name__ == "__main__":
    main()
