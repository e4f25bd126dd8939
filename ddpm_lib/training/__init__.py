"""Recipes, the training loop, Muon, distillation, and trained models on disk.

Chapters `training` and `grids_and_solvers`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .distillation import TwoSteps, distilled
from .fingerprint import fingerprint
from .muon import Muon, orthogonal
from .recipe import Batch, Recipe, muon, noised, shipped_recipe, warmup_stable_decay
from .reference import algorithm_1, reference_loop

if TYPE_CHECKING:
    from .loop import Fit, LitDDPM, device, fit
    from .store import cache_dir, load, pretrained, save, train_or_load

__all__ = [
    "Batch",
    "Fit",
    "LitDDPM",
    "Muon",
    "Recipe",
    "TwoSteps",
    "algorithm_1",
    "cache_dir",
    "device",
    "distilled",
    "fingerprint",
    "fit",
    "load",
    "muon",
    "noised",
    "orthogonal",
    "pretrained",
    "reference_loop",
    "save",
    "shipped_recipe",
    "train_or_load",
    "warmup_stable_decay",
]

# Lightning takes seconds to import: what needs it is imported when it is first asked for.
_LAZY = {
    "loop": ("Fit", "LitDDPM", "device", "fit"),
    "store": ("cache_dir", "load", "pretrained", "save", "train_or_load"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
