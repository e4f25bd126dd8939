"""Sums of two: drawing in turn against an exact answer, where there is one, and the fit against the truth."""

import pytest
import torch
from helpers import HO, noise, rng

from ddpm_lib import Family, FamilyOracle, Morlet, morlet, q_sample
from ddpm_lib.signals import TwoMorlets
from experiments import two_morlets
from experiments.two_morlets import fit_both, gibbs

FIXED = dict(amplitude=1.0, frequency=1.2, width=0.5, domain=(-4.0, 4.0), length=64)
PAIR = Morlet(shift=(-2.0, 0.2), **FIXED), Morlet(shift=(-0.2, 2.0), **FIXED)  # they may overlap


class Sum(Family):
    """Both in one family of two parameters: for it the quadrature is exact."""

    def __init__(self):
        super().__init__({"left": (-2.0, 0.2), "right": (-0.2, 2.0)}, 64, (-4.0, 4.0))

    def formula(self, x, left, right):
        return sum(morlet(x, frequency=1.2, width=0.5, shift=b) for b in (left, right))


@pytest.mark.slow
def test_drawing_in_turn_tends_to_the_exact_mean(monkeypatch):
    monkeypatch.setattr(two_morlets, "TURNS", 40)
    family = Sum()
    x0, _ = family.sample(12, rng(1))
    eps, t = noise(*x0.shape, seed=2), torch.tensor([20, 150, 300]).repeat_interleave(4)
    xt = q_sample(x0, t, eps, HO)
    a, s = HO(t)
    exact = FamilyOracle(family, HO)(xt, t).eps
    one, two = ((xt - a * gibbs(xt, t, HO, rng(seed), PAIR)) / s for seed in (3, 4))
    for rows in torch.arange(12).split(4):
        floor = (eps - exact)[rows].square().mean()
        apart = (one - two)[rows].square().mean() / 2
        off = ((one - exact) * (two - exact))[rows].mean()
        assert apart < 0.1 * floor, "a run of this length must have settled"
        assert off.abs() < 0.03 * floor, "and at the exact answer"


@pytest.mark.slow
def test_two_fitted_in_turn_are_found():
    family = TwoMorlets()
    x0, params = family.sample(24, rng())
    fits = fit_both(x0)
    assert fits.valid.float().mean() > 0.95
    near = ((fits.params - params).abs() < 0.02 * (family.high - family.low)).all(1)
    assert near[fits.valid].float().mean() > 0.95
    shifted = fit_both(x0[:6] + 0.1 * noise(*x0[:6].shape))
    assert not shifted.valid.any()
