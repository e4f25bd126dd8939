"""Sentences that claim a difference: each stands in its chapter, and its table bears it out."""

import csv
import json
from importlib import import_module

import numpy as np
import pytest
from scipy import stats

from experiments import claims
from experiments.__main__ import NAMES
from experiments.claims import Claim, difference, over_seeds, plain, text
from experiments.runner import Experiment

MODULES = [module for name in NAMES if hasattr(module := import_module(f"experiments.{name}"), "CLAIMS")]
ALL = [(module, claim) for module in MODULES for claim in module.CLAIMS]


@pytest.mark.parametrize("module, claim", ALL, ids=[f"{m.CHAPTER}-{c.sentence[:30]}-{c.column}" for m, c in ALL])
def test_a_claim_of_the_book_holds(module, claim):
    assert plain(claim.sentence) in text(module.CHAPTER)
    assert claim.holds(module.EXPERIMENT), claim.difference(module.EXPERIMENT)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """An experiment whose table we write: run → values, one a seed."""
    monkeypatch.setattr("experiments.runner.TABLES", tmp_path)

    def make(**runs):
        with (tmp_path / "toy.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "seed", "loss"])
            writer.writerows([run, seed, value] for run, values in runs.items() for seed, value in enumerate(values))
        return Experiment("toy", {}, range(3), lambda *_: {})

    return make


def test_the_interval_is_welch_s(table):
    a, b = [1.0, 1.2, 1.7], [0.4, 0.5, 0.45]
    found = difference(table(a=a, b=b), "loss", "a", "b")
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(a) - np.mean(b))
    assert (found.value - found.margin, found.value + found.margin) == pytest.approx((low, high))
    assert found.seeds == (3, 3)


def test_the_interval_of_one_run_is_student_s(table):
    values = [1.0, 1.2, 1.7]
    mean, margin = over_seeds(table(a=values, b=[9.0]), "a", "loss")
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (mean - margin, mean + margin) == pytest.approx((low, high))


def test_what_holds_and_what_does_not(table):
    experiment = table(high=[2.0, 2.1, 2.2], low=[1.0, 1.1, 1.2], other=[1.05, 1.15, 1.1])
    assert Claim("", "loss", "high", "low").holds(experiment)
    assert Claim("", "loss", "high", "low", by=0.5).holds(experiment)
    assert not Claim("", "loss", "high", "low", by=0.95).holds(experiment)  # larger, but not by more than its interval
    assert not Claim("", "loss", "low", "high").holds(experiment)
    assert not Claim("", "loss", "other", "low").holds(experiment)
    assert Claim("", "loss", "other", "low", same=True).holds(experiment)
    assert not Claim("", "loss", "high", "low", same=True).holds(experiment)


def test_two_seeds_are_no_claim(table):
    with pytest.raises(ValueError, match="'b' has 2 seeds; a claim needs three"):
        difference(table(a=[1.0, 2.0, 3.0], b=[1.0, 2.0]), "loss", "a", "b")


@pytest.mark.parametrize("sentence, held", [("A is larger.", "1 of 1"), ("A is *much* larger.", "0 of 1")])
def test_a_claim_that_no_chapter_makes_fails(table, tmp_path, monkeypatch, capsys, sentence, held):
    experiment = table(a=[2.0, 2.1, 2.2], b=[1.0, 1.1, 1.2])
    cell = {"cell_type": "markdown", "source": ["Look: *A* is\n", "larger. That is all."]}
    (tmp_path / "toy.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(claims, "CHAPTERS", tmp_path)
    monkeypatch.setattr("experiments.__main__.NAMES", ("models",))
    for name, value in {
        "CHAPTER": "toy",
        "EXPERIMENT": experiment,
        "CLAIMS": (Claim(sentence, "loss", "a", "b"),),
    }.items():
        monkeypatch.setattr(f"experiments.models.{name}", value)
    with pytest.raises(SystemExit) as stop:
        claims.main()
    assert held in capsys.readouterr().out.splitlines()[-1] and stop.value.code == (held == "0 of 1")
