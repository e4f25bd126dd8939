"""The runner of the experiments: tables that go on where they stopped, and are not filled twice."""

import csv
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import rekey
import torch
from faults import finish, fork
from helpers import SHORT, small

from ddpm_lib import X0, Denoiser, Eps, FamilyOracle, cosine, linear, q_sample, simple
from ddpm_lib.exact import NoisyOracle
from experiments import claims, coverage, families, models, noise, runner, schedules, scoreboard
from experiments.__main__ import NAMES
from experiments.__main__ import main as experiments_main
from experiments.runner import Experiment


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Two recipes, two seeds; the measure counts how often it is asked."""
    monkeypatch.setattr(runner, "TABLES", tmp_path)
    asked = []

    def measure(recipe, denoiser):
        asked.append((recipe.lr, recipe.seed))
        value = sum(float(p.sum()) for p in denoiser.parameters())
        return {"value": value, "drawn": torch.full((2,), float(recipe.seed))}

    made = Experiment("table", {"one": small(steps=2), "two": small(steps=2, lr=1e-3)}, range(2), measure)
    return made, asked


def test_a_table_is_filled_once(experiment):
    made, asked = experiment
    made.fill()
    assert asked == [(2e-3, 0), (1e-3, 0), (2e-3, 1), (1e-3, 1)]
    rows = made.rows()
    assert [(r["run"], r["seed"]) for r in rows] == [("one", "0"), ("two", "0"), ("one", "1"), ("two", "1")]
    assert len({r["recipe"] for r in rows}) == 4 and len({r["value"] for r in rows}) == 4
    assert all(r[k] for r in rows for k in ("format", "torch", "weights", "seconds"))
    drawn = np.load(made.tensors)
    assert set(drawn) == {"one: drawn", "two: drawn"} and all((drawn[k] == 0).all() for k in drawn)  # the first seed's
    made.fill()
    assert len(asked) == 4


def test_a_run_that_was_stopped_goes_on(experiment, monkeypatch):
    made, asked = experiment
    whole = Experiment.append

    def stop(self, row):
        whole(self, row)
        if len(self.rows()) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        made.fill()
    monkeypatch.setattr(Experiment, "append", whole)
    before = made.rows()
    made.fill()
    assert len(asked) == 4 and made.rows()[:3] == before


def test_two_processes_fill_one_table_and_make_no_row_twice(experiment, tmp_path, monkeypatch):
    """Both start at the same moment with the same list; which of them makes a row is up to chance."""
    made, _ = experiment
    monkeypatch.setattr(runner, "LOCKS", tmp_path / "locks")
    whole, gate = Experiment.make, os.pipe()

    def counted(self, run, seed, recipe):
        with (tmp_path / "made").open("a") as file:
            file.write(f"{os.getpid()} {run} {seed}\n")
        time.sleep(0.2)  # so that one process is still at it when the other looks
        whole(self, run, seed, recipe)

    def work():
        os.read(gate[0], 1)
        made.fill()

    monkeypatch.setattr(Experiment, "make", counted)
    started = [fork(work) for _ in range(2)]
    os.write(gate[1], b"go")
    assert all(finish(pid) for pid in started)
    lines = [line.split() for line in (tmp_path / "made").read_text().splitlines()]
    rows = [(r["run"], r["seed"]) for r in made.rows()]
    assert sorted(rows) == [("one", "0"), ("one", "1"), ("two", "0"), ("two", "1")]
    assert sorted((run, seed) for _, run, seed in lines) == sorted(rows)
    assert {int(pid) for pid, *_ in lines} == set(started)
    assert set(np.load(made.tensors)) == {"one: drawn", "two: drawn"} and made.missing() == []


def test_jobs_are_processes_that_share_the_threads(monkeypatch):
    started = []

    class Process:
        def __init__(self, command, env):
            started.append((command[1:], env["OMP_NUM_THREADS"]))

        def wait(self):
            return 3 * (len(started) == 2)

    monkeypatch.setattr(sys, "argv", ["experiments", "models", "--jobs=2"])
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(subprocess, "Popen", Process)
    with pytest.raises(SystemExit) as stop:
        experiments_main()
    assert started == [(["-m", "experiments", "models"], "4")] * 2 and stop.value.code == 3


def test_another_recipe_under_the_same_name_is_made_anew(experiment):
    made, asked = experiment
    made.fill()
    made.recipes["two"] = small(steps=3)
    made.fill()
    assert len(asked) == 6 and len(made.rows()) == 4
    assert {r["recipe"] for r in made.rows() if r["run"] == "two"} == {
        small(steps=3, seed=seed).fingerprint() for seed in range(2)
    }


def test_a_new_column_leaves_the_old_rows_alone(experiment):
    made, _ = experiment
    made.append({"run": "old", "seed": 0, "value": 1.0})
    made.append({"run": "new", "seed": 0, "value": 2.0, "more": 3})
    with made.table.open() as file:
        assert list(csv.DictReader(file)) == [
            {"run": "old", "seed": "0", "value": "1", "more": ""},
            {"run": "new", "seed": "0", "value": "2", "more": "3"},
        ]


def test_the_exact_denoiser_stands_at_the_floor():
    recipe = small()
    assert runner.ratio(recipe, FamilyOracle(SHORT, recipe.schedule), 1, 1000, 64).value == pytest.approx(1, abs=1e-6)
    assert runner.ratio(recipe, recipe.build(), 1, 1000, 64).value > 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", [import_module(f"experiments.{name}").EXPERIMENT for name in NAMES], ids=lambda e: e.name
)
def test_every_declared_recipe_is_another_one_and_its_rows_are_found(experiment):
    """Two recipes of one fingerprint would be one row twice; a row of another fingerprint would be made anew, in hours.

    The first seed's; so a change of what a recipe is known by is noticed (`tools/rekey.py`).
    """
    recipes, first = experiment.recipes, next(iter(experiment.seeds))
    keys = {run: replace(recipe, seed=first).fingerprint() for run, recipe in recipes.items()}
    assert len(set(keys.values())) == len(recipes) and len(list(experiment.seeds)) >= 3
    rows = [r for r in experiment.rows() if r["seed"] == str(first)]
    assert {r["run"]: (r["recipe"], r["format"]) for r in rows} == {run: (k, "1") for run, k in keys.items()}


def test_keys_are_rewritten_run_by_run():
    table = "run,seed,recipe,loss\none,0,aaa,1.5\none,1,bbb,1.25\ntwo,0,zzz,2\n"
    old = {"t|one|0": "aaa", "t|one|1": "bbb", "t|two|0": "ccc"}
    new = {run: key.upper() for run, key in old.items()}
    text, left = rekey.rewritten("t", table, old, new)
    assert left == 1 and text == "run,seed,recipe,loss\none,0,AAA,1.5\none,1,BBB,1.25\ntwo,0,zzz,2\n"


@pytest.mark.parametrize("name", models.EXPERIMENT.recipes)
def test_the_simpler_models_take_signals_and_give_noise(name):
    recipe = models.EXPERIMENT.recipes[name]
    denoiser = recipe.build()
    assert isinstance(denoiser, Denoiser) and isinstance(denoiser.parametrisation, Eps)
    xt, t = torch.randn(3, 1, 128, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 500, 1000])
    assert denoiser(xt, t).eps.shape == xt.shape and denoiser(xt, t).eps.isfinite().all()
    assert simple(recipe.schedule, t).shape == (3,)


def test_the_exact_denoiser_in_the_place_of_a_network():
    """It is told log-SNR, not t, and answers as the oracle of whatever schedule it is sampled on."""
    wide = cosine()  # from log-SNR 10 to -20
    ours, exact = Denoiser(schedules.Exact(SHORT, 0), wide, X0()), FamilyOracle(SHORT, wide)
    x0, _ = SHORT.sample(6, torch.Generator().manual_seed(0))
    for t in (1, 500, 1000):
        xt = q_sample(x0, t, torch.randn(x0.shape, generator=torch.Generator().manual_seed(t)), wide)
        torch.testing.assert_close(ours(xt, t).x0.detach(), exact(xt, t).x0, rtol=0, atol=2e-5)


def test_losses_of_all_schedules_are_compared_at_the_same_noise_levels():
    log_snr = schedules.RULER.log_snr(torch.arange(1, schedules.RULER.T + 1))
    torch.testing.assert_close(log_snr.diff(), log_snr.diff().mean().expand(99), rtol=1e-9, atol=0)
    assert log_snr[0] >= schedules.BANDS[0][0] and log_snr[-1] <= schedules.BANDS[-1][1]
    x0, t, eps, exact = schedules.own(SHORT, linear(50), 150)
    assert torch.bincount(t)[1:].tolist() == [3] * 50
    assert runner.loss_over_floor(FamilyOracle(SHORT, linear(50)), exact, x0, t, eps).value == pytest.approx(
        1, abs=1e-6
    )


def test_the_report_s_schedule_ends_where_the_report_s_does():
    assert float(schedules.unscaled(300).alpha_bar(300)) == pytest.approx(0.0480584, abs=1e-7)
    # what Ho's schedule is for signals of power 1, this one is for ours: as much signal as noise at t = 260
    assert float(schedules.GRIDS["shifted"].snr(260)) * schedules.POWER == pytest.approx(1, abs=0.03)


@pytest.mark.slow
def test_a_row_of_coverage_counts_its_cases(tmp_path, monkeypatch):
    """Each case has one rank; draws of the exact posterior are as wide, and as wrong, as themselves, and meet y."""
    monkeypatch.setattr(runner, "TABLES", tmp_path)
    repairs = {method: coverage.Repair("every eighth", method, 5) for method in (coverage.EXACT, "linear covariance")}
    made = coverage.Coverage("coverage", repairs, range(1), coverage.EXPERIMENT.measure)
    made.fill()
    exact, other = made.rows()
    for row in (exact, other):
        for name in coverage.FAMILY.names:
            ranks = [int(n) for n in row[f"ranks_{name}"].split()]
            assert len(ranks) == coverage.DRAWS + 1 and sum(ranks) == 5
            assert float(row[f"cover_{name}"]) == pytest.approx(sum(ranks[1:-1]) / 5)
    assert exact["rmse"] == exact["rmse_exact"] == other["rmse_exact"] and exact["width_b"] == "1"
    assert float(exact["fit"]) > 0.97 and float(other["width_b"]) > 2  # a normal law does not know aliases apart
    made.fill()
    assert len(made.rows()) == 2


def test_the_places_to_look_at_are_edges_jumps_and_kinks():
    """Before the left edge of a box there is nothing, behind it the height; a sawtooth jumps up; a sine starts."""
    for one in families.KNOWN:
        x0, params = one.sample(200, torch.Generator().manual_seed(0))
        cell = float(one.x[1] - one.x[0])
        at = ((families.PLACES[type(one)](params) - float(one.x[0])) / cell).round().long()
        assert (at >= 0).all() and (at < one.length).all()
        before, after = (x0[torch.arange(200), 0, (at + step).clamp(0, 127)] for step in (-1, 1))
        match type(one).__name__:
            case "Edges":
                assert (before.abs() < 1e-6).all() and torch.allclose(after, params[:, 0])
            case "Sawtooth":
                assert (after - before > params[:, 0]).all()
            case "DampedSine":
                assert (before == 0).all() and (after > 0).all()


def test_noisy_signals_are_held_to_their_own_floor():
    clean = FamilyOracle(noise.CLEAN, noise.SCHEDULE)
    assert noise.on(0.1, NoisyOracle(clean, 0.1), 32).value == pytest.approx(1, abs=1e-6)
    assert noise.on(0.1, clean, 32).value > 1.5  # the right answer to other data


def test_the_sampler_of_cleaned_signals_ends_where_it_is_told():
    times = noise.above(noise.SCHEDULE, 88.6)
    assert times[0] == 1000 and times[-2:] == [88.6, 0] and all(t > s for t, s in pairwise(times))


def test_a_row_of_the_scoreboard_needs_three_seeds():
    rows = [
        {"run": "a", "loss": str(1 + k), "valid": "0.5", "law_b": "2", "law_s": str(k), "seconds": "7"}
        for k in range(3)
    ]
    two, three = (
        SimpleNamespace(EXPERIMENT=SimpleNamespace(rows=lambda n=n: rows[:n]), CHAPTER="training") for n in (2, 3)
    )
    assert scoreboard.of(two, "a", "something") is None
    row = scoreboard.of(three, "a", "something")
    # mean 2 and standard deviation 1 of three: Student's 4.303/√3
    assert row.method == f"{claims.number('training'):<2} something"
    assert row.loss.value == 2 and abs(row.loss.margin - 4.303 / 3**0.5) < 1e-3
    assert row.law.value == 2 and row.law.margin == 0 and row.seconds == 7  # of each seed the worst law
    assert row.distance is None and row.weights is None


def test_the_scoreboard_has_a_line_for_every_method_and_a_dash_for_what_was_not_measured():
    rows = scoreboard.stored()
    assert len({row.method for row in rows}) == len(rows) > 20
    lines = scoreboard.text(rows).splitlines()
    assert len(lines) == len(rows) + 1 and len({len(line) for line in lines}) == 1
    (noisy,) = (line for line in lines if "noise 0.1" in line)
    assert noisy.split()[-1] == "–"
