"""The book's own Sphinx extension: pages that need no other host, links that also read well in plain Jupyter.

What it does, in the order of the functions below:

- the cache of executed chapters sees `ddpm_lib` (tools/book.py), or execution is off: BOOK_EXECUTE=off;
- launch and repository buttons exist only where `repository: url:` is set in _config.yml;
- MathJax is copied out of the package sphinx-mathjax-offline as one file;
- an anchor `<a id="eq-9"></a>` in a markdown cell can be the target of `[(9)](#eq-9)` in the same chapter and of
  `[(9)](forward_process.ipynb#eq-9)` in another; an equation may carry its number as `\\tag{9}`;
- a link to a chapter in what a cell has printed leads to its page;
- scripts for a service that the book does not use (thebe) are left out, and no other is loaded twice;
- of the theme's two thousand icons only those are sent that a page shows (they were a third of every page's weight).
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.fileutil import copy_asset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from book import cache_dir  # noqa: E402


def configure(app: Sphinx, config) -> None:
    config.nb_execution_cache_path = str(cache_dir())
    if os.environ.get("BOOK_EXECUTE") == "off":
        config.nb_execution_mode = "off"
    options = config.html_theme_options
    if options.get("repository_url"):
        options.update(use_repository_button=True, use_issues_button=True)
        options["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    else:
        options.pop("launch_buttons", None)
        options.pop("repository_url", None)


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        package = distribution("sphinx-mathjax-offline")
        source = package.locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js")
        copy_asset(str(source), str(Path(app.outdir) / "_static" / "mathjax"))


ICON = re.compile(  # name: [width, height, [other names], "code", path or paths]
    r"""(?:"(?P<quoted>[\w-]+)"|(?P<bare>[\w$]+)):\[\d+,\d+,\[(?P<other>[^\]]*)\],"[0-9a-f]*",(?:"[^"]*"|\[[^\]]*\])\],?"""
)


def prune_icons(app: Sphinx, exception: Exception | None) -> None:
    """Leave in the theme's icon script only the icons that the pages or the other scripts name."""
    icons = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if exception is not None or not icons.exists():
        return
    texts = [*Path(app.outdir).rglob("*.html"), *(p for p in icons.parents[1].rglob("*.js") if p != icons)]
    used = {name for path in texts for name in re.findall(r"fa-([a-z0-9-]+)", path.read_text("utf-8", "ignore"))}

    def keep(icon: re.Match) -> str:
        names = {icon["quoted"] or icon["bare"], *re.findall(r"[a-z][\w-]*", icon["other"])}
        return icon[0] if names & used else ""

    icons.write_text(ICON.sub(keep, icons.read_text("utf-8")), "utf-8")


class Anchors(SphinxTransform):
    """Tell MyST's link resolver of the anchors that are written as HTML (it knows only headings)."""

    default_priority = 870  # before myst_parser's ResolveAnchorIds (879)

    def apply(self, **kwargs) -> None:
        slugs = dict(getattr(self.document, "myst_slugs", {}))
        for raw in self.document.findall(nodes.raw):
            for name in re.findall(r'<a id="([\w-]+)">', raw.astext()):
                slugs[name] = (raw.line or 0, name, name)
        self.document.myst_slugs = slugs
        self.env.metadata[self.env.docname]["myst_slugs"] = slugs


class TaggedEquations(SphinxTransform):
    """Keep Sphinx from wrapping an equation that has a number (`\\tag`) in `split`, where none is allowed."""

    default_priority = 870

    def apply(self, **kwargs) -> None:
        for math in self.document.findall(nodes.math_block):
            text = math.astext()
            if r"\tag" in text and not math.get("nowrap"):
                math["nowrap"] = True
                math.children = [nodes.Text(rf"\[{text}\]")]


def tidy_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    kept: dict[str, object] = {}
    for script in context["script_files"]:
        key = f"{script.filename or ''} {script.attributes.get('body', '')}"
        if "thebe" not in key:
            kept.setdefault(key, script)
    context["script_files"] = list(kept.values())


def link_pages(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """A link to a chapter that a cell has printed is one to its page: Sphinx resolves those of markdown cells only."""
    if "body" in context:
        context["body"] = re.sub(r'href="([\w-]+)\.ipynb(#[\w-]*)?"', r'href="\1.html\2"', context["body"])


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", configure)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", prune_icons)
    app.connect("html-page-context", tidy_scripts, priority=999)
    app.connect("html-page-context", link_pages)
    app.add_transform(Anchors)
    app.add_transform(TaggedEquations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
