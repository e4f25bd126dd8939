"""The API reference: the docstrings of `ddpm_lib`, a page for each of its rooms.

sphinx.ext.autodoc and napoleon read the docstrings, viewcode adds the source; what is here is the rest:

- `.. room::` shows what a room's docstring says;
- `.. library::` lists every public name, room by room;
- `.. commands::` shows what `ddpm --help` and the help of each command say first;
- a name in backticks in a docstring is a link, wherever in the library it is defined;
- so is a chapter, which a docstring names by its file and the page by its number;
- a field of a NamedTuple has no entry of its own ("Alias for field number 0"), nor has a dataclass's field whose
  default is a function: it would look like a method;
- a signature is that of ``__init__`` where a framework hides it, and its defaults are written as Python would be;
- the arguments of a signature, each on its line, are lines: Sphinx makes them a list of meanings without words, which a
  screen reader stumbles over.
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autosummary import extract_summary
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import signature as sphinx_signature
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from book import chapters  # noqa: E402

CHAPTERS = re.compile(r"\b[Cc]hapters?\s+`\w+`(?:(?:,|\s+and)\s+`\w+`)*")


ROOMS = ("signals", "diffusion", "exact", "networks", "training", "sampling", "measures", "figures", "cli")
"""The rooms of the library; arrows point one way: none imports one that stands later."""


def about(room: str) -> str:
    """What a room's docstring says of it."""
    return inspect.cleandoc(import_module(f"ddpm_lib.{room}").__doc__ or "")


def modules(room: str) -> list[str]:
    """The modules of a room, in the order of its page: ``signals.family``, ..."""
    page = (ROOT / "chapters" / "api" / f"{room}.md").read_text("utf-8")
    return re.findall(r"automodule:: ddpm_lib\.(\w+\.\w+)", page)


def names(module: str) -> list[str]:
    """What a module's ``__all__`` offers, in the order of its source."""
    found = import_module(f"ddpm_lib.{module}")
    source = inspect.getsource(found)
    places = {name: re.search(rf"^(?:class |def |async def )?{name}\b", source, re.M) for name in found.__all__}
    return sorted(places, key=lambda name: place.start() if (place := places[name]) else 0)


@cache
def numbers() -> dict[str, int]:
    return {file.stem: n for n, file in enumerate(chapters(), 1)}


def link_chapters(text: str) -> str:
    """Docstrings name chapters by their files: as ``:doc:`9 </chapters/training>```."""
    known = numbers()
    return CHAPTERS.sub(
        lambda said: re.sub(r"`(\w+)`", lambda name: f":doc:`{known[name[1]]} </chapters/{name[1]}>`", said[0]), text
    )


def in_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = link_chapters("\n".join(lines)).split("\n")


class Room(Directive):
    """What a room holds, and which chapters use it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        holder = nodes.container()
        lines = link_chapters(about(self.arguments[0])).split("\n")
        self.state.nested_parse(StringList(lines, self.arguments[0]), 0, holder)
        return holder.children


class Library(Directive):
    """Every public name, room by room."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for room in ROOMS:
            offered = [(m, n) for m in modules(room) for n in names(m)]
            lines += [f".. rubric:: {room}", "", *link_chapters(about(room)).split("\n"), ""]
            lines += [f"* `{n} <ddpm_lib.{m}.{n}>` – {self.summary(m, n)}" for m, n in offered]
            lines += [""]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, "README.md"), 0, holder)
        return holder.children

    def summary(self, module: str, name: str) -> str:
        """The first sentence of a docstring."""
        thing = getattr(import_module(f"ddpm_lib.{module}"), name)
        of_constants = ModuleAnalyzer.for_module(f"ddpm_lib.{module}").find_attr_docs()
        text = inspect.getdoc(thing) if callable(thing) else "\n".join(of_constants.get(("", name), []))
        # Sphinx would end the sentence at the full stop of an abbreviation
        kept = re.sub(r"\b(eq|sec|fig)\.(?= )", "\\1\0", text or "")
        return extract_summary(link_chapters(kept).splitlines(), self.state.document).replace("\0", ".")


class Commands(Directive):
    """What the program says of itself and of its commands."""

    def run(self) -> list[nodes.Node]:
        program = import_module("ddpm_lib.cli.main")
        found: list[nodes.Node] = []
        for title, thing in {"": program, **program.COMMANDS}.items():
            said = inspect.getdoc(thing) or ""
            found += [
                nodes.rubric("", f"ddpm {title}".strip()),
                nodes.literal_block(said, said, language="text", classes=["help"]),
            ]
        return found


def link(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """A short name, or one of another library, where Sphinx itself finds nothing."""
    if node.get("refdomain") != "py":
        return None
    objects = env.get_domain("py").objects
    target = node["reftarget"].removeprefix("ddpm_lib.").removesuffix("()")
    found = [full for full in objects if re.fullmatch(rf"ddpm_lib\.(\w+\.){{0,2}}{re.escape(target)}", full)]
    if len(found) != 1:
        return contnode  # torch's, or an argument: not a link, and not a mistake
    entry = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, found[0])


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    alias = (inspect.getdoc(thing) or "").startswith("Alias for field number")
    field = inspect.isfunction(thing) and "." not in thing.__qualname__ and what == "class"
    return True if alias or field else None


def signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    if arguments is None:
        return None
    if what == "class" and arguments.startswith("(*args") and "__init__" in vars(thing):
        arguments = stringify_signature(
            sphinx_signature(thing.__init__, bound_method=True), show_return_annotation=False
        )
    return re.sub(r"<function (\w+)[^>]*>", r"\1", arguments.replace("<factory>", "...")), returns


def plain_signatures(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: Any) -> None:
    lines = {"<dl>": "<span>", "</dl>": "</span>", "<dd>": '<span class="line">', "</dd>": "</span>"}

    def plain(signature: re.Match[str]) -> str:
        return re.sub("|".join(lines), lambda tag: lines[tag[0]], signature[0])

    if "body" in context:
        context["body"] = re.sub(r'<dt class="sig .*?</dt>', plain, context["body"], flags=re.S)


def setup(app: Sphinx) -> dict:
    for extension in ("autodoc", "napoleon", "viewcode"):
        app.setup_extension(f"sphinx.ext.{extension}")
    app.add_directive("room", Room)
    app.add_directive("library", Library)
    app.add_directive("commands", Commands)
    app.connect("missing-reference", link)
    app.connect("autodoc-process-docstring", in_docstring)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", signature)
    app.connect("html-page-context", plain_signatures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
