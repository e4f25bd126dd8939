"""The driver that runs the chapters: tools/book.py."""

import subprocess
import sys
from importlib import metadata

import alone
import book
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FIGURE = "import matplotlib.pyplot as plt\n\nplt.plot([0, 1])\nplt.show()"
PLAYER = """from ddpm_lib.figures.player import PathPlayer

PathPlayer({'x': [[0.0, 1.0], [1.0, 0.0]]}, description='A line.')"""


FETCHING = [file for file in book.chapter_files() if "BOOK, BRANCH" in file.read_text("utf-8")]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A book of one library file and the chapters that the function it gives is called with."""
    for name in ("chapters", "ddpm_lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "ddpm_lib" / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(book, "ROOT", tmp_path)
    monkeypatch.setattr(book, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(book, "BUILD", tmp_path / "_build")

    def write(name, *code):
        file = tmp_path / "chapters" / f"{name}.ipynb"
        cells = [new_markdown_cell("# A chapter", id="head")]
        cells += [new_code_cell(text, id=f"cell-{i}") for i, text in enumerate(code)]
        nbformat.write(new_notebook(cells=cells), file)
        return file

    return write


def test_the_cache_sees_the_library(small):
    first = book.cache_dir()
    assert book.cache_dir() == first
    (book.ROOT / "ddpm_lib" / "__init__.py").write_text("a = 2\n")
    assert book.cache_dir() != first


def test_the_cache_sees_the_order_of_the_chapters(small):
    found = []
    for text in ("root: a\n", "root: b\n"):
        (book.ROOT / "_toc.yml").write_text(text)
        found.append(book.cache_dir())
    assert found[0] != found[1]


@pytest.mark.parametrize("package", ["torch", "numpy", "scipy", "matplotlib", "lightning", "sympy", "PyWavelets"])
def test_the_cache_sees_an_upgrade(small, monkeypatch, package):
    """The key under which a chapter has passed is made of the cache's name, so this holds for it too."""
    first, version = book.cache_dir(), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version(name) + ".1" * (name == package))
    assert book.cache_dir() != first


def test_the_cache_sees_another_python(small, monkeypatch):
    first = book.cache_dir()
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert book.cache_dir() != first


def test_the_chapters_are_those_of_the_contents_in_their_order(small):
    for name in ("a", "b", "training", "not_listed"):
        small(name, "1")
    (book.ROOT / "_toc.yml").write_text(
        "root: chapters/a\nparts:\n- chapters:\n  - file: chapters/b\n  - file: chapters/training\n"
    )
    assert [file.stem for file in book.chapter_files()] == ["a", "b", "training"]


FIRST = """# 1 · First

It leads to [chapter 2](second.ipynb), [2](second.ipynb), [2 · the second](second.ipynb), [2.4](second.ipynb)\\* and
[(2.1)](second.ipynb#eq-second-a), and not by its number to [2 steps](second.ipynb), [(9)](second.ipynb#eq-9), (2.1).
"""
SECOND = r"""# 2 · Second

<a id="eq-second-a"></a><a id="eq-7-1"></a>

$$ a=1 \tag{2.1} $$

<a id="eq-9"></a>

$$ b=2 \tag{9} $$

<a id="eq-second-c"></a>

$$ c=3 \tag{2.2} $$

[(2.2)](#eq-second-c) and [(2.1)](#eq-7-1), from [chapter 1](first.ipynb#there), not from [the list](list.md).
"""
LIST = "# A list\n\n**[1](first.ipynb)**, [**2**](second.ipynb), [Chapter 2](second.ipynb)\n"
ORDER = "root: chapters/{}\nparts:\n- chapters:\n  - file: chapters/{}\n- chapters:\n  - file: chapters/list\n"


def test_a_chapter_that_moves_takes_its_number_to_titles_equations_and_links(small):
    def write(name, text):
        file = book.CHAPTERS / f"{name}.ipynb"
        drawn = new_code_cell("draw()", id="draws", metadata={"mystnb": {"figure": {"caption": text[-99:]}}})
        nbformat.write(new_notebook(cells=[new_markdown_cell(text, id="head"), drawn]), file)

    def read(name):
        cells = nbformat.read(book.CHAPTERS / f"{name}.ipynb", as_version=4).cells
        assert cells[0].source.endswith(cells[1].metadata["mystnb"]["figure"]["caption"])
        return cells[0].source

    write("first", FIRST), write("second", SECOND)
    (book.CHAPTERS / "list.md").write_text(LIST, "utf-8")
    readme = book.ROOT / "README.md"
    readme.write_text("[2](chapters/second.ipynb)", "utf-8")
    (book.ROOT / "_toc.yml").write_text(ORDER.format("first", "second"))
    assert book.number() == []
    (book.ROOT / "_toc.yml").write_text(ORDER.format("second", "first"))
    names = ["second.ipynb", "first.ipynb", "list.md", "README.md"]
    assert [file.name for file in book.number(write=False)] == names
    assert read("first") == FIRST  # nothing was written
    assert [file.name for file in book.number()] == names and book.number() == []
    first, second = read("first"), read("second")
    assert first.startswith("# 2 · First") and second.startswith("# 1 · Second")
    for label in ("chapter 1", "1", "1 · the second", "1.4"):
        assert f"[{label}](second.ipynb)" in first
    assert "[(1.1)](second.ipynb#eq-second-a), and not" in first
    assert first.endswith("to [2 steps](second.ipynb), [(9)](second.ipynb#eq-9), (2.1).\n")
    assert r"a=1 \tag{1.1}" in second and r"b=2 \tag{9}" in second and r"c=3 \tag{1.2}" in second
    assert "[(1.2)](#eq-second-c) and [(1.1)](#eq-7-1), from [chapter 2](first.ipynb#there)" in second
    links = "**[2](first.ipynb)**, [**1**](second.ipynb), [Chapter 1](second.ipynb)"
    assert (book.CHAPTERS / "list.md").read_text("utf-8") == f"# A list\n\n{links}\n"
    assert readme.read_text("utf-8") == "[1](chapters/second.ipynb)"
    (book.ROOT / "_toc.yml").write_text(ORDER.format("first", "second"))
    book.number()
    assert read("first") == FIRST and read("second") == SECOND


CONFIG = "repository:\n  url: {}\n  branch: v1\n"


def test_the_address_goes_from_the_config_into_the_first_cells_and_back(small):
    for address in ('""', "https://example.org/book.git", "https://example.org/other.git"):
        (book.ROOT / "_config.yml").write_text(CONFIG.format('""'))
        file = small("a", book.start() + "\nmore = 1", "b = 2")
        (book.ROOT / "_toc.yml").write_text("root: chapters/a\n")
        (book.ROOT / "_config.yml").write_text(CONFIG.format(address))
        for _ in range(2):
            book.address()
            first, second = nbformat.read(file, as_version=4).cells[1:]
            assert f'BOOK, BRANCH = "{address.strip(chr(34))}", "v1"' in first.source
            assert first.source.endswith("\n\nmore = 1") and second.source == "b = 2"


def test_a_chapter_that_is_opened_alone_fetches_the_project(small, tmp_path, monkeypatch):
    """From a repository on disk; pip is only asked for, because installing torch again would take minutes."""
    project = tmp_path / "wavelets"
    (project / "ddpm_lib").mkdir(parents=True)
    (project / "ddpm_lib" / "__init__.py").write_text("WHERE = 'fetched'")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(project))
    for words in (("init", "-q", "-b", "v1"), ("add", "."), ("commit", "-q", "-m", "a")):
        subprocess.run([*git, *words], check=True)
    (book.ROOT / "_config.yml").write_text(CONFIG.format(project.as_uri()))
    (alone := tmp_path / "elsewhere" / "alone").mkdir(parents=True)
    asked = tmp_path / "asked.txt"
    pip = f"""
import subprocess, sys
run = subprocess.run
def only_git(command, **options):
    return run(command, **options) if command[0] == "git" else open({str(asked)!r}, "a").write(" ".join(command[1:]))
subprocess.run = only_git
"""
    code = pip + book.start() + "import ddpm_lib; print(ddpm_lib.WHERE)"
    for _ in range(2):  # the second time it is there
        done = subprocess.run([sys.executable, "-c", code], cwd=alone, capture_output=True, text=True, check=True)
        assert done.stdout == "fetched\n"
    assert asked.read_text() == "-m pip install --quiet ./wavelets[chapters]"


def test_a_chapter_alone_without_address_and_package_says_what_to_do(small, tmp_path):
    (book.ROOT / "_config.yml").write_text(CONFIG.format('""'))
    (alone := tmp_path / "elsewhere" / "alone").mkdir(parents=True)
    command = [sys.executable, "-S", "-c", book.start()]  # -S: without what is installed
    done = subprocess.run(command, cwd=alone, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ddpm_lib is not here: run this chapter in its project, or install")


def test_the_chapters_begin_as_the_trial_expects():
    """tools/alone.py puts this repository's address where the first cell of a chapter has none."""
    assert alone.HERE in book.START.format(url="", branch="main")
    starts = [next(cell.source for cell in nbformat.read(f, 4).cells if cell.cell_type == "code") for f in FETCHING]
    assert len(starts) > 20 and all(alone.HERE in start for start in starts)


@pytest.mark.slow
def test_a_failed_cell_is_named(small):
    file = small("bad", "a = 1", "b = a / 0")
    with pytest.raises(book.ChapterFailed, match=r"(?s)bad, code cell 2 \(b = a / 0\):.*ZeroDivisionError"):
        book.execute(file)
    # matplotlib draws after the cell has run: its error is shown, and the kernel calls the cell done
    file = small("worse", "import matplotlib.pyplot as plt", r"plt.title(r'$\tilde{\β}$')" + "\nplt.show()")
    with pytest.raises(book.ChapterFailed, match=r"(?s)worse, code cell 2 \(plt.title.*Expected end_group"):
        book.execute(file)


@pytest.mark.slow
def test_two_recordings_are_equal_to_the_byte(small):
    file = small("b", FIGURE, PLAYER, "import sys\n\nprint('out')\nprint('a warning', file=sys.stderr)")
    texts = []
    for _ in range(2):
        nb = book.execute(file)
        book.normalise(nb, file.stem)
        texts.append(nbformat.writes(nb))
    assert texts[0] == texts[1]
    for trace in ("Software", 'execution"', "ipykernel"):
        assert trace not in texts[0]
    assert [output.text for output in nb.cells[3].outputs] == ["out\n"]
    assert [cell.execution_count for cell in nb.cells[1:]] == [1, 2, 3]
    view = nb.cells[2].outputs[0].data[book.VIEW]["model_id"]
    assert view in nb.metadata.widgets[book.STATE]["state"]
