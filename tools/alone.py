"""Run chapters as a notebook service does: each alone in an empty folder, in an environment that lacks this project.

    python3 -m venv service
    service/bin/pip install torch numpy scipy matplotlib ipykernel nbclient        # the newest, as such services have
    service/bin/python tools/alone.py why forward training sampling

The chapter's first cell fetches the project: from this repository on disk (its last commit), because it is told that
address. It then installs the project with what the extra `chapters` asks for, and the chapter runs whole.
"""

import importlib.metadata
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
HERE = 'BOOK, BRANCH = "", "main"'


def branch() -> str:
    command = ["git", "-C", str(ROOT), "branch", "--show-current"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run(chapter: Path) -> float:
    """Seconds that the chapter took; raises where a cell does."""
    nb = nbformat.read(chapter, as_version=4)
    first = next(cell for cell in nb.cells if cell.cell_type == "code")
    if HERE not in first.source:
        sys.exit(f"{chapter.name}: its first cell does not say {HERE}")
    first.source = first.source.replace(HERE, f'BOOK, BRANCH = "{ROOT.as_uri()}", "{branch()}"')
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(nb, timeout=1800, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return time.monotonic() - start


def main() -> None:
    for word in sys.argv[1:] or sys.exit(__doc__):
        found = sorted((ROOT / "chapters").glob(f"{word}*.ipynb"))
        for chapter in found or sys.exit(f"no chapter's name begins with {word}"):
            print(f"{chapter.stem} … {run(chapter):.0f} s", flush=True)
    packages = ("torch", "numpy", "scipy", "matplotlib")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    print(f"alone with Python {platform.python_version()}, {versions}")


if __name__ == "__main__":
    main()
