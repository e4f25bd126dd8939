"""What an installation brings: every file of the package, no tool of the book, an import that does not take long."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import guards
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def python(code):
    """Run a piece of code in a process of its own, with this checkout; what it prints, as JSON."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def test_every_file_of_the_package_is_packed():
    patterns = [*PROJECT["tool"]["setuptools"]["package-data"]["ddpm_lib"], "*.py"]
    files = [f.relative_to(ROOT / "ddpm_lib").as_posix() for f in (ROOT / "ddpm_lib").rglob("*") if f.is_file()]
    left_out = [f for f in files if "__pycache__" not in f and not any(fnmatch(f, p) for p in patterns)]
    assert left_out == [] and "py.typed" in files and "figures/js/unet.js" in files


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_library(tmp_path):
    """Modules, sub-packages, scripts, weights: what is left out of `packages` or of `package-data` is missing in it."""
    files = {
        f.relative_to(ROOT).as_posix()
        for f in (ROOT / "ddpm_lib").rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    for name in sorted({*files, "pyproject.toml", "README.md", "LICENSE", "LICENSE-text"}):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "wheel", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files


def test_the_files_that_are_changed_on_purpose_are_there():
    """`make mutants` says nothing of a file that has moved away from under it."""
    settings = PROJECT["tool"]["mutmut"]
    paths = [*settings["source_paths"], *settings["only_mutate"], *settings["also_copy"]]
    tests = settings["pytest_add_cli_args_test_selection"]
    left = [part.removeprefix("--deselect=").split("::") for part in settings["pytest_add_cli_args"] if "::" in part]
    assert [path for path in [*paths, *tests, *(file for file, _ in left)] if not any(ROOT.glob(path))] == []
    assert all(f"def {name}(" in (ROOT / file).read_text("utf-8") for file, name in left)


@pytest.mark.slow
def test_extras_are_named_and_the_library_needs_none_of_them():
    extras = PROJECT["project"]["optional-dependencies"]
    assert {"book", "test", "bench", "dev", "parquet"} <= set(extras)
    assert PROJECT["tool"]["mypy"]["strict"] is True
    tools = ["matplotlib", "anywidget", "ipywidgets", "traitlets", "pywt", "sympy", "pyarrow", "diffusers", "lightning"]
    loaded = python(f"import json, sys, ddpm_lib\nprint(json.dumps([name for name in {tools} if name in sys.modules]))")
    assert loaded == []


@pytest.mark.slow
def test_the_import_takes_at_most_two_and_a_half_times_that_of_torch():
    """In seconds of the processor, which do not grow when the machine is busy; the least of three."""
    code = "import json, time\nstart = time.process_time()\nimport {}\nprint(json.dumps(time.process_time() - start))"
    torch, ours = (min(python(code.format(name)) for _ in range(3)) for name in ("torch", "ddpm_lib"))
    print(f"import torch {torch:.2f} s, import ddpm_lib {ours:.2f} s")
    assert ours <= 2.5 * torch


def test_what_comes_in_is_checked_at_the_door_and_not_everywhere():
    """At most 5 guards in 100 lines of code (`tools/guards.py`): inside, the formula stands alone."""
    library = sorted(path for path in (ROOT / "ddpm_lib").rglob("*.py") if "equations" not in path.parts)
    _, code, refused = guards.count(library)
    assert 0.01 * code < refused <= 0.05 * code
