"""Trained models on disk: what is saved is what is loaded, what is damaged is refused, nothing trains twice."""

import errno
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import SHORT, net, rng
from helpers import small as recipe_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddpm_lib import (
    FamilyOracle,
    Morlet,
    Recipe,
    cosine,
    fit,
    linear,
    linear_skip,
    load,
    loss_over_floor,
    pretrained,
    save,
    train_or_load,
)
from ddpm_lib.training import atomic, cache_dir, loop, shipped_recipe, store

FAMILY = SHORT
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec.*:")


small = partial(recipe_of, steps=10)


SKIP = partial(linear_skip, n=300, width=8, blocks=1, dim=16)  # has buffers: what it knows of the data


@pytest.fixture(scope="module")
def trained():
    return fit(small(network=SKIP))


@pytest.fixture
def saved(trained, tmp_path):
    save(trained, tmp_path / "model.safetensors", family="wavelets", steps=10)
    return tmp_path / "model.safetensors"


def outputs(denoiser):
    xt = torch.randn(4, 1, 64, generator=rng())
    with torch.no_grad():
        return denoiser(xt, torch.tensor([1, 30, 400, denoiser.schedule.T]))


def equal(one, other):
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_what_is_loaded_is_what_was_trained(trained, saved):
    fresh = small(network=SKIP).build()
    for tensor in fresh.state_dict().values():  # weights, and what it knows of the data
        tensor.add_(torch.ones_like(tensor))
    assert not equal(outputs(fresh), outputs(trained.denoiser))
    again = load(fresh, saved)
    assert again.denoiser is fresh and not fresh.training
    assert equal(outputs(fresh), outputs(trained.denoiser)) and torch.equal(again.losses, trained.losses)


def test_the_file_says_what_it_is_and_appears_whole(trained, saved, monkeypatch):
    with safe_open(saved, framework="pt") as file:
        header, names = file.metadata(), set(file.keys())
    assert header["format"] == store.FORMAT
    assert json.loads(header["card"]) == {"family": "wavelets", "steps": 10}
    assert {"losses", "log_alpha_bar", "network.wiener.basis"} <= names
    assert [file.name for file in saved.parent.iterdir()] == ["model.safetensors"]
    save(trained, saved.parent / "deep" / "er" / "model.safetensors")
    assert [file.name for file in (saved.parent / "deep" / "er").iterdir()] == ["model.safetensors"]
    before = saved.read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match=r"model\.safetensors cannot be written \(No space left.*untouched\.$"):
        save(trained, saved)
    assert saved.read_bytes() == before and not list(saved.parent.glob("*.part"))


def test_one_reader_gives_the_card_and_the_tensors(trained, saved):
    card, tensors = store.read(saved)
    assert card == {"family": "wavelets", "steps": 10}
    assert torch.equal(tensors.pop("losses"), trained.losses) and tensors.pop("log_alpha_bar").dtype == torch.float64
    state = trained.denoiser.network.state_dict()
    assert tensors.keys() == {f"network.{name}" for name in state}
    assert all(torch.equal(tensors[f"network.{name}"], value) for name, value in state.items())
    *whole, last = saved.read_bytes()
    saved.write_bytes(bytes([*whole, last ^ 1]))
    with pytest.raises(ValueError, match="does not agree with its checksum"):
        store.read(saved)
    assert store.read(saved, header_only=True) == (card, {})


@pytest.mark.parametrize("text", ["{", "[1]", "3", None])
def test_a_card_that_cannot_be_read_is_empty(text, saved):
    """In a file of the first format, in which nothing else would notice."""
    header = {"format": "ddpm_lib 1"} | ({} if text is None else {"card": text})
    save_file(load_file(saved), saved, metadata=header)
    card, losses = store.read_into(small(network=SKIP).build(), saved)
    assert card == {} and len(losses) == 10


def refuse(denoiser, path, message):
    """One ValueError of one sentence, and the denoiser as it was."""
    before = outputs(denoiser)
    state = {k: v.clone() for k, v in denoiser.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load(denoiser, path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert equal(outputs(denoiser), before) and equal(state.values(), denoiser.state_dict().values())


@pytest.mark.parametrize("part", [0, 4, 100, 0.5, 0.999])
def test_truncated_files_are_refused(saved, part):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(part * len(whole)) if isinstance(part, float) else part])
    refuse(small(network=SKIP).build(), saved, "is not a complete safetensors file")


def test_foreign_files_are_refused(saved):
    denoiser = small(network=SKIP).build()
    saved.write_bytes(b"not a model at all " * 40)
    refuse(denoiser, saved, "is not a complete safetensors file")
    save_file({"weight": torch.zeros(3)}, saved)
    refuse(denoiser, saved, r"was not written by ddpm_lib\.save")
    save_file({"weight": torch.zeros(3)}, saved, metadata={"format": "pt"})
    refuse(denoiser, saved, r"was not written by ddpm_lib\.save")
    save_file({"weight": torch.zeros(3)}, saved, metadata={"format": "ddpm_lib 1"})
    refuse(denoiser, saved, "lacks the losses or the schedule")


@pytest.mark.parametrize(
    ("network", "first"),
    [
        (partial(SKIP, width=12), r"expected \(\d.*got \(\d"),
        (partial(SKIP, blocks=2), r"expected \(\d.*got nothing"),
        (net, r"expected nothing, got \(|expected \(.*got nothing"),
    ],
    ids=["wider", "deeper", "without skip"],
)
def test_files_of_another_network_are_refused(saved, network, first):
    refuse(small(network=network).build(), saved, rf"holds another network: \d+ of its tensors differ.*first .*{first}")


@pytest.mark.parametrize("schedule", [cosine(), linear(500)], ids=repr)
def test_files_of_another_schedule_are_refused(saved, schedule):
    refuse(
        small(network=SKIP, schedule=schedule).build(),
        saved,
        rf"another schedule \(T = 1000\) than Schedule\(T={schedule.T}",
    )


def test_missing_files_are_told(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="There are no weights at"):
            load(small().build(), path)


# --- the cache ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and the list of the runs that were trained for it."""
    runs = []

    def counted(recipe, **options):
        runs.append(options)
        return fit(recipe, **options)

    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "models"))
    monkeypatch.delenv("RETRAIN", raising=False)
    monkeypatch.setattr(loop, "fit", counted)
    return tmp_path / "models", runs


def files(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_nothing_trains_twice(cache):
    folder, runs = cache
    first = train_or_load(small(), workers=0)
    assert len(runs) == 1 and runs[0] == {"workers": 0}
    second = train_or_load(small())
    assert len(runs) == 1 and files(folder) == [f"{small().key()}.safetensors"]
    assert equal(outputs(first.denoiser), outputs(second.denoiser)) and torch.equal(first.losses, second.losses)
    train_or_load(small(seed=1))
    assert len(runs) == 2 and len(files(folder)) == 2


def test_retrain(cache, monkeypatch):
    _, runs = cache
    train_or_load(small())
    train_or_load(small(), retrain=True)
    assert len(runs) == 2
    for value, trains in [("0", False), ("", False), ("1", True)]:
        monkeypatch.setenv("RETRAIN", value)
        before = len(runs)
        train_or_load(small())
        assert (len(runs) > before) == trains


def test_a_damaged_file_of_the_cache_is_made_anew(cache):
    folder, runs = cache
    first = train_or_load(small())
    path = folder / files(folder)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="cannot be used and is made anew: .*not a complete safetensors file"):
        second = train_or_load(small())
    assert len(runs) == 2 and load(small().build(), path)
    assert equal(outputs(first.denoiser), outputs(second.denoiser))
    assert files(folder) == [path.name]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here" and not cache_dir().exists()
    monkeypatch.delenv("DDPM_CACHE")
    monkeypatch.setattr(store, "__file__", str(tmp_path / "ddpm_lib" / "training" / "store.py"))
    assert cache_dir().parts[-2:] == (".cache", "ddpm_lib")
    (tmp_path / "_toc.yml").touch()
    assert cache_dir() == tmp_path / "_build" / "models"


# --- what comes with the package ----------------------------------------------------------------------


def test_the_model_of_the_book_comes_with_the_package(cache):
    """Its file is the longer recipe, small, and nothing is trained or written when it is asked for."""
    folder, runs = cache
    model = pretrained()
    assert runs == [] and not list(folder.glob("*.safetensors"))
    (file,) = store.SHIPPED.glob("*.safetensors")
    assert file.stat().st_size < 3e6
    card = (store.SHIPPED / "README.md").read_text("utf-8")
    assert shipped_recipe().fingerprint() in card and f"{sum(p.numel() for p in model.network.parameters()):,}" in card


ELSEWHERE = """
from ddpm_lib import Morlet, Recipe, pretrained
from ddpm_lib.training import loop, shipped_recipe
loop.fit = None  # nothing is trained
pretrained()
recipes = Recipe(), shipped_recipe(), Recipe(Morlet(frequency=(5.0, 20.0), length=500))
print([recipe.fingerprint() for recipe in recipes])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "switch", ["ATEN_CPU_CAPABILITY=default", "MKL_ENABLE_INSTRUCTIONS=SSE4_2", "OMP_NUM_THREADS=3"]
)
def test_a_model_is_known_on_another_processor(switch):
    """Float32 has other last digits where there are other instructions; what tells recipes apart must not see them."""
    name, value = switch.split("=")
    command = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(command, env=os.environ | {name: value}, capture_output=True, text=True, check=False)
    recipes = Recipe(), shipped_recipe(), Recipe(Morlet(frequency=(5.0, 20.0), length=500))
    assert done.stdout == f"{[recipe.fingerprint() for recipe in recipes]}\n", done.stderr


# x is a sine of 21 samples a period; the ε̂ of the model that ships at t = 10, 300, 900: plain, and asked for b and w
ANSWERS = {
    (math.nan, math.nan, math.nan): [0.9006, 2.0719, 1.2519, -0.0363, 0.6733, 0.4983, 0.0001, 0.6936, 0.6109],
    (0.5, math.nan, 6.0): [1.5836, 2.0057, 0.9227, -0.0066, 0.8416, 0.5932, 0.0001, 0.6943, 0.6151],
}


@pytest.mark.parametrize("cond", ANSWERS)
def test_the_model_of_the_book_says_what_it_said(cond):
    """Whatever is moved or renamed around it."""
    x = torch.sin(torch.arange(128) / 3.0).expand(3, 1, 128)
    with torch.no_grad():
        eps = pretrained()(x, torch.tensor([10, 300, 900]), torch.tensor([cond] * 3)).eps
    assert eps[:, 0, [0, 40, 64]].flatten().tolist() == pytest.approx(ANSWERS[cond], abs=2e-3)


def test_the_cache_comes_before_the_package(cache, monkeypatch, tmp_path):
    folder, runs = cache
    recipe = small()
    first = train_or_load(recipe).denoiser
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "weights")
    shipped = fit(replace(recipe, seed=5))
    save(shipped, store.SHIPPED / "model.safetensors", **store.card(recipe))  # says it is the recipe, and is another
    assert equal(first.parameters(), train_or_load(recipe).denoiser.parameters())
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert equal(shipped.denoiser.parameters(), train_or_load(recipe).denoiser.parameters()) and len(runs) == 1
    assert equal(first.parameters(), train_or_load(recipe, retrain=True).denoiser.parameters()) and len(runs) == 2


@pytest.mark.slow
def test_the_model_of_the_book_is_as_good_as_its_card_says():
    """On fresh signals: near the floor, also where the noise is tiny."""
    model = pretrained()
    exact = FamilyOracle(Recipe().family, model.schedule)
    for low, high, limit in ((1, 1000, 1.05), (1, 10, 1.5)):
        x0, _ = Recipe().family.sample(2000, rng(high))
        t = torch.randint(low, high + 1, (2000,), generator=rng(low))
        ratio = loss_over_floor(model, exact, x0, t, torch.randn(x0.shape, generator=rng(3)))
        assert 1 < ratio.value < limit
