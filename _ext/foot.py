"""The foot of every page: edition, how to cite, licences. _config.yml has the sentence, CITATION.cff what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx

CITATION = Path(__file__).resolve().parents[1] / "CITATION.cff"


def fill(app: Sphinx, config: Any) -> None:
    told = yaml.safe_load(CITATION.read_text("utf-8"))
    known = {
        "version": told["version"],
        "authors": ", ".join(author["name"] for author in told["authors"]),
        "title": told["title"],
        "year": told["date-released"][:4],
    }
    config.html_theme_options["extra_footer"] = config.html_theme_options["extra_footer"].format(**known)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
