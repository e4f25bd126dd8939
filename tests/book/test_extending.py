"""What the appendix on extending the library defines, in a package outside the library: from Recipe to `ddpm evaluate`.

The package is made of the cells of the appendix that define something, so what the page shows is what is tested.
"""

import importlib
import inspect
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HO, mean_and_error, noise, rng, toy

import ddpm_lib
from ddpm_lib import (
    BenchmarkMorlet,
    Denoiser,
    FamilyOracle,
    Gaussian,
    Recipe,
    fit,
    fit_gaussian,
    load,
    loss,
    sample,
    save,
)
from ddpm_lib.cli.main import main
from ddpm_lib.cli.runs import load_run
from ddpm_lib.sampling import steps

PAGE = Path(__file__).resolve().parents[2] / "chapters" / "extending.ipynb"
KINDS = ("Line", "constant", "Flow", "midpoint", "dilated", "Mirrored")
OPTIONS = {
    "family": "outside.Line",
    "family.length": "32",
    "schedule": "outside.constant",
    "schedule.T": "200",
    "parametrisation": "outside.Flow",
    "network": "outside.dilated",
    "sizes.width": "8",
    "steps": "12",
    "batch": "8",
    "warmup": "2",
}
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec.*:", "ignore:.*LeafSpec.*:")


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """The package, in a folder of its own, which is the current one as it is for who works in it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    cells = json.loads(PAGE.read_text("utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if "outside" in c["metadata"].get("tags", [])]
    (folder / "outside").mkdir()
    (folder / "outside" / "__init__.py").write_text("\n\n\n".join(code) + "\n", "utf-8")
    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("outside")
    sys.path.remove(str(folder))
    os.chdir(before)


@pytest.fixture(scope="module")
def recipe(outside):
    network = partial(outside.dilated, width=8)
    return Recipe(outside.Line(32), outside.constant(200), network, outside.Flow(), steps=12, batch=8, warmup=2)


def test_the_library_knows_nothing_of_them(outside):
    for name in KINDS:
        thing = getattr(outside, name)
        assert thing.__module__ == "outside" and not hasattr(ddpm_lib, name)
        assert "ddpm_lib" not in inspect.getfile(thing)


# --- one by one ---------------------------------------------------------------------------------------


def test_the_family_has_an_exact_denoiser_better_than_any_linear_one(outside):
    family = outside.Line(32)
    x0, t = family.sample(160, rng(1))[0], torch.randint(1, 400, (160,), generator=rng(2))
    eps = noise(*x0.shape, seed=3)
    linear = Gaussian(*fit_gaussian(family.sample(5000, rng(4))[0]), HO)
    gain, error = mean_and_error(loss(linear, x0, t, eps) - loss(FamilyOracle(family, HO), x0, t, eps))
    assert gain > 3 * error


def test_the_schedule_has_one_beta_at_any_length(outside):
    for T in (10, 200, 1000):
        beta = outside.constant(T).beta(torch.arange(1, T + 1))
        assert (beta - beta[0]).abs().max() < 1e-12 and float(beta[0]) == pytest.approx(1 - np.exp(-10 / T), rel=1e-12)


def test_the_parametrisation_gives_back_what_it_was_asked_for(outside):
    x0, eps = noise(200, 1, 4).double(), noise(200, 1, 4, seed=1).double()
    a, s = outside.constant(200)(torch.arange(1, 201), torch.float64)
    flow = outside.Flow()
    back = flow.predict(flow.target(x0, eps, a, s), a * x0 + s * eps, a, s)
    torch.testing.assert_close(back.x0, x0)
    torch.testing.assert_close(back.eps, eps)


def test_the_sampler_draws_the_law_of_the_data(outside):
    *_, x = sample(toy().float(), (20_000, 1, 1), steps=20, step=outside.midpoint, generator=rng())
    assert float(x.mean()) == pytest.approx(0.5, abs=0.01) and float(x.std()) == pytest.approx(0.25, abs=0.01)


def test_the_network_takes_any_length_and_hears_the_noise_level(outside):
    network = outside.dilated(None, 0)
    torch.nn.init.normal_(network.last.weight, generator=rng())
    for length in (31, 64):
        x = noise(2, 1, length)
        loud, quiet = (network(x, torch.full((2,), v)) for v in (-5.0, 5.0))
        assert loud.shape == x.shape and not torch.allclose(loud, quiet)


@pytest.mark.slow
def test_the_wrapper_goes_through_every_sampler_and_helps(outside):
    mirrored, plain = (wrap(ddpm_lib.pretrained()) for wrap in (outside.Mirrored, lambda d: d))
    for step in (*steps.ALL, outside.midpoint):
        *_, x = sample(mirrored, (2, 1, 128), steps=4, step=step, generator=rng())
        assert x.isfinite().all()
    x0, t = BenchmarkMorlet().sample(64, rng(1))[0], torch.randint(1, 1001, (64,), generator=rng(2))
    with torch.no_grad():
        one, other = (mirrored(x, t).x0 for x in (x0, x0.flip(-1)))
        torch.testing.assert_close(one, other.flip(-1))
        assert not torch.allclose(plain(x0, t).x0, plain(x0.flip(-1), t).x0.flip(-1))


# --- together -----------------------------------------------------------------------------------------


def test_they_are_trained_stored_and_sampled_together(outside, recipe, tmp_path):
    trained = fit(recipe, tmp_path / "run")
    assert isinstance(trained.denoiser, Denoiser) and trained.losses.isfinite().all()
    resumed = fit(recipe, tmp_path / "run", resume=True)
    save(trained, tmp_path / "model.safetensors")
    read = load(recipe.build(), tmp_path / "model.safetensors").denoiser
    drawn = [
        list(sample(outside.Mirrored(d), (3, 1, 32), steps=5, step=outside.midpoint, generator=rng()))[-1]
        for d in (trained.denoiser, resumed.denoiser, read)
    ]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2]) and drawn[0].isfinite().all()


@pytest.mark.slow
def test_the_command_line_takes_them_by_their_path(outside, recipe, capsys):
    options = [f"--recipe.{name}={value}" for name, value in OPTIONS.items()]
    assert main(["fit", "run", *options]) == 0, capsys.readouterr().err
    run = load_run("run")
    assert type(run.recipe.family) is outside.Line and type(run.recipe.parametrisation) is outside.Flow
    assert type(run.denoiser.network) is outside.Dilated and run.fingerprint == recipe.fingerprint()
    direct = fit(recipe).denoiser.state_dict()
    assert all(torch.equal(v, direct[k]) for k, v in run.denoiser.state_dict().items())
    assert main(["sample", "run", "--n=5", "--steps=4", "--sampler=outside.midpoint"]) == 0
    with np.load("run/samples.npz") as file:
        assert file["signals"].shape == (5, 1, 32) and str(file["sampler"]) == "outside.midpoint"
    capsys.readouterr()
    assert main(["evaluate", "run", "--draws=64", "--n=64", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["loss_over_floor"]["value"] > 1  # its floor is known: Line has three parameters
    assert main(["fit", "again", "--config", "run/config.yaml"]) == 0
    again = load_run("again").denoiser.state_dict()
    assert all(torch.equal(v, direct[k]) for k, v in again.items())
