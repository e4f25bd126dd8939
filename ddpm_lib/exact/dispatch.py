"""The exact denoiser of whatever signals are drawn from, where it is known."""

from __future__ import annotations

from functools import singledispatch

from ..diffusion.denoiser import DenoiserLike
from ..diffusion.schedules import Schedule
from ..signals.family import Family
from ..signals.finite import Finite
from ..signals.mixture import Mixture
from ..signals.noisy import Noisy
from ..signals.source import Source
from .family import FamilyOracle
from .finite import FiniteOracle
from .mixture import MixtureOracle
from .noisy import NoisyOracle

__all__ = ["of"]


@singledispatch
def of(source: Source, schedule: Schedule) -> DenoiserLike:
    """Return the exact denoiser of a source of signals; another source registers its own with ``of.register``.

    Raises:
        ValueError: none is known: changed signals, a family with many parameters or one that draws in its own way.

    >>> from ddpm_lib import BenchmarkMorlet, linear, report_grid
    >>> [type(of(source, linear())).__name__ for source in (BenchmarkMorlet(), report_grid(128))]
    ['FamilyOracle', 'FiniteOracle']
    """
    raise ValueError(f"The exact denoiser of signals of {type(source).__name__} is not known.")


@of.register
def _(source: Finite, schedule: Schedule) -> DenoiserLike:
    return FiniteOracle(source.signals, schedule)


@of.register
def _(source: Noisy, schedule: Schedule) -> DenoiserLike:
    return NoisyOracle(of(source.clean, schedule), source.sigma)


@of.register
def _(source: Mixture, schedule: Schedule) -> DenoiserLike:
    for family in source.families:
        _uniform(family)
    return MixtureOracle(source, schedule)


@of.register
def _(source: Family, schedule: Schedule) -> DenoiserLike:
    return FamilyOracle(_uniform(source), schedule)


def _uniform(family: Family) -> Family:
    """Return a family; raise unless its parameters are drawn uniformly from the box."""
    if type(family).sample is not Family.sample:
        raise ValueError(f"{type(family).__name__} draws its signals in its own way: its exact denoiser is not known.")
    return family
