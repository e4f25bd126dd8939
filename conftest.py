"""What holds for every test, the cells of the chapters included: their kernels inherit this environment."""

import hashlib
import json
import os
import sys
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
import shapecheck  # noqa: E402
from book import cache_dir  # noqa: E402

PASSED = "book/passed"
cells: dict[Path, set[str]] = {}

wanted = os.environ.get("SHAPES") != "off" and "MUTANT_UNDER_TEST" not in os.environ  # mutmut wraps every function
if shapecheck.available() and wanted:
    shapecheck.install()

matplotlib.use("agg")
os.environ["DDPM_DEVICE"] = "cpu"  # a machine with a GPU must pass the same tests
os.environ["DDPM_PROGRESS"] = "0"  # a bar would be an output that differs
os.environ.pop("MPLBACKEND", None)  # a kernel shows no figure with a backend that is set here
os.environ.setdefault("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 4)))


def key(chapter: Path) -> str:
    """Changes with the chapter, the library, and the versions of Python and of the packages (`book.environment`)."""
    return hashlib.sha256(chapter.read_bytes() + cache_dir().name.encode()).hexdigest()


def pytest_collection_modifyitems(config, items):
    """Leave out chapters that have passed as they are; order the rest.

    The training chapter comes before the other chapters, which load what it trains; the browser comes last. In CI, and
    after ``pytest --cache-clear``, every chapter runs.
    """
    cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
    passed = {} if cache is None or os.environ.get("CI") else cache.get(PASSED, {})
    known = {
        item.path for item in items if item.path.suffix == ".ipynb" and passed.get(item.path.stem) == key(item.path)
    }
    items[:], left_out = [i for i in items if i.path not in known], [i for i in items if i.path in known]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        print(f"unchanged since they last passed: {', '.join(sorted(path.stem for path in known))}")

    def place(item):
        if item.path.suffix == ".ipynb":
            return 1 if item.path.stem == "training" else 2
        return 3 if item.path.name == "test_browser.py" else 0

    items.sort(key=place)  # stable: the cells of a chapter stay in order


def pytest_runtest_logreport(report):
    if ".ipynb::" in report.nodeid and report.when == "call" and report.passed:
        cells.setdefault(ROOT / report.nodeid.split("::")[0], set()).add(report.nodeid)


def pytest_sessionfinish(session):
    """Note the chapters of which every code cell has passed."""
    cache = getattr(session.config, "cache", None)
    if cache is None or not cells:
        return
    passed = cache.get(PASSED, {})
    for chapter, nodes in cells.items():
        code = [cell for cell in json.loads(chapter.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
        if len(nodes) == len(code):
            passed[chapter.stem] = key(chapter)
    cache.set(PASSED, passed)
