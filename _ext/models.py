"""The trained models of the interactive figures, as scripts that a page loads when the reader asks for them.

They are made here, from what `train_or_load` gives the chapters, and made again when the library has changed. Whoever
puts a `Sampler` of another model into a chapter adds its recipe to `recipes`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from book import BUILD, cache_dir  # noqa: E402


def recipes() -> list:
    from ddpm_lib.training import shipped_recipe

    return [shipped_recipe()]


def write_models(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    kept = BUILD / "models_of_pages" / cache_dir().name
    if not kept.exists():
        from ddpm_lib import train_or_load
        from ddpm_lib.figures import model_script

        shutil.rmtree(kept.parent, ignore_errors=True)
        part = kept.with_suffix(".part")
        part.mkdir(parents=True)
        for recipe in recipes():
            denoiser = train_or_load(recipe).denoiser
            (part / model_script.script_name(denoiser)).write_text(
                model_script.script(denoiser, recipe.family), "utf-8"
            )
        part.rename(kept)
    shutil.copytree(kept, Path(app.outdir) / "_static", dirs_exist_ok=True)


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", write_models)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
