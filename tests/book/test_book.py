"""The structure of the book: what a reader, a plain Jupyter and the next recording can rely on."""

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "_ext"))
import book
import reference

import ddpm_lib
from ddpm_lib.figures import explorers
from ddpm_lib.figures.player import PathPlayer
from ddpm_lib.figures.sampler import Sampler
from experiments import scoreboard

ROOT = Path(__file__).resolve().parents[2]

FILES = sorted((ROOT / "chapters").glob("*.ipynb"))
SCOREBOARD = ROOT / "chapters" / "scoreboard.ipynb"
MAX_PNG = 100_000  # bytes
MAX_IGNORED = 0.2  # of a chapter's code cells
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def read(file):
    return json.loads(file.read_text("utf-8"))


def source(cell):
    return "".join(cell["source"])


def code_cells(file):
    return [cell for cell in read(file)["cells"] if cell["cell_type"] == "code"]


def markdown(file):
    return [source(cell) for cell in read(file)["cells"] if cell["cell_type"] == "markdown"]


def tags(cell):
    return set(cell["metadata"].get("tags", []))


def outputs(file, kind):
    """(cell, data) for each stored output of a mime type."""
    for cell in code_cells(file):
        for output in cell["outputs"]:
            if kind in output.get("data", {}):
                yield cell, output["data"][kind]


CHAPTERS = book.chapters()
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
each_chapter = pytest.mark.parametrize("file", CHAPTERS, ids=lambda file: file.stem)


NOT_A_FIGURE = re.compile(  # formulas, code, links, tags, headings, sections and exercises, numbers of equations
    r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<[^>]*>|^#[^\n]*$"
    r"|(?:sec(?:tions?|\.)|[Ee]xercises?) [\d. andto]+|\(\d+\.\d+\)",
    re.S | re.M,
)
FIGURE = re.compile(r"(?<![\w.,–-])(?:\d+\.\d+|\d+(?:\.\d+)?(?= ?%))(?![\w])")  # decimals and percentages
SAID_ONCE = {"95": "the intervals of the book", "5": "the definition of valid", "0.051": "printed by the report"}


@each_chapter
def test_figures_in_the_prose_come_from_a_cell(file):
    """Every decimal and every percentage of the text stands in the code or in an output of the same chapter."""
    cells = code_cells(file)
    printed = ["".join(out.get("text", [])) for cell in cells for out in cell["outputs"]]  # not pictures or widgets
    told = " ".join([*map(source, cells), *printed])
    known = {number for number in re.findall(r"\d+(?:\.\d+)?", told)}
    known |= {f"{float(number) * 100:g}" for number in known if "." in number}
    for text in markdown(file):
        for figure in FIGURE.findall(NOT_A_FIGURE.sub(" ", text)):
            assert figure in known or figure in SAID_ONCE, f"{figure} is in the text and in no cell: {text[:200]}"


def pages():
    """All that _toc.yml names. No sections: the theme's control that unfolds them has no name for a screen reader."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def test_toc_names_the_notebooks_and_pages_that_exist():
    files = [*(ROOT / "chapters").rglob("*.ipynb"), *(ROOT / "chapters").rglob("*.md")]
    there = [f.relative_to(ROOT).with_suffix("").as_posix() for f in files if ".ipynb_checkpoints" not in f.parts]
    assert sorted(pages()) == sorted(there)


# --- numbers -----------------------------------------------------------------------------------------


def test_the_numbers_of_chapters_are_their_places_in_the_contents():
    assert book.number(write=False) == [], "run: make number"
    assert [int(re.match(r"# (\d+)", markdown(file)[0])[1]) for file in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


def numbered_parts():
    """The parts of the book proper, which have a numeral: caption → the names of their chapters."""
    (_, root), *others = book.parts()
    parts = {caption: files for caption, files in others if re.match("[IVX]+ · ", caption)}
    parts[next(iter(parts))] = root + parts[next(iter(parts))]  # the page on which the book opens
    return {caption: [Path(file).name for file in files] for caption, files in parts.items()}


def test_the_chapters_of_the_numbered_parts_are_those_with_a_number():
    assert [name for names in numbered_parts().values() for name in names] == [file.stem for file in CHAPTERS]


@each_file
def test_links_that_cells_have_printed_carry_the_numbers_of_their_chapters(file):
    numbers = {chapter.name: str(n) for n, chapter in enumerate(CHAPTERS, 1)}
    for _, printed in outputs(file, "text/markdown"):
        for label, name in re.findall(r"\[\**(\d+)\**\]\((\w+\.ipynb)\)", "".join(printed)):
            assert label == numbers[name], f"run: make record CHAPTERS={file.stem}"


def test_the_scoreboard_names_its_methods_by_the_numbers_of_their_chapters():
    printed = "".join("".join(out.get("text", [])) for cell in code_cells(SCOREBOARD) for out in cell["outputs"])
    for row in scoreboard.stored():
        assert f"\n{row.method} " in printed, "run: make record CHAPTERS=scoreboard"


LISTED = [file for page in pages() for file in (ROOT / f"{page}.ipynb", ROOT / f"{page}.md") if file.exists()]
LINKING = [*LISTED, *(file for pattern in book.MORE for file in sorted(ROOT.glob(pattern)))]
CHAPTER_BY_NUMBER = re.compile(r"[Cc]hapters?\s+(?:(?:<link>|and|or|to|,)\s*)*\d")
EQUATION_BY_NUMBER = re.compile(r"(?<![\w)])\(\d+\.\d+\)")


@pytest.mark.parametrize("file", LINKING, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_number_of_a_chapter_or_of_its_equation_is_a_link(file):
    """A number alone does not say what it means, so nothing can keep it right."""
    for holder, key in book.markdown(file)[1]:
        text = book.LINK.sub("<link>", re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", "", holder[key], flags=re.S))
        assert not CHAPTER_BY_NUMBER.search(text) and not EQUATION_BY_NUMBER.search(text), holder[key]


@each_file
def test_code_and_its_outputs_name_no_chapter_or_equation_by_its_number(file):
    for cell in code_cells(file):
        printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
        told = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for text in (source(cell), printed, told):
            assert not CHAPTER_BY_NUMBER.search(text) and not EQUATION_BY_NUMBER.search(text), text


CODE = [
    file
    for folder in ("ddpm_lib", "experiments", "benchmarks", "tools", "_ext", "assets")
    for kind in ("py", "js")
    for file in sorted((ROOT / folder).rglob(f"*.{kind}"))
]


def test_docstrings_and_comments_name_chapters_by_their_files():
    names = {file.stem for file in CHAPTERS}
    for file in CODE:
        text = file.read_text("utf-8")
        assert file.name == "book.py" or not re.search(r"(?<!\w)[Cc]hapters?\s+\d", text), file
        if ROOT / "ddpm_lib" in file.parents:
            for said in reference.CHAPTERS.findall(text):
                assert set(re.findall(r"`(\w+)`", said)) <= names, f"{file}: {said}"


def test_the_reference_makes_links_of_them():
    training, sampling = (reference.numbers()[name] for name in ("training", "sampling"))
    linked = f":doc:`{training} </chapters/training>` and\n:doc:`{sampling} </chapters/sampling>`"
    assert reference.link_chapters("(chapters `training` and\n`sampling`), `x`") == f"(chapters {linked}), `x`"


def test_such_numbers_are_seen():
    for wrong in ("see chapter 7", "Chapters <link>, <link> and 7", "chapters <link> to\n9"):
        assert CHAPTER_BY_NUMBER.search(wrong)
    assert not CHAPTER_BY_NUMBER.search("chapters <link> and <link>. 8 steps")
    assert EQUATION_BY_NUMBER.search("by (7.2)") and not EQUATION_BY_NUMBER.search("sqrt(7.2)")


# --- the API reference --------------------------------------------------------------------------------


AUTOMODULE = re.compile(r"^\.\. automodule:: ddpm_lib\.(\w+\.\w+)$", re.M)
REFERENCE = [ROOT / f"{page}.md" for page in pages() if page.startswith("chapters/api/")]


def modules_of_the_reference():
    """The modules that the pages of the reference show, in their order."""
    return [module for file in REFERENCE for module in AUTOMODULE.findall(file.read_text("utf-8"))]


def test_the_reference_shows_every_module_of_every_room():
    """A new module: three lines on its room's page in chapters/api."""
    files = [file for room in reference.ROOMS for file in (ROOT / "ddpm_lib" / room).glob("*.py")]
    modules = Counter(f"{file.parent.name}.{file.stem}" for file in files if file.stem != "__init__")
    assert Counter([*modules_of_the_reference(), "cli.main"]) == modules
    assert [file.stem for file in REFERENCE] == list(reference.ROOMS)


def test_readme_s_map_is_what_the_rooms_say_of_themselves():
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.split("| room | chapter | what it holds |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]
    assert [room for room, _, _ in rows] == [f"`{room}`" for room in reference.ROOMS]
    for (_, links, about), room in zip(rows, reference.ROOMS, strict=True):
        assert about == reference.about(room).splitlines()[0].rstrip(".")
        assert re.findall(r"chapters/(\w+)\.ipynb", links) == re.findall(r"`(\w+)`", reference.about(room))


def test_what_the_package_offers_is_what_its_rooms_offer():
    rooms = [import_module(f"ddpm_lib.{room}") for room in reference.ROOMS[:-2]]
    assert {name for name in ddpm_lib.__all__ if not any(name in room.__all__ for room in rooms)} == set()


def test_every_public_name_stands_in_the_reference_once_with_its_docstring():
    offered = [name for module in modules_of_the_reference() for name in reference.names(module)]
    counts = Counter(offered)
    assert {name: counts[name] for name in ddpm_lib.__all__ if counts[name] != 1} == {}
    for module in modules_of_the_reference():
        found = import_module(f"ddpm_lib.{module}")
        for name in reference.names(module):
            thing = getattr(found, name)
            own = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
            assert not callable(thing) or (own or "").strip(), f"{module}.{name} says nothing of itself"


@pytest.mark.parametrize("file", REFERENCE, ids=lambda file: file.stem)
def test_each_module_of_the_reference_stands_under_its_name(file):
    text = file.read_text("utf-8")
    assert [f"{file.stem}.{name}" for name in re.findall(r"^## `(\w+)`$", text, re.M)] == AUTOMODULE.findall(text)


@each_file
def test_cells_were_run_once_in_order_from_a_fresh_kernel(file):
    counts = [cell["execution_count"] for cell in code_cells(file)]
    assert counts == list(range(1, len(counts) + 1)), "run: make record"
    assert all(source(cell).strip() for cell in code_cells(file)), "an empty code cell"


@each_file
def test_stored_outputs_hold_no_error_warning_or_path(file):
    for cell in code_cells(file):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", source(cell)
            assert output.get("name") != "stderr", source(cell)
            text = "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
            assert not re.search(r"(?<!\w)/(home|root|tmp|usr|opt|Users)/|Warning:|0x[0-9a-f]{8}", text), text
            assert str(ROOT) not in text, text


@each_file
def test_metadata_hold_no_times_and_name_a_kernel_everybody_has(file):
    nb = read(file)
    assert nb["metadata"]["kernelspec"]["name"] == "python3"
    assert set(nb["metadata"]) <= {"kernelspec", "language_info", "mystnb", "widgets"}
    assert nb["metadata"]["language_info"] == {"name": "python"}
    for cell in nb["cells"]:
        assert set(cell["metadata"]) <= {"tags", "mystnb", "jupyter", "slideshow"}, cell["metadata"]


@pytest.mark.parametrize("file", [f for f in FILES if "ddpm_lib" in f.read_text("utf-8")], ids=lambda file: file.stem)
def test_a_notebook_begins_by_finding_the_library(file):
    assert source(code_cells(file)[0]).startswith(book.start().strip()), "run: make address"


@each_file
def test_few_outputs_are_ignored_and_each_of_those_cells_asserts(file):
    cells = code_cells(file)
    ignored = [cell for cell in cells if {"nbval-ignore-output", "nbval-skip"} & tags(cell)]
    assert len(ignored) <= max(1, MAX_IGNORED * len(cells))
    for cell in cells:
        assert "nbval-skip" not in tags(cell), "a skipped cell tests nothing"
        assert "NBVAL_" not in source(cell), "use tags: comments show in the book"
    for cell in ignored:
        assert re.search(r"^\s*assert ", source(cell), re.M), source(cell)


@each_file
def test_markdown_reads_in_plain_jupyter(file):
    for text in markdown(file):
        prose = re.sub(r"```.*?```|(?<![}`])`[^`]+`", "", text, flags=re.S)
        assert not re.search(r"\{[a-z:]+\}`", prose), f"a MyST role shows raw in Jupyter: {text}"
        assert not re.search(r"^\s*(:::|```)\s*\{", text, re.M), f"a MyST directive shows raw in Jupyter: {text}"
        assert not re.search(r"\$\$[ \t]*\([\w-]+\)[ \t]*$", text, re.M), f"write \\tag{{9}} and an anchor: {text}"


@each_file
def test_links_to_equations_and_chapters_have_their_target(file):
    for text in markdown(file):
        for name, anchor in re.findall(r"\]\(([\w.-]+\.ipynb)?#(eq-[\w-]+)\)", text):
            target = ROOT / "chapters" / name if name else file
            assert target.exists(), name
            found = sum(cell.count(f'<a id="{anchor}"></a>') for cell in markdown(target))
            assert found == 1, f"{found} anchors {anchor} in {target.name}"


@each_chapter
def test_a_chapter_s_own_equations_have_anchors_that_last(file):
    text = "\n".join(markdown(file))
    anchors = book.equations([text], 1)
    lasting = {number for anchor, number in anchors.items() if not re.fullmatch(r"#eq-[\d-]+", anchor)}
    assert len(lasting) == len(re.findall(r"\\tag\{\d+\.\d+\}", text))
    assert not re.search(r"#eq-\d+-\d+\)", text), "a link to an anchor that is only kept for old links"


@each_file
def test_pictures_are_small_and_say_what_they_show(file):
    names = []
    for cell, data in outputs(file, "image/png"):
        png = base64.b64decode("".join(data))
        assert len(png) <= MAX_PNG, f"{len(png)} bytes: {source(cell)}"
        assert b"Software" not in png[:200], "run: make record"
        meta = cell["metadata"].get("mystnb", {})
        figure = meta.get("figure", {})
        assert figure.get("name", "").startswith("fig-"), source(cell)
        assert figure.get("caption", "").strip(), source(cell)
        assert len(meta.get("image", {}).get("alt", "")) > 20, source(cell)
        names.append(figure["name"])
    assert len(names) == len(set(names)), "two figures of one name, or two pictures from one cell"


def test_names_of_figures_are_used_once_in_the_book():
    names = [c["metadata"].get("mystnb", {}).get("figure", {}).get("name") for f in FILES for c in code_cells(f)]
    names = [name for name in names if name]
    assert len(names) == len(set(names))


@each_file
def test_interactive_figures_are_stored_with_their_state_and_today_s_front_end(file):
    states = read(file)["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    front_ends = {str(widget._esm) for widget in (PathPlayer, Sampler, *explorers.ALL)}
    for cell, view in outputs(file, VIEW):
        assert view["model_id"] in states, f"no stored state: {source(cell)}"
        state = states[view["model_id"]]["state"]
        assert state.get("_esm") in front_ends, "the front end has changed since; run: make record"


@each_chapter
def test_a_chapter_has_its_anatomy(file):
    text = "\n".join(markdown(file))
    opening = markdown(file)[0] + markdown(file)[1]
    for phrase in ("you will be able to", "needs", "runs in"):
        assert phrase in opening, f"the opening lacks {phrase!r}"
    places = [text.find(f"\n## {heading}") for heading in ("What to remember", "Exercises", "Read on")]
    assert min(places) > 0, f"a closing section is missing: {places}"
    assert places == sorted(places)
    assert not re.search(r"\b(TODO|FIXME)\b", text)


def exercises(file):
    """Number of an exercise → what follows it, up to the next: its text, solution, and a mark for each cell of code."""
    cells = read(file)["cells"]
    text = "\n".join(source(cell) if cell["cell_type"] == "markdown" else "[code]" for cell in cells)
    parts = re.split(r"^\*\*(\d+)\.\*\* ", text.partition("\n## Exercises")[2], flags=re.M)
    return {int(n): body.partition("\n## ")[0] for n, body in zip(parts[1::2], parts[2::2], strict=True)}


@each_chapter
def test_every_exercise_has_a_solution_and_code_in_it_is_run(file):
    """Code of a solution is a cell, which nbval runs: none stands in the text, where nothing runs it."""
    found = exercises(file)
    assert list(found) == list(range(1, len(found) + 1)) and found
    for number, body in found.items():
        assert "<summary>Solution</summary>" in body or "[code]" in body, f"exercise {number} has no solution"
        assert "```" not in body, f"exercise {number}: code that is never run"
    assert any("[code]" in body for body in found.values())


def test_the_course_plan_names_every_chapter_and_exercises_that_exist():
    plan = (ROOT / "chapters" / "teaching.md").read_text("utf-8")
    assert {file.name for file in CHAPTERS} <= set(re.findall(r"\((\w+\.ipynb)\)", plan))
    there = {(str(n), file.name) for file in CHAPTERS for n in exercises(file)}
    rows = re.findall(r"^\| \d+ \|.*\| ([^|]+) \|$", plan, re.M)
    given = [name for row in rows for name in re.findall(r"\[\d+\.(\d+)\]\((\w+\.ipynb)\)", row)]
    assert len(given) == sum(len(re.findall(r"\d+\.\d+", row)) for row in rows)
    assert len(rows) == 12 and set(given) <= there and len(given) == len(set(given))


@pytest.mark.parametrize("page", ["README.md", "MAINTAINING.md"])
def test_readme_maintaining_and_makefile_agree(page):
    text = (ROOT / page).read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"`?make ([a-z][a-z-]+)", "\n".join(re.findall(r"`[^`]*`|```.*?```", text, re.S))))
    assert {"book", "test"} <= named <= targets
    assert page == "README.md" or named == targets
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_help_shows_ten_targets_in_three_groups_and_help_all_every_one():
    def shown(*arguments):
        lines = subprocess.run(["make", "-s", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return re.findall(r"^(\w+)$", lines, re.M), re.findall(r"^  make ([a-z-]+) +\w", lines, re.M)

    groups, ten = shown("help")
    assert groups == ["Use", "Write", "Maintain"] and len(ten) == len(set(ten)) == 10
    assert shown() == (groups, ten)
    _, every = shown("help-all")
    assert set(ten) < set(every) == set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == ddpm_lib.__version__
    assert f"## {ddpm_lib.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_lock_has_a_hash_for_all_but_torch():
    lock = (ROOT / "lock.txt").read_text()
    assert "://" not in lock
    packages = re.findall(r"^([\w.-]+)==\S+[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.M)
    assert len(packages) == len(re.findall(r"^[a-z]", lock, re.M)) > 150
    assert not any(re.match(r"torch$|nvidia-|cuda-|triton", name) for name, _ in packages)
    (torch,) = re.findall(r"^TORCH_LOCKED := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert f" torch=={torch}\n" in (ROOT / "MAINTAINING.md").read_text("utf-8")


def test_the_map_of_the_book_is_what_the_chapters_say_they_need():
    """Drawn by the first chapter; each says what it needs in the sentence of its opening that begins "It needs"."""
    (cell,) = [c for c in code_cells(CHAPTERS[0]) if source(c).startswith("MAP = {")]
    values = re.findall(r"^[A-Z]+ = ([{(].*?^[})])", source(cell), re.S | re.M)
    drawn, parts = map(ast.literal_eval, values)
    needs = {}
    for file in CHAPTERS:
        sentence = re.search(r"It needs .*?[.:](?=\s|$)", markdown(file)[0], re.S)[0]
        needs[file.stem] = set(re.findall(r"\((\w+)\.ipynb\)", sentence))
    assert {name: set(before) for name, (*_, before) in drawn.items()} == needs
    assert list(drawn) == list(needs)  # it draws their numbers, which are their places
    of = {name: caption for caption, names in numbered_parts().items() for name in names}
    assert {name: parts[part] for name, (_, part, *_) in drawn.items()} == of


def test_the_table_of_the_first_chapter_is_the_contents():
    rows = re.findall(r"^\| ([IVX]+ · [^|]+) \| (.*?) \|", "\n".join(markdown(CHAPTERS[0])), re.M)
    assert {caption: re.findall(r"\((\w+)\.ipynb\)", links) for caption, links in rows} == numbered_parts()
