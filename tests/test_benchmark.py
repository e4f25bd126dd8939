"""The side-by-side run: benchmarks/compare.py. Its figures are not tested, its bookkeeping is."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import SHORT, small

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import compare
import contenders


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESULTS", tmp_path / "results.jsonl")

    def write(row, **result):
        with compare.RESULTS.open("a") as file:
            file.write(json.dumps({"key": compare.key(row), "row": row, **result}) + "\n")

    return write


def test_rows_that_are_there_are_not_run_again(results):
    first, second, *_ = compare.wanted({})
    results(first)
    missing = [row for row in compare.wanted(compare.done()) if compare.key(row) not in compare.done()]
    assert missing[0] == second and first not in missing


def test_a_peer_is_trained_with_its_best_rate(results):
    for peer in compare.PEERS:
        rows = compare.tried(peer)
        assert len(rows) >= 3 and not any(r["contender"] == peer and r["seconds"] == 180 for r in compare.wanted({}))
        for row, value in zip(rows, (1.5, 1.2, 1.9, 1.8), strict=True):
            results(row, loss=[value, 0.01])
    for peer in compare.PEERS:
        full = [r for r in compare.wanted(compare.done()) if r["contender"] == peer and r["seconds"] == 180]
        assert {r["lr"] for r in full} == {compare.tried(peer)[1]["lr"]}
        assert {(r["kind"], r["family"]) for r in full} == {
            ("train", "benchmark"), ("sample", "benchmark"), ("train", "untuned")}  # fmt: skip


def test_the_clock_stops_a_run_and_marks_its_curve(monkeypatch):
    monkeypatch.setattr(compare, "MARKS", (0.2, 0.4, 9))
    family = compare.FAMILIES["benchmark"]()
    made, steps, copies = compare.train("MLP", family, 0.8, 0, 1e-3)
    assert steps > 3 and [elapsed > mark for (elapsed, _), mark in zip(copies, (0.2, 0.4), strict=True)] == [True] * 2
    early, late = copies[0][1], made.averaged.state_dict()
    assert any(not torch.equal(early[k], late[k]) for k in early)
    assert made.optimiser.param_groups[0]["lr"] < 1e-3  # it follows the clock


def test_our_steps_by_the_clock_are_the_recipe_s(monkeypatch):
    """With the clock running as steps / total, the weights after 20 steps are those of `fit`."""
    from ddpm_lib import fit

    recipe = small()
    monkeypatch.setattr(contenders, "Recipe", lambda **changes: recipe)
    ours = contenders.Ours(SHORT, 0, None)
    for i in range(recipe.steps):
        ours.step(i, i / recipe.steps)
    expected = fit(recipe).denoiser.state_dict()
    for name, value in ours.averaged.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_scores_are_those_of_loss_over_floor():
    family = compare.FAMILIES["benchmark"]()
    drawn = compare.draws(family, 64, 1, 1000, seed=1)

    class Exact:
        def eps(self, xt, t):
            return test.exact

    test = compare.Test(family, *drawn)
    assert test.over_floor(Exact()) == [1.0, 0.0]
