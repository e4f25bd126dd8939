"""Run the chapters and build the pages.

    python tools/book.py build             run what has changed, then build the pages into _build/html
    python tools/book.py record [forward]  run chapters (all, or those whose names contain a word given) and store
                                           their outputs in the notebooks
    python tools/book.py number            write the numbers of the chapters, which are their places in _toc.yml, into
                                           titles, equations and links; `build` does this first
    python tools/book.py address           write the book's public address, from _config.yml, into the chapters'
                                           first cells: one that is opened alone fetches the project from there

Each chapter runs in a fresh kernel, in its own folder.
`build` keeps the runs in a jupyter-cache below _build, which `jupyter-book build` reads as well. MyST-NB finds a
run by the code of its notebook alone and would show stale figures after an edit in ddpm_lib or an upgrade of torch; the
cache's folder is therefore named by a hash of the library, of the order of the chapters, of Python's version and of the
packages' that it runs on.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "chapters"
BUILD = ROOT / "_build"
CELL_TIMEOUT = 1800  # seconds
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"

# How a chapter's first cell begins.
START = """\
import importlib.util
import subprocess
import sys
from pathlib import Path

BOOK, BRANCH = "{url}", "{branch}"  # where the book is public, if it is: `make address` copies it from _config.yml
if Path("../ddpm_lib").is_dir():  # the project around this chapter
    sys.path.insert(0, str(Path("..").resolve()))
elif BOOK:  # the chapter was opened alone: fetch the project
    project = Path(BOOK).stem
    if not Path(project).is_dir():
        subprocess.run(["git", "clone", "--quiet", "--depth=1", "--branch", BRANCH, BOOK], check=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"./{{project}}[chapters]"], check=True)
    sys.path.insert(0, project)
elif importlib.util.find_spec("ddpm_lib") is None:
    raise ModuleNotFoundError("ddpm_lib is not here: run this chapter in its project, or install the project first.")
"""


def parts() -> list[tuple[str, list[str]]]:
    """The parts of _toc.yml: caption, and files without their endings."""
    import yaml

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    groups = toc.get("parts", [toc])
    return [("", [toc["root"]]), *((g.get("caption", ""), [c["file"] for c in g.get("chapters", [])]) for g in groups)]


def chapter_files() -> list[Path]:
    """The notebooks named in _toc.yml: the chapters and some appendices."""
    names = [name for _, files in parts() for name in files]
    return [ROOT / f"{name}.ipynb" for name in names if (ROOT / f"{name}.ipynb").exists()]


# --- numbers -------------------------------------------------------------------------------------------


HEAD = re.compile(r"\A# \d+ · ")  # how the title of a chapter begins; that of an appendix has no number
LOCAL = re.compile(r"\d+\.\d+")  # the number of an equation in its chapter; the report's are whole numbers
MARK = re.compile(r'<a id="([\w-]+)"></a>|\\tag\{([^}]*)\}')
LINK = re.compile(r"\[([^\[\]]*)\]\(([\w./-]*)(#[\w-]+)?\)")
LABEL = re.compile(r"(\**(?:[Cc]hapter\s)?)\d+(\**|\.\d+| · .+)")  # chapter 7; 7; **7**; exercise 7.2; 7 · The name
MORE = ("*.md", "benchmarks/*.md")  # what else links to chapters by their numbers


def markdown(file: Path) -> tuple[Any, list[tuple[Any, str]]]:
    """What a page holds, and where in it markdown stands: cells and captions, each as a mapping and its key."""
    import nbformat

    if file.suffix == ".md":
        page = {"text": file.read_text("utf-8")}
        return page, [(page, "text")]
    nb = nbformat.read(file, as_version=4)
    figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in nb.cells]
    places = [(cell, "source") for cell in nb.cells if cell.cell_type == "markdown"]
    return nb, places + [(figure, "caption") for figure in figures if "caption" in figure]


def chapters() -> list[Path]:
    """The notebooks of _toc.yml whose title begins with a number, in their order: the first is chapter 1."""
    titles = {file: "".join(json.loads(file.read_text("utf-8"))["cells"][0]["source"]) for file in chapter_files()}
    return [file for file, title in titles.items() if HEAD.match(title)]


def equations(texts: list[str], n: int) -> dict[str, str]:
    """Anchor → number of each equation that chapter n counts itself: n.1, n.2, …, as they come."""
    found: dict[str, str] = {}
    waiting: list[str] = []
    k = 0
    for anchor, tag in MARK.findall("\n".join(texts)):
        if anchor:
            waiting.append(f"#{anchor}")
            continue
        if LOCAL.fullmatch(tag):
            k += 1
            found |= dict.fromkeys(waiting, f"{n}.{k}")
        waiting = []
    return found


def number(write: bool = True) -> list[Path]:
    """Write the number of each chapter and of its own equations wherever they stand; return the files that had others.

    A link says which chapter or equation its number means; a number without a link is not touched.
    """
    import nbformat

    listed = [ROOT / f"{name}{ending}" for _, names in parts() for name in names for ending in (".ipynb", ".md")]
    others = [file for pattern in MORE for file in sorted(ROOT.glob(pattern))]
    pages = {file: markdown(file) for file in [*listed, *others] if file.exists()}
    texts = {file: [holder[key] for holder, key in places] for file, (_, places) in pages.items()}
    numbers = {file: n for n, file in enumerate(chapters(), 1)}
    tags = {file: equations(texts[file], n) for file, n in numbers.items()}

    def relabel(link: re.Match[str], file: Path) -> str:
        label, path, anchor = link.groups()
        target = Path(os.path.normpath(file.parent / path)) if path else file
        new = label
        if anchor in tags.get(target, {}):
            new = LOCAL.sub(tags[target][anchor], label)
        elif path and target in numbers and (found := LABEL.fullmatch(label)):
            new = f"{found[1]}{numbers[target]}{found[2]}"
        return link[0].replace(f"[{label}]", f"[{new}]", 1)

    def renumber(text: str, file: Path, count: Iterator[int]) -> str:
        if n := numbers.get(file):
            text = HEAD.sub(f"# {n} · ", text)
            text = re.sub(r"\\tag\{\d+\.\d+\}", lambda _: rf"\tag{{{n}.{next(count)}}}", text)
        return LINK.sub(lambda link: relabel(link, file), text)

    changed = []
    for file, (page, places) in pages.items():
        count = itertools.count(1)
        for holder, key in places:
            holder[key] = renumber(holder[key], file, count)
        if [holder[key] for holder, key in places] != texts[file]:
            changed.append(file)
            if write and file.suffix == ".md":
                file.write_text(page["text"], "utf-8")
            elif write:
                nbformat.write(page, file)
    return changed


# --- runs ----------------------------------------------------------------------------------------------


def environment() -> list[str]:
    """Python, and what pyproject.toml says that the library and the chapters need: each with its version here."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["chapters"]]
    names = sorted({re.match(r"[\w.-]+", requirement)[0] for requirement in needed})
    return [f"Python {sys.version_info[:3]}", *(f"{name} {metadata.version(name)}" for name in names)]


def cache_dir() -> Path:
    """Where the runs of the chapters are kept: another folder for another library, order or environment."""
    digest = hashlib.sha256("\n".join(environment()).encode())
    folders = ("ddpm_lib", "experiments")
    sources = [file for folder in folders for file in sorted((ROOT / folder).rglob("*"))]
    for file in [*sources, *sorted(CHAPTERS.glob("*.bib")), *ROOT.glob("_toc.yml")]:  # some cells print a number
        if file.suffix in {".py", ".js", ".json", ".safetensors", ".bib", ".csv", ".npz", ".yml"}:
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return BUILD / ".jupyter_cache" / digest.hexdigest()[:16]


class ChapterFailed(Exception):
    """A cell of a chapter raised; the message names chapter, cell and error."""


def execute(file: Path):
    """Run a chapter in a fresh kernel; return the notebook with its outputs."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    nb = nbformat.read(file, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    at = [0]
    log = BUILD / "logs" / f"{file.stem}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(
        nb,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(file.parent)}},
        on_cell_start=lambda cell, cell_index: at.__setitem__(0, cell_index),
    )
    with log.open("w") as stderr:
        try:
            client.execute(stderr=stderr)
        except (CellControlSignal, DeadKernelError, TimeoutError) as error:
            raise failure(file, nb, at[0], getattr(error, "traceback", None) or str(error)) from None
    for index, cell in enumerate(nb.cells):  # a figure that cannot be drawn does not stop its cell
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise failure(file, nb, index, "\n".join(output.traceback))
    return nb


def failure(file: Path, nb, index: int, traceback: str) -> ChapterFailed:
    """Name the cell at this index and the end of its traceback."""
    number = sum(c.cell_type == "code" for c in nb.cells[: index + 1])
    first = (nb.cells[index].source.strip().splitlines() or [""])[0]
    lines = re.sub(r"\x1b\[[0-9;]*m", "", traceback).strip().splitlines()[-8:]
    return ChapterFailed("\n".join([f"{file.stem}, code cell {number} ({first}):", *(f"    {line}" for line in lines)]))


def normalise(nb, name: str) -> None:
    """Leave in a run nothing that would differ in the next one: times, random ids, streams of warnings."""
    nb.metadata = type(nb.metadata)(
        {k: v for k, v in nb.metadata.items() if k in {"mystnb", "widgets"}},
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in nb.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "outputId", "colab"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = strip_png(output.data["image/png"])
    rename_widgets(nb, name)


def strip_png(text: str) -> str:
    """A PNG (base64) without its text and time chunks, which name the version of matplotlib."""
    data = base64.b64decode(text)
    kept, at = data[:8], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in (b"tEXt", b"iTXt", b"zTXt", b"tIME"):
            kept += data[at:end]
        at = end
    return base64.b64encode(kept).decode() + "\n"


def rename_widgets(nb, name: str) -> None:
    """Stable names for widget models, and only the models that a cell shows (and those they refer to)."""
    views = [o.data[VIEW] for c in nb.cells for o in c.get("outputs", []) if VIEW in o.get("data", {})]
    state = nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    order: list[str] = []
    queue = [view["model_id"] for view in views]
    while queue:
        model = queue.pop(0)
        if model not in order and model in state:
            order.append(model)
            text = json.dumps(state[model])
            queue += sorted((m for m in state if f"IPY_MODEL_{m}" in text), key=text.index)
    if not order:
        nb.metadata.pop("widgets", None)
        return
    new = {m: hashlib.sha256(f"{name} {i}".encode()).hexdigest()[:32] for i, m in enumerate(order)}
    text = json.dumps({m: state[m] for m in order}, sort_keys=True)
    for old, stable in new.items():
        text = text.replace(old, stable)
    for view in views:
        view["model_id"] = new.get(view["model_id"], view["model_id"])
    kept = {"state": json.loads(text), "version_major": 2, "version_minor": 0}
    nb.metadata["widgets"] = type(nb.metadata)({STATE: kept})


def progress(i: int, n: int, file: Path) -> None:
    print(f"[{i}/{n}] {file.stem} … ", end="", flush=True)


def build() -> None:
    import nbformat
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    started = time.monotonic()
    if changed := number():
        print(f"numbers written into {', '.join(file.name for file in changed)}")
    where = cache_dir()
    cache, files, ran = get_cache(str(where)), chapter_files(), 0
    for i, file in enumerate(files, 1):
        progress(i, len(files), file)
        try:
            cache.match_cache_notebook(nbformat.read(file, as_version=4))
            print("cached")
            continue
        except KeyError:
            pass
        start = time.monotonic()
        nb = execute(file)
        seconds = time.monotonic() - start
        rename_widgets(nb, file.stem)
        bundle = CacheBundleIn(nb, str(file), data={"execution_seconds": seconds})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        print(f"{seconds:.1f} s")
        ran += 1
    print("building the pages … ", end="", flush=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, *(["--all"] if ran else []), "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"failed\n{done.stdout}{done.stderr}\nThe pages were not built: see the messages above.")
    for other in where.parent.iterdir():  # runs with another library or environment
        if other != where:
            shutil.rmtree(other)
    page = BUILD / "html" / "index.html"
    print(f"{time.monotonic() - started:.0f} s in all")
    print(f"Open {page.relative_to(ROOT)} in a browser: {page.as_uri()}")


def record(words: list[str]) -> None:
    import nbformat

    files = [f for f in chapter_files() if not words or any(word in f.stem for word in words)]
    if not files:
        sys.exit(f"no chapter's name contains any of: {' '.join(words)}")
    for i, file in enumerate(files, 1):
        progress(i, len(files), file)
        start = time.monotonic()
        nb = execute(file)
        normalise(nb, file.stem)
        nbformat.write(nb, file)
        print(f"{time.monotonic() - start:.1f} s")


def start() -> str:
    """How a chapter's first cell begins, with the address that _config.yml gives."""
    import yaml

    repository = yaml.safe_load((ROOT / "_config.yml").read_text()).get("repository", {})
    return START.format(url=repository.get("url") or "", branch=repository.get("branch") or "main")


def address() -> None:
    """Write that beginning into every chapter that has one."""
    import nbformat

    parts = START.format(url="\0", branch="\0").strip().split("\0")
    begins = re.compile('[^"]*'.join(map(re.escape, parts)))
    changed = 0
    for file in chapter_files():
        nb = nbformat.read(file, as_version=4)
        for cell in nb.cells:
            if cell.cell_type == "code" and begins.match(cell.source):
                new = begins.sub(lambda _: start().strip(), cell.source, count=1)
                changed += new != cell.source
                cell.source = new
        nbformat.write(nb, file)
    print(f"{changed} chapters changed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "record", "number", "address"])
    parser.add_argument("chapters", nargs="*", help="record: words that the names of the chapters contain")
    arguments = parser.parse_args()
    os.environ["DDPM_PROGRESS"] = "0"  # nobody watches a bar here
    os.environ.pop("MPLBACKEND", None)  # with it set, a kernel shows no figure
    try:
        if arguments.command == "address":
            address()
        elif arguments.command == "number":
            print(f"{len(number())} files changed")
        else:
            build() if arguments.command == "build" else record(arguments.chapters)
    except ChapterFailed as error:
        sys.exit(f"failed\n{error}")


if __name__ == "__main__":
    main()
