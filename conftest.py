"""What holds for every test, the cells of the chapters included: their kernels inherit this environment."""

import os

import matplotlib

matplotlib.use("agg")
os.environ["DDPM_DEVICE"] = "cpu"  # a machine with a GPU must pass the same tests
os.environ["DDPM_PROGRESS"] = "0"  # a bar would be an output that differs
os.environ.pop("MPLBACKEND", None)  # a kernel shows no figure with a backend that is set here
os.environ.setdefault("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 4)))


def pytest_collection_modifyitems(items):
    """The training chapter before the other chapters, which load what it trains; the browser last."""

    def place(item):
        if item.path.suffix == ".ipynb":
            return 1 if item.path.stem == "09_training" else 2
        return 3 if item.path.name == "test_browser.py" else 0

    items.sort(key=place)  # stable: the cells of a chapter stay in order
