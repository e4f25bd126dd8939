"""Kills, full disks, flipped bits, a cache for reading only, two at once: nothing good is lost, nothing wrong used."""

import ctypes
import errno
import json
import os
import random
import resource
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import faults
import pytest
import torch
from faults import digest, finish, fork
from helpers import small
from lightning.pytorch.callbacks import Callback
from safetensors import safe_open
from safetensors.torch import save_file

from ddpm_lib import fit, load, save, train_or_load
from ddpm_lib.training import atomic, loop, shipped_recipe, store
from ddpm_lib.training.loop import _Checkpoints

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec.*:")
SMALL = small(steps=10)


@pytest.fixture(scope="module")
def trained():
    return fit(SMALL)


@pytest.fixture
def saved(trained, tmp_path):
    save(trained, tmp_path / "model.safetensors", **store.card(SMALL))
    return tmp_path / "model.safetensors"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a file with one line for each training, whichever process did it."""
    log = tmp_path / "trainings"
    log.touch()

    def counted(recipe, **options):
        with log.open("a") as file:
            file.write("trained\n")
        return fit(recipe, **options)

    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "models"))
    monkeypatch.delenv("RETRAIN", raising=False)
    monkeypatch.setattr(loop, "fit", counted)
    return tmp_path / "models", lambda: len(log.read_text().splitlines())


def bits(model):
    return digest([model.losses, model.denoiser.state_dict()])


def flipped(whole, bit):
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


# --- kills --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_bit(number):
    """A short slice of `make faults`: two kills each, three of the six while a checkpoint is written."""
    expected, seconds = faults.undisturbed()
    row = faults.trial(number, expected, seconds)
    assert row["same"] and 1 <= len(row["after"]) <= 2


def test_a_kill_in_the_middle_of_a_write_leaves_the_last_good_checkpoint(tmp_path):
    assert faults.in_a_write(tmp_path, 5, 0.5)
    assert faults.steps_kept(tmp_path) == 4 and len(list(tmp_path.glob("last.ckpt.*.part"))) == 1
    assert not faults.in_a_write(tmp_path, 100, 0.5)  # it goes on, and what the dead one left is swept
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "result"]


def test_a_kill_while_the_cache_is_filled_leaves_nothing(cache, monkeypatch):
    folder, trainings = cache

    def dying():
        atomic.os.fsync = lambda fd: os.kill(os.getpid(), 9)
        train_or_load(SMALL)

    assert not finish(fork(dying))
    assert len(list(folder.glob("*.part"))) == 1 and not list(folder.glob("*.safetensors"))
    train_or_load(SMALL)
    assert trainings() == 2 and not list(folder.glob("*.part")) and len(list(folder.glob("*.safetensors"))) == 1


# --- full disks, folders for reading only -------------------------------------------------------------


class Fills(Callback):
    """After some steps no file may grow beyond 1000 bytes: for a process that is thrown away."""

    def on_train_batch_start(self, trainer, module, batch, index):
        if index == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    told = os.pipe()

    def work():
        try:
            fit(small(steps=19), tmp_path / "run", callbacks=[Fills()])
        except OSError as error:
            os.write(told[1], f"{type(error).__name__}: {error}".encode())

    assert finish(fork(work))
    said = os.read(told[0], 4096).decode()
    assert said == f"OSError: {tmp_path}/run/last.ckpt cannot be written (File too large); what was there is untouched."
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["last.ckpt"]
    assert faults.steps_kept(tmp_path / "run") == 7
    assert bits(fit(small(steps=19), tmp_path / "run", resume=True)) == bits(fit(small(steps=19)))


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^Nothing can be written to the folder .*/file/run \(Not a directory\)\.$"):
        fit(SMALL, tmp_path / "file" / "run", callbacks=[None])  # would break as soon as Lightning begins


def test_a_cache_that_cannot_be_written_trains_and_warns(cache, trained, monkeypatch):
    folder, trainings = cache
    folder.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"is not kept: .* cannot be written \(.*Set DDPM_CACHE to another folder\.$"):
        model = train_or_load(SMALL)
    assert bits(model) == bits(trained) and trainings() == 1 and folder.is_file()


def test_a_full_disk_costs_the_cache_and_not_the_model(cache, trained, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, _ = cache
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.warns(UserWarning, match=r"is not kept: .* cannot be written \(No space left on device\)"):
        model = train_or_load(SMALL)
    assert bits(model) == bits(trained)
    assert [file.suffix for file in folder.iterdir()] == [".lock"]


def test_a_cache_for_reading_only_is_read(trained):
    """By a process that may not write there, without a lock, and without training."""

    def work():
        if os.geteuid() == 0:  # may write everywhere, unless it gives up what Linux calls its capabilities
            version, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
            assert ctypes.CDLL(None).capset(version, nothing) == 0
        assert not os.access(folder, os.W_OK, effective_ids=True)
        os.environ["DDPM_CACHE"] = str(folder)
        loop.fit = None
        assert bits(train_or_load(SMALL)) == bits(trained)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(trained, folder / f"{SMALL.key()}.safetensors", **store.card(SMALL))
        folder.chmod(0o555)
        try:
            assert finish(fork(work))
        finally:
            folder.chmod(0o755)


# --- damaged files ------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_checkpoint_is_noticed_or_harmless(tmp_path):
    """torch does not look at the checksums of its own files: a flipped weight would be trained on."""
    fit(SMALL, tmp_path, until=4)
    last = tmp_path / "last.ckpt"
    whole = last.read_bytes()
    intact, noticed = digest(_Checkpoints().load_checkpoint(last, weights_only=True)), 0
    chance = random.Random(0)
    for bit in [chance.randrange(8 * len(whole)) for _ in range(150)]:
        last.write_bytes(flipped(whole, bit))
        try:
            found = digest(_Checkpoints().load_checkpoint(last, weights_only=True))
        except Exception:  # fit makes one sentence of it, see below
            noticed += 1
        else:
            assert found == intact, f"bit {bit} is flipped, and nobody notices"
    assert noticed > 75  # the others lie in padding and in dates


def test_a_damaged_checkpoint_is_told_in_one_sentence_and_left_alone(tmp_path):
    fit(SMALL, tmp_path, until=4)
    last = tmp_path / "last.ckpt"
    whole = last.read_bytes()
    weight = torch.load(last, weights_only=True)["state_dict"]["denoiser.network.patches.weight"]
    at = whole.find(weight.numpy().tobytes())
    assert at > 0
    for bit in (8 * at, 8 * (len(whole) - 22)):  # a weight; the signature of the archive's last record
        last.write_bytes(flipped(whole, bit))
        with pytest.raises(ValueError, match=r"last\.ckpt is not a complete checkpoint of this recipe: .+\.$"):
            fit(SMALL, tmp_path, resume=True)
        assert last.read_bytes() == flipped(whole, bit)
    last.write_bytes(whole)
    assert bits(fit(SMALL, tmp_path, resume=True)) == bits(fit(SMALL))


def test_a_flipped_bit_of_a_model_is_noticed(saved, trained):
    """Every one in the weights, and every one in the header that would change what is read."""
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(0)
    weights = [chance.randrange(8 * header, 8 * len(whole)) for _ in range(150)]
    text = [chance.randrange(8 * header) for _ in range(150)]
    for bit in weights + text:
        saved.write_bytes(flipped(whole, bit))
        denoiser = SMALL.build()
        before = digest(denoiser.state_dict())
        try:
            model = load(denoiser, saved)
        except ValueError as error:
            assert "\n" not in str(error) and digest(denoiser.state_dict()) == before
        else:
            assert bit in text and bits(model) == bits(trained), f"bit {bit} is flipped, and nobody notices"


def test_a_flipped_bit_in_the_cache_is_trained_anew(cache, trained):
    folder, trainings = cache
    train_or_load(SMALL)
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(flipped(path.read_bytes(), 8 * path.stat().st_size - 3))
    with pytest.warns(UserWarning, match="made anew: .* does not agree with its checksum"):
        assert bits(train_or_load(SMALL)) == bits(trained)
    assert trainings() == 2 and bits(load(SMALL.build(), path)) == bits(trained)


def test_a_card_that_lies_is_noticed(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole.replace(b'\\"steps\\": 10', b'\\"steps\\": 99'))
    assert saved.read_bytes() != whole
    with pytest.raises(ValueError, match="does not agree with its checksum"):
        load(SMALL.build(), saved)


def test_weights_that_are_not_finite_are_refused(saved, trained):
    broken = replace_weight(trained, torch.nan)
    save(broken, saved)
    with pytest.raises(ValueError, match=r"damaged: network\.patches\.weight holds NaN or infinity"):
        load(SMALL.build(), saved)


def replace_weight(model, value):
    denoiser = SMALL.build()
    denoiser.load_state_dict(model.denoiser.state_dict())
    with torch.no_grad():
        denoiser.network.patches.weight[0, 0, 0] = value
    return model._replace(denoiser=denoiser)


def test_a_run_of_which_the_last_gradient_was_nan_gives_no_model():
    class Last(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == SMALL.steps - 1:
                module.denoiser.network.patches.weight.grad.fill_(torch.nan)

    with pytest.raises(FloatingPointError, match=r"A weight is NaN or infinite after 10 steps"):
        fit(SMALL, callbacks=[Last()])


# --- other versions, two at once ----------------------------------------------------------------------


def first_format(path):
    """Write a file as the first version did: without a checksum."""
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"format": "ddpm_lib 1", "card": header["card"]})


def test_files_of_the_first_format_are_read(saved, trained):
    first_format(saved)
    assert bits(load(SMALL.build(), saved)) == bits(trained)


def test_a_file_that_lost_its_checksum_is_not_taken_for_one_of_the_first_format(saved):
    with safe_open(saved, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["sha256"]
    save_file(tensors, saved, metadata=header)
    with pytest.raises(ValueError, match="does not agree with its checksum"):
        load(SMALL.build(), saved)


def test_the_shipped_model_agrees_with_its_checksum():
    (path,) = store.SHIPPED.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert header["sha256"] == store._checksum(header["card"], tensors)
    assert json.loads(header["card"])["recipe"] == shipped_recipe().fingerprint()


def test_what_another_version_has_cached_is_not_used(cache, trained, monkeypatch):
    folder, trainings = cache
    with monkeypatch.context() as other:
        other.setattr("ddpm_lib.training.recipe.ROOMS", ("diffusion",))  # another code, so another key
        train_or_load(SMALL)
    assert bits(train_or_load(SMALL)) == bits(trained)
    assert trainings() == 2 and len(list(folder.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("card", [{"recipe": "0123456789"}, {}, None])
def test_a_cached_file_of_another_recipe_is_not_used(cache, trained, card):
    """Renamed, copied by hand, or without a word of what it is: the same network, and yet not this model."""
    folder, trainings = cache
    path = folder / f"{SMALL.key()}.safetensors"
    save(fit(replace(SMALL, seed=1)), path, **(card or {}))
    if card is None:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, path, metadata={"format": "ddpm_lib 1"})
    with pytest.warns(UserWarning, match="made anew: .*(holds recipe 0123456789, not|does not say which recipe)"):
        assert bits(train_or_load(SMALL)) == bits(trained)
    assert trainings() == 1 and bits(train_or_load(SMALL)) == bits(trained) and trainings() == 1


def test_a_damaged_file_of_the_package_is_not_used(cache, trained, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"half a fi")
    with pytest.warns(UserWarning, match="made anew: .*not a complete safetensors file"):
        assert bits(train_or_load(SMALL)) == bits(trained)


def test_two_processes_that_ask_at_once_train_once(cache, trained):
    folder, trainings = cache

    def work():
        assert bits(train_or_load(SMALL)) == bits(trained)

    running = [fork(work) for _ in range(3)]
    assert all([finish(pid) for pid in running])
    assert trainings() == 1 and len(list(folder.glob("*.safetensors"))) == 1
