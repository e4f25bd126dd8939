"""The command line: runs that repeat, signals of your own, figures to read, one sentence for what fails."""

import ast
import errno
import io
import json
import logging
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rng
from pages import served
from safetensors import safe_open
from safetensors.torch import load_file

import ddpm_lib
from ddpm_lib import Recipe, UNet1D, ancestral, networks
from ddpm_lib.cli import runs
from ddpm_lib.cli.main import COMMANDS, main
from ddpm_lib.cli.runs import load_run
from ddpm_lib.signals import families
from ddpm_lib.signals.files import Signals
from ddpm_lib.training import loop, shipped_recipe

ROOT = Path(__file__).resolve().parents[2]
MODULE = '''
import torch
from ddpm_lib import Family, UNet1D

class MyFamily(Family):
    """Bumps at b."""
    def __init__(self, length: int = 32, b: tuple[float, float] = (-1.0, 1.0)):
        super().__init__({"b": b}, length, (-4.0, 4.0))

    def formula(self, x, b):
        return torch.exp(-((x - b) ** 2))

class Skewed(MyFamily):
    def sample(self, n, generator=None):
        params = self.high * torch.rand(n, 1, generator=generator) ** 2
        return self.render(params), params

def tiny(family, seed, width=8):
    return UNet1D(1, 1, width=width, levels=2, blocks=1, dim=16)
'''
SMALL = ["--recipe.steps=12", "--recipe.batch=8", "--recipe.warmup=2", "--recipe.lr=1e-3"]
TINY = ["--recipe.network", "my_module.tiny", *SMALL]
BUMPS = ["--recipe.family", "my_module.MyFamily", *TINY]
LINEAR = ["--recipe.sizes.width=8", "--recipe.sizes.blocks=1", "--recipe.sizes.dim=16", *SMALL]
FILES = ["config.yaml", "last.ckpt", "model.safetensors"]
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec.*:", "ignore:.*LeafSpec.*:")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a reader's module, a trained run, and a run on signals from a file."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "my_module.py").write_text(MODULE)
    np.save(folder / "my.npy", 50 + 200 * np.random.default_rng(0).standard_normal((24, 2, 20)).astype("float32"))
    before = os.getcwd()
    os.chdir(folder)
    mine = ["--recipe.family", "Signals", "--recipe.family.path", "my.npy", "--recipe.family.standardize", "true"]
    assert main(["fit", "run", *BUMPS]) == 0
    assert main(["fit", "mine", *mine, *LINEAR]) == 0
    os.chdir(before)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail: one sentence on stderr, code 2, no traceback; returns the sentence."""

    def run(*arguments):
        assert main(arguments) == 2
        *before, message = capsys.readouterr().err.strip().splitlines()
        assert message.startswith(f"ddpm {arguments[0]}: ") and len(message) < 400
        assert not any("Traceback" in line for line in before)
        return message

    return run


def weights(folder):
    """All tensors of a model as bytes; the order of its header's two entries is up to chance."""
    return {k: v.numpy().tobytes() for k, v in load_file(Path(folder, "model.safetensors")).items()}


# --- fit ----------------------------------------------------------------------------------------------


def test_a_finished_run_lies_in_its_folder_and_is_what_the_library_trains(here):
    import my_module

    assert sorted(os.listdir("run")) == FILES
    recipe = Recipe(my_module.MyFamily(), network=my_module.tiny, steps=12, batch=8, warmup=2, lr=1e-3)
    direct, stored = ddpm_lib.fit(recipe), load_file("run/model.safetensors")
    for name, value in direct.denoiser.network.state_dict().items():
        assert torch.equal(value, stored[f"network.{name}"]), name
    assert torch.equal(direct.losses, stored["losses"]) and load_run("run").fingerprint == recipe.fingerprint()


def test_the_saved_config_repeats_the_run_to_the_bit_with_and_without_a_bar(here, monkeypatch, capsys):
    monkeypatch.setenv("DDPM_PROGRESS", "1")
    assert main(["fit", "again", "--config", "run/config.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "over floor=" in out + err  # beside the bar
    assert weights("again") == weights("run")
    monkeypatch.setenv("DDPM_PROGRESS", "0")
    assert main(["fit", "more", "--config", "mine/config.yaml", "--trainer.accelerator", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "over floor" not in out + err and err == ""
    assert weights("more") == weights("mine")
    assert main(["fit", "other", "--config", "run/config.yaml", "--recipe.seed=1"]) == 0
    assert weights("other") != weights("run")


def test_a_stopped_run_goes_on_to_the_same_weights(here, refused):
    recipe = load_run("run").recipe
    Path("half").mkdir()
    shutil.copy("run/config.yaml", "half")
    ddpm_lib.fit(recipe, "half", until=6)
    assert "not finished" in refused("sample", "half")
    assert "--resume" in refused("fit", "half", *BUMPS)
    assert "recipe" in refused("fit", "half", "--resume", "--recipe.seed=1")
    assert main(["fit", "half", "--resume"]) == 0
    assert weights("half") == weights("run")
    assert "nothing to resume" in refused("fit", "nowhere", "--resume")


def test_a_run_is_replaced_only_when_told_to(here, refused):
    before = weights("run")
    assert "--overwrite" in refused("fit", "run", *BUMPS, "--recipe.seed=1")
    assert weights("run") == before
    assert main(["fit", "run", *BUMPS, "--recipe.seed=1", "--overwrite"]) == 0
    assert weights("run") != before and load_run("run").recipe.seed == 1
    Path("foreign").mkdir()
    Path("foreign/config.yaml").write_text("mine: 1\n")
    assert "foreign/config.yaml" in refused("fit", "foreign", *BUMPS)
    assert Path("foreign/config.yaml").read_text() == "mine: 1\n"


def test_an_interrupt_says_how_to_go_on(here, monkeypatch, capsys):
    def stopped(*_, **__):
        raise SystemExit(1)

    monkeypatch.setattr(loop, "fit", stopped)
    assert main(["fit", "new", *BUMPS]) == 130
    assert "ddpm fit new --resume" in capsys.readouterr().err


def test_a_run_that_gives_way_says_so(here, monkeypatch, capsys):
    def fit(*_, **__):
        logging.getLogger("ddpm_lib").info("%d of 2 threads", 1)
        raise RuntimeError("seen")

    monkeypatch.setattr(loop, "fit", fit)
    for folder in ("new", "newer"):  # once each, not once more for each command before
        assert main(["fit", folder, *BUMPS]) == 2
        assert capsys.readouterr().err.splitlines() == ["ddpm fit: 1 of 2 threads", "ddpm fit: seen"]


def test_what_lightning_is_given(here, monkeypatch, refused):
    seen = {}

    def fit(recipe, folder, **options):
        seen.update(options)
        raise RuntimeError("seen")

    monkeypatch.setattr(loop, "fit", fit)
    others = "--workers=1", "--threads=3"
    refused("fit", "new", *BUMPS, "--trainer.devices=2", "--trainer.precision", "bf16-mixed", *others)
    expected = {"devices": 2, "precision": "bf16-mixed", "workers": 1, "threads": 3}
    assert seen == {"resume": False, "callbacks": [], **expected}
    refused("fit", "new", "--config", "new/config.yaml")
    assert seen == {"resume": False, "callbacks": [], **expected}  # the saved config holds them too
    assert "--trainer.max_steps" in refused("fit", "newer", *BUMPS, "--trainer.max_steps=3")


@pytest.fixture
def recipe(here, monkeypatch):
    """Options of fit → the recipe that would be trained."""
    seen = []
    monkeypatch.setattr(runs, "train", lambda folder, options, recipe: seen.append(recipe) or torch.zeros(1))

    def parsed(*arguments):
        assert main(["fit", "new", *arguments]) == 0
        return seen[-1]

    return parsed


def test_options_make_the_recipe(recipe):
    assert recipe().fingerprint() == Recipe().fingerprint()
    assert recipe("--recipe.family.length=64").family.length == 64
    made = recipe("--recipe.family", "Chirp", "--recipe.schedule", "ddpm_lib.cosine", "--recipe.schedule.T=50")
    assert isinstance(made.family, families.Chirp) and made.schedule.T == 50
    assert repr(made.schedule) == repr(ddpm_lib.cosine(50))
    made = recipe("--recipe.parametrisation", "ddpm_lib.V", "--recipe.sizes.width=12", "--recipe.ema=0.9")
    assert isinstance(made.parametrisation, ddpm_lib.V) and made.ema == 0.9
    assert made.weight is ddpm_lib.simple and recipe("--recipe.weight", "ddpm_lib.vlb").weight is ddpm_lib.vlb
    assert made.build().network.network.patches.out_channels == 12
    made = recipe("--recipe.network", "my_module.tiny", "--recipe.sizes.width=16")
    assert isinstance(made.build().network, UNet1D) and made.build().network.patches.out_channels == 16


def test_options_of_one_family_do_not_go_over_to_another(recipe):
    """jsonargparse alone would keep length and b."""
    assert recipe("--recipe.family", "my_module.MyFamily").family.length == 32
    Path("some.yaml").write_text("recipe: {family: {class_path: ddpm_lib.signals.Ricker, init_args: {length: 64}}}")
    assert recipe("--config", "some.yaml").family.length == 64
    assert recipe("--config", "some.yaml", "--recipe.family.length=48").family.length == 48
    assert repr(recipe("--config", "some.yaml", "--recipe.family", "Chirp").family) == repr(families.Chirp())
    Path("own.yaml").write_text("recipe: {family: {class_path: my_module.MyFamily}, steps: 7}")
    assert recipe("--config", "own.yaml").family.length == 32
    Path("steps.yaml").write_text("recipe: {steps: 7}")
    assert recipe("--config", "steps.yaml").fingerprint() == Recipe(steps=7).fingerprint()


def test_long_signals_have_a_network(recipe):
    """Of 12 × 5000 numbers a table of the covariance would take 28.8 GB."""
    np.save("long.npy", np.random.default_rng(0).standard_normal((3, 12, 5000)).astype("float32"))
    long = recipe("--recipe.family", "Signals", "--recipe.family.path", "long.npy", "--recipe.sizes.width", "8")
    network = long.network(long.family, 0)
    assert (
        network.wiener.basis.shape == (60_000, 2) and network(torch.zeros(1, 12, 5000), torch.zeros(1)).isfinite().all()
    )
    alone = ["--recipe.family", "Chirp", "--recipe.network", "ddpm_lib.networks.plain_unet"]
    assert recipe(*alone).network is networks.plain_unet
    two = Signals("mine/signals.npy")
    assert networks.plain_unet(two, 0, width=8)(torch.zeros(1, 2, 20), torch.zeros(1)).shape == (1, 2, 20)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_and_its_examples_are_understood(command, here, recipe, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    examples = [re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines() if line.startswith("  ddpm ")]
    assert len(examples) >= 1 and len(re.findall(r"^  -", text, re.M)) >= 3

    def found(model):
        raise ValueError(f"understood {model}")

    monkeypatch.setattr(runs, "load_run", found)
    shutil.copytree("run", "runs/first")
    for example in examples:
        code = main(example.split()[1:])
        assert code == 0 if command == "fit" else "understood" in capsys.readouterr().err, example


def test_help_lists_the_commands_and_print_config_is_a_config(recipe, capsys):
    assert main([]) == 0
    assert all(f"ddpm {name}" in capsys.readouterr().out for name in [*COMMANDS][:1])
    assert main(["--version"]) == 0 and ddpm_lib.__version__ in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["fit", "new", "--recipe.steps=5", "--print_config"])
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert recipe("--config", "printed.yaml").fingerprint() == Recipe(steps=5).fingerprint()


# --- signals of your own ------------------------------------------------------------------------------

X = np.random.default_rng(1).standard_normal((5, 1, 6)).astype("float32")


def parquet(**columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {k: v if isinstance(v, pyarrow.Array) else pyarrow.array(v) for k, v in columns.items()}
    parquet.write_table(pyarrow.table(table), "x.parquet")


WRITE = {
    "npy (K, L)": lambda: np.save("x.npy", X[:, 0]),
    "npy (K, C, L)": lambda: np.save("x.npy", X),
    "npy, float64": lambda: np.save("x.npy", X.astype("float64")),
    "npy, big endian": lambda: np.save("x.npy", X.astype(">f4")),
    "npy, Fortran order": lambda: np.save("x.npy", np.asfortranarray(X[:, 0])),
    "npz, alone": lambda: np.savez("x.npz", whatever=X),
    "npz, named": lambda: np.savez_compressed("x.npz", signals=X, other=np.zeros(3)),
    "parquet, lists": lambda: parquet(y=list(X[:, 0]), name=list("abcde")),
    "parquet, columns": lambda: parquet(**{f"s{k}": X[:, 0, k] for k in range(6)}),
}


@pytest.mark.filterwarnings("ignore:.*converted to float32")
@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
def test_signals_are_read_as_they_are(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    (file,) = tmp_path.iterdir()
    family = Signals(file)
    assert torch.equal(family.signals, torch.from_numpy(X)) and family.signals.dtype == torch.float32
    assert torch.equal(family.restore(family.signals), family.signals)
    standard = Signals(file, standardize=True)
    assert abs(standard.signals.mean()) < 1e-6 and abs(standard.signals.std() - 1) < 1e-6
    torch.testing.assert_close(standard.restore(standard.signals), torch.from_numpy(X))


def test_a_parquet_file_warns_of_nothing(tmp_path, monkeypatch):
    """What pyarrow gives without a copy is read-only, of which torch warns: once, unless it always does."""
    monkeypatch.chdir(tmp_path)
    parquet(y=list(X[:, 0]))
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(Signals("x.parquet").signals, torch.from_numpy(X))
    finally:
        torch.set_warn_always(False)


def test_whole_numbers_are_converted_with_a_sentence_and_float32_is_not_copied(tmp_path):
    np.save(tmp_path / "whole.npy", np.arange(12, dtype="int16").reshape(2, 6))
    with pytest.warns(UserWarning, match="int16: it is converted to float32"):
        assert Signals(tmp_path / "whole.npy").signals[1, 0, 5] == 11
    np.save(tmp_path / "x.npy", X)
    family = Signals(tmp_path / "x.npy")
    assert isinstance(np.load(tmp_path / "x.npy", mmap_mode="c"), np.memmap)
    with (tmp_path / "x.npy").open("r+b") as file:  # what is mapped changes with the file
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(7).tobytes())
    assert family.raw[-1, -1, -1] == 7


BAD = {
    "NaN": ("signal 2", lambda: np.save("x.npy", np.where(np.arange(5)[:, None] == 2, np.nan, X[:, 0]))),
    "too large for float32": ("infinity", lambda: np.save("x.npy", np.full((3, 4), 1e300))),
    "one signal": ("at least 2", lambda: np.save("x.npy", X[:1])),
    "one dimension": ("(K, L)", lambda: np.save("x.npy", X[0, 0])),
    "four dimensions": ("(K, L)", lambda: np.save("x.npy", X[None])),
    "no samples": ("(K, L)", lambda: np.save("x.npy", X[:, :, :0])),
    "complex": ("complex64", lambda: np.save("x.npy", X.astype("complex64"))),
    "text": ("<U1", lambda: np.save("x.npy", np.full((3, 4), "a"))),
    "pickle": ("x.npy", lambda: np.save("x.npy", np.array([[{}, 1]] * 3, dtype=object), allow_pickle=True)),
    "pickle in npz": ("x.npz", lambda: np.savez("x.npz", np.array([[{}, 1]] * 3, dtype=object))),
    "two arrays": ("a, b", lambda: np.savez("x.npz", a=X, b=X)),
    "no npy": ("cannot be read", lambda: Path("x.npy").write_text("a,b\n1,2\n")),
    "cut": ("cannot be read", lambda: (np.save("x.npy", X), os.truncate("x.npy", 150))),
    "cut npz": ("cannot be read", lambda: (np.savez("x.npz", X), os.truncate("x.npz", 150))),
    "csv": ("neither .npy", lambda: Path("x.csv").write_text("1,2\n")),
    "parquet of text": ("signals are real", lambda: parquet(a=["x", "y"], b=["x", "y"])),
    "ragged parquet": ("one length", lambda: parquet(a=[[1.0, 2.0], [3.0]])),
    "parquet with holes": ("missing", lambda: parquet(a=[1.0, None], b=[1.0, 2.0])),
    "parquet with holes in lists": ("missing", lambda: parquet(a=[[1.0, None], [1.0, 2.0]])),
    "no parquet": ("cannot be read", lambda: Path("x.parquet").write_bytes(b"PAR1")),
}


@pytest.mark.parametrize("why, write", BAD.values(), ids=BAD)
def test_what_is_no_signals_is_refused_before_a_folder_is_made(why, write, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    write()
    (file,) = tmp_path.iterdir()
    message = refused("fit", "new", "--recipe.family", "Signals", "--recipe.family.path", file.name)
    assert why in message and file.name in message and not Path("new").exists()


def test_scale_is_stated_and_a_scale_that_the_schedule_does_not_suit_warns(here, monkeypatch, capsys):
    monkeypatch.setattr(loop, "fit", lambda *_, **__: sys.exit(1))
    mine = ["--recipe.family", "Signals", "--recipe.family.path", "my.npy", *LINEAR]
    main(["fit", "new", *mine])
    out, err = capsys.readouterr()
    assert re.search(r"24 signals of 2 × 20 samples; mean \d+\.\d+, standard deviation \d+.*used at this scale", out)
    assert "times the noise" in err and "--recipe.family.standardize" in err
    main(["fit", "new", *mine, "--recipe.family.standardize", "true"])
    out, err = capsys.readouterr()
    assert "standardized for training" in out and "times the noise" not in err
    np.save("faint.npy", 1e-4 * np.load("my.npy") / 200)
    main(["fit", "new", *mine, "--recipe.family.path", "faint.npy"])
    assert "below the noise" in capsys.readouterr().err
    np.save("constant.npy", np.ones((3, 1, 8), "float32"))
    main(["fit", "new", *mine, "--recipe.family.path", "constant.npy", "--recipe.family.standardize", "true"])
    assert "constant" in capsys.readouterr().err


def test_a_run_on_a_file_needs_neither_the_file_nor_its_place(here):
    raw = np.load("my.npy")
    os.remove("my.npy")
    os.rename("mine", "moved")
    assert main(["sample", "moved", "--n=3", "--steps=4"]) == 0
    run, drawn = load_run("moved"), np.load("moved/samples.npz")["signals"]
    assert torch.equal(run.recipe.family.raw, torch.from_numpy(raw)) and drawn.shape == (3, 2, 20)
    *_, x = ddpm_lib.sample(run.denoiser, (3, 2, 20), 4, generator=rng(0))
    mean, scale = raw.mean((0, 2))[:, None], raw.std((0, 2), ddof=1)[:, None]
    np.testing.assert_allclose(drawn, x.numpy() * scale + mean, rtol=1e-3, atol=0.05)  # given back at the file's scale
    with safe_open("moved/model.safetensors", "pt") as file:
        card = json.loads(file.metadata()["card"])
    np.testing.assert_allclose([card["mean"], card["scale"]], [mean[:, 0], scale[:, 0]], rtol=1e-3)


# --- sample, evaluate, export -------------------------------------------------------------------------


@pytest.mark.slow
def test_samples_of_the_model_that_ships(here, refused, capsys):
    assert main(["sample", "--n=5", "--steps=3", "--seed=4", "--sampler", "ddpm_lib.ancestral"]) == 0
    assert "samples.npz" in capsys.readouterr().out
    shipped = load_run(None)
    *_, x = ddpm_lib.sample(shipped.denoiser, (5, 1, 128), 3, ancestral, rng(4))
    with np.load("samples.npz", allow_pickle=False) as file:
        assert set(file.files) == {"signals", "seed", "steps", "sampler", "fingerprint"}
        assert torch.equal(torch.from_numpy(file["signals"]), x) and (file["seed"], file["steps"]) == (4, 3)
        assert (
            file["sampler"] == "ddpm_lib.sampling.steps.ancestral"
            and file["fingerprint"] == shipped_recipe().fingerprint()
        )
    assert Path("samples.png").read_bytes().startswith(b"\x89PNG")
    before = Path("samples.npz").read_bytes()
    assert "--overwrite" in refused("sample", "--n=5", "--steps=3")
    assert Path("samples.npz").read_bytes() == before
    assert main(["sample", "--n=5", "--steps=3", "--overwrite"]) == 0
    assert Path("samples.npz").read_bytes() != before
    assert main(["sample", "run", "--n=17", "--steps=2", "--out", "new/some.npz"]) == 0
    assert sorted(os.listdir("new")) == ["some.npz", "some.png"]
    assert Signals("new/some.npz").signals.shape == (17, 1, 32)  # and can be trained on


def test_a_picture_is_not_lost_either(here, refused):
    Path("run/samples.png").write_bytes(b"mine")
    assert "samples.png" in refused("sample", "run", "--n=1", "--steps=1")
    assert Path("run/samples.png").read_bytes() == b"mine" and not Path("run/samples.npz").exists()
    assert main(["sample", "run", "--n=1", "--steps=1", "--overwrite"]) == 0
    assert Path("run/samples.png").read_bytes().startswith(b"\x89PNG")


def test_parts_that_processes_draw_are_together_the_whole(here, refused):
    draw = ["sample", "run", "--n=7", "--steps=3", "--seed=2"]
    for part in ("1/1", "1/3", "2/3", "3/3"):
        assert main([*draw, f"--part={part}"]) == 0
    whole, *parts = (
        np.load(f"run/{name}.npz")["signals"]
        for name in ("samples", "samples-1-of-3", "samples-2-of-3", "samples-3-of-3")
    )
    assert [len(part) for part in parts] == [2, 2, 3] and len(np.unique(whole, axis=0)) == 7
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)
    for odd in ("0/3", "4/3", "1/8", "2", "1/0", "../1/2"):
        assert "K/N, such as 2/4" in refused(*draw, f"--part={odd}", "--out=odd.npz")
    assert not Path("odd.npz").exists()


@pytest.mark.slow
def test_the_model_that_ships_is_close_to_its_floor(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--n=40", "--draws=256", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert 1 < result["loss_over_floor"]["value"] < 1.2 and result["loss"]["value"] < 0.1
    assert result["scores"]["valid"]["value"] > 0.8 and result["scores"]["valid"]["floor"] == 1
    assert result["fingerprint"] == shipped_recipe().fingerprint() and not list(tmp_path.iterdir())


def test_tables_say_what_is_known(here, capsys):
    def table(*arguments):
        assert main(["evaluate", *arguments, "--n=24", "--draws=32", "--steps=3"]) == 0
        return capsys.readouterr().out

    text = table("run")
    assert re.search(r"loss over floor +[\d.e+]+ ± [\d.e+]+; 1 is a denoiser that is exact", text) and "valid" in text
    text = table("mine")
    assert "by heart" in text and "memorised" in text and "distance" in text and "valid" not in text
    for family, why in (("my_module.Skewed", "in its own way"), ("TwoMorlets", "up to three")):
        assert main(["fit", family, "--recipe.family", family, *TINY, "--recipe.steps=1"]) == 0
        text = table(family)
        assert "not known" in text and why in text and "distance" in text and "valid" not in text


def read_by_hand(path):
    """The card, and name → (dtype, shape, numbers), of a safetensors file: its format in ten lines."""
    data = Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    card = json.loads(header.pop("__metadata__")["card"])
    tensors = {}
    for name, entry in header.items():
        (begin, end), letter = entry["data_offsets"], {"F32": "f", "F64": "d"}[entry["dtype"]]
        numbers = struct.unpack(f"<{math.prod(entry['shape'])}{letter}", data[8 + size + begin : 8 + size + end])
        tensors[name] = entry["dtype"], entry["shape"], numbers
    return card, tensors


def test_exported_weights_are_read_by_hand(here):
    assert main(["export", "mine"]) == 0
    assert sorted(os.listdir("mine")) == sorted([*FILES, "signals.npy", "weights.safetensors"])
    card, tensors = read_by_hand("mine/weights.safetensors")
    stored = load_file("mine/model.safetensors")
    del stored["losses"]
    assert tensors.keys() == stored.keys()
    for name, value in stored.items():
        dtype, shape, numbers = tensors[name]
        assert dtype == ("F64" if name == "log_alpha_bar" else "F32") and shape == list(value.shape)
        assert list(numbers) == value.flatten().tolist(), name
    run = load_run("mine")
    assert card["recipe"] == run.fingerprint and card["network"] == repr(run.denoiser.network)
    assert card["shape"] == [2, 20] and card["predicts"] == "Eps" and len(tensors["log_alpha_bar"][2]) == 1001
    assert card["mean"] == run.recipe.family.mean.flatten().tolist() and len(card["mean"]) == 2
    assert card["scale"] == run.recipe.family.scale.flatten().tolist() and len(card["scale"]) == 2
    assert main(["export", "run"]) == 0
    assert not {"mean", "scale"} & read_by_hand("run/weights.safetensors")[0].keys()


def help_of(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


def test_the_help_of_export_reads_it_with_numpy_and_without_torch(here, capsys):
    assert main(["export", "mine"]) == 0
    (line,) = re.findall(r"^  (weights = .*)$", help_of("export", capsys), re.M)
    code = f"""
import sys
import safetensors.numpy
{line}
assert "torch" not in sys.modules
print({{name: (x.dtype.name, x.shape, float(x.sum(dtype="float64"))) for name, x in weights.items()}})
"""
    done = process("-c", code, cwd="mine")
    assert done.returncode == 0, done.stderr
    stored = load_file("mine/model.safetensors")
    del stored["losses"]
    assert ast.literal_eval(done.stdout) == {
        name: (str(x.dtype).removeprefix("torch."), tuple(x.shape), float(x.numpy().sum(dtype="float64")))
        for name, x in stored.items()
    }


@pytest.mark.browser
def test_the_help_of_export_reads_it_in_a_page(here, capsys, chromium):
    assert main(["export", "mine"]) == 0
    lines = re.findall(r"^  (const .*)$", help_of("export", capsys), re.M)
    assert len(lines) == 3
    _, tensors = read_by_hand("mine/weights.safetensors")
    names = [name for name, (dtype, *_) in tensors.items() if dtype == "F32"]
    result = "[JSON.parse(header.__metadata__.card).shape, names.map((name) => Array.from(tensor(name)))]"
    script = "\n".join(["async (names) => {", *lines, f"return {result};", "}"])
    with served("mine") as address:
        tab = chromium.new_page()
        tab.goto(address)
        found = tab.evaluate(script, names)
        tab.close()
    assert found == [[2, 20], [list(tensors[name][2]) for name in names]]


def test_an_export_is_equal_to_the_bit_and_replaced_only_when_told_to(here, refused):
    assert main(["export", "run", "--out", "page/w.safetensors"]) == 0 and os.listdir("page") == ["w.safetensors"]
    first = Path("page/w.safetensors").read_bytes()
    Path("page/w.safetensors").write_bytes(b"mine")
    assert "--overwrite" in refused("export", "run", "--out", "page/w.safetensors")
    assert Path("page/w.safetensors").read_bytes() == b"mine"
    assert main(["export", "run", "--out", "page/w.safetensors", "--overwrite"]) == 0
    assert Path("page/w.safetensors").read_bytes() == first
    assert ".safetensors" in refused("export", "run", "--out", "page/w.npz") and os.listdir("page") == ["w.safetensors"]


# --- what fails ---------------------------------------------------------------------------------------

WRONG = {
    "no such command": ("there is no such command", ["smaple"]),
    "unknown option": ("--recipe.stepz", ["fit", "new", "--recipe.stepz=3"]),
    "no folder": ("folder", ["fit"]),
    "not a number": ("--recipe.steps", ["fit", "new", "--recipe.steps=3.5"]),
    "out of range": ("steps of a recipe", ["fit", "new", "--recipe.steps=0"]),
    "no such family": ("Foo", ["fit", "new", "--recipe.family", "Foo"]),
    "no such module": ("nope", ["fit", "new", "--recipe.family", "nope.Foo"]),
    "no such class": ("Nope", ["fit", "new", "--recipe.family", "my_module.Nope"]),
    "not a family": ("Eps", ["fit", "new", "--recipe.family", "ddpm_lib.Eps"]),
    "no such option of a family": ("foo", ["fit", "new", "--recipe.family", "Chirp", "--recipe.family.foo=1"]),
    "a bad box": ("must be positive", ["fit", "new", "--recipe.family.s=[-1,1]"]),
    "no such size": ("widht", ["fit", "new", "--recipe.sizes.widht=3", *SMALL]),
    "no such precision": ("Precision 3", ["fit", "new", *BUMPS, "--trainer.precision=3"]),
    "no such signals": ("nope.npy", ["fit", "new", "--recipe.family", "Signals", "--recipe.family.path", "nope.npy"]),
    "no such config": ("nope.yaml", ["fit", "new", "--config", "nope.yaml"]),
    "a broken config": ("line 1, column 9", ["fit", "new", "--config", "broken.yaml"]),
    "a config of something else": ("learning_rate", ["fit", "new", "--config", "else.yaml"]),
    "a file as folder": ("my.npy", ["fit", "my.npy", *BUMPS]),
    "a file in the way": ("my.npy", ["sample", "--n=1", "--steps=1", "--out", "my.npy/samples.npz"]),
    "no run": ("ddpm fit nowhere", ["sample", "nowhere"]),
    "no samples": ("at least 1", ["sample", "run", "--n=0"]),
    "too many steps": ("an integer from 1 to 1000", ["sample", "run", "--steps=2000"]),
    "no such sampler": ("nope", ["sample", "run", "--sampler", "ddpm_lib.nope"]),
    "no npz": (".npz", ["sample", "run", "--out", "x.csv"]),
    "too few samples": ("at least 20", ["evaluate", "run", "--n=5", "--draws=8"]),
    "too few draws": ("--draws", ["evaluate", "run", "--draws=1"]),
}


@pytest.mark.parametrize("why, arguments", WRONG.values(), ids=WRONG)
def test_one_sentence_and_no_traceback(why, arguments, here, refused):
    Path("broken.yaml").write_text("recipe: [1, 2\n")
    Path("else.yaml").write_text("learning_rate: 3\n")
    before = sorted(str(path) for path in here.rglob("*.part"))
    assert why in refused(*arguments)
    assert sorted(str(path) for path in here.rglob("*.part")) == before == []


def test_debug_shows_the_traceback(here, capsys):
    assert main(["sample", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_damaged_or_foreign_model_is_refused(here, refused):
    os.truncate("run/model.safetensors", 2000)
    for command in ("sample", "evaluate", "export"):
        assert "run/model.safetensors" in refused(command, "run")
    text = Path("mine/config.yaml").read_text()
    Path("mine/config.yaml").write_text(text.replace("steps: 12", "steps: 13"))
    assert "changed" in refused("sample", "mine")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_is_told_before_the_work(code, here, monkeypatch, refused):
    opened = Path.open

    def full(path, mode="r", *args, **kwargs):
        if "w" in mode:
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("it trained"))
    monkeypatch.setattr("ddpm_lib.sampling.loop.sample", lambda *_, **__: pytest.fail("it sampled"))
    for arguments in (["fit", "new", *BUMPS], ["sample", "run"], ["export", "run"]):
        assert os.strerror(code) in refused(*arguments)


def test_a_disk_that_fills_up_leaves_no_part_of_a_file(here, monkeypatch, refused):
    def full(file, **_):
        file.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    assert os.strerror(errno.ENOSPC) in refused("sample", "run", "--n=1", "--steps=1")
    monkeypatch.setattr("ddpm_lib.cli.output.to_bytes", lambda *_, **__: full(io.BytesIO()))
    assert os.strerror(errno.ENOSPC) in refused("export", "run")
    assert sorted(os.listdir("run")) == FILES


# --- in processes of their own ------------------------------------------------------------------------


def process(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, **options)


@pytest.mark.slow
def test_nothing_of_this_is_imported_before_it_is_needed(here):
    code = """
import sys
import ddpm_lib
early = {"jsonargparse", "matplotlib", "lightning", "pyarrow", "ddpm_lib.signals.files"} & sys.modules.keys()
from ddpm_lib.__main__ import main
assert main(["evaluate", "run", "--n=20", "--draws=4", "--steps=1"]) == 0
late = {"matplotlib", "lightning", "pyarrow"} & sys.modules.keys()
sys.exit(f"{early} {late}" if early | late else 0)
"""
    done = process("-c", code, cwd=here)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_module_runs_from_a_terminal(here):
    done = process("-m", "ddpm_lib", "fit", "new", *BUMPS, "--recipe.steps=0", cwd=here)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("ddpm fit: steps of a recipe must be an integer") and done.stderr.count("\n") == 1
