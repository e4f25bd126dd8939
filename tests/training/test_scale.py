"""Two processes that train one model: what one process trains, no signal twice, one writer, an end when one dies.

They run on this machine's processor and talk through gloo, started as torchrun would start them (but forked, so that
nothing is imported twice), by torchrun itself, and by Lightning. No GPU and no second machine has a part in it.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faults import digest, fork, steps_kept
from helpers import net, small
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import nn

from ddpm_lib import fit
from ddpm_lib.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CPU = dict(accelerator="cpu", devices=2, strategy="ddp")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*treespec.*:", "ignore:.*LeafSpec.*:")]


class Seen(Callback):
    """Keeps what this process is given; at one step, one process kills itself."""

    def __init__(self, kill=None):
        self.kill, self.batches = kill, []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.batches.append(batch[0].clone())
        if (trainer.global_rank, trainer.global_step) == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def in_two(folder, recipe, kill=None, **options):
    """`fit` in two processes: of each what it returned or raised, and what it saw; None of one that was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)

    def work(rank):
        said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        said |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({k: str(v) for k, v in said.items()})
        seen, made = Seen(kill), {}
        try:
            trained = fit(recipe, folder, callbacks=[seen], **CPU, **options)
            made = {"losses": trained.losses, "weights": trained.denoiser.state_dict()}
        except Exception as error:
            made["raised"] = f"{type(error).__name__}: {error}"
        torch.save(made | {"seen": seen.batches}, out / f"{rank}.pt")

    for file in out.iterdir():
        file.unlink()
    for pid in [fork(lambda rank=rank: work(rank)) for rank in range(2)]:
        os.waitpid(pid, 0)
    files = [out / f"{rank}.pt" for rank in range(2)]
    return [torch.load(file, weights_only=True) if file.exists() else None for file in files]


def close(one, other):
    """The same weights but for rounding."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=name)


def test_two_processes_train_what_one_trains_and_see_no_signal_twice(tmp_path):
    recipe, seen = small(), Seen()
    alone = fit(recipe, tmp_path / "one", callbacks=[seen])
    first, second = in_two(tmp_path / "two", recipe)
    torch.testing.assert_close(first["losses"], alone.losses, rtol=1e-5, atol=1e-6)
    close(first["weights"], alone.denoiser.state_dict())
    for key in ("losses", "weights"):
        assert digest(first[key]) == digest(second[key])
    assert len(first["seen"]) == len(second["seen"]) == recipe.steps
    for whole, *halves in zip(seen.batches, first["seen"], second["seen"], strict=True):
        assert [len(half) for half in halves] == [4, 4]
        assert torch.equal(torch.stack(halves, 1).flatten(0, 1), whole)
    assert len(torch.cat(first["seen"] + second["seen"]).flatten(1).unique(dim=0)) == recipe.steps * recipe.batch
    assert [file.name for file in (tmp_path / "two").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_the_run_goes_on_from_its_checkpoint(tmp_path, rank):
    recipe, folder = small(), tmp_path / "run"
    undisturbed = in_two(tmp_path / "whole", recipe)[0]
    told = in_two(folder, recipe, kill=(rank, 7))
    assert told[rank] is None
    said = told[1 - rank]["raised"]
    assert said.startswith("ConnectionError: Another process of this run has ended, and with it this one. ")
    assert said.endswith(f"{folder / 'last.ckpt'} is untouched: resume from it.") and "\n" not in said
    assert steps_kept(folder) == 6 and len(list(folder.iterdir())) == 1
    whole = (folder / "last.ckpt").read_bytes()
    resumed = in_two(folder, recipe, resume=True)[0]
    assert digest([resumed["losses"], resumed["weights"]]) == digest([undisturbed["losses"], undisturbed["weights"]])
    (folder / "last.ckpt").write_bytes(whole)
    alone = fit(recipe, folder, resume=True)  # in one process
    torch.testing.assert_close(alone.losses, undisturbed["losses"], rtol=1e-5, atol=1e-6)
    close(alone.denoiser.state_dict(), undisturbed["weights"])


def test_one_killed_before_the_first_checkpoint_is_told_too(tmp_path):
    told = in_two(tmp_path / "run", small(), kill=(1, 1))
    assert told[0]["raised"].endswith("There is no checkpoint.") and told[1] is None


class Breaks(nn.Module):
    """A network that says NaN for one signal of the second process from its fourteenth call on."""

    def __init__(self):
        super().__init__()
        self.inside, self.calls = net(None, 0), 0

    def forward(self, x, log_snr, cond):
        self.calls += 1
        out = self.inside(x, log_snr, cond)
        bad = self.calls >= 14 and os.environ.get("RANK") == "1"
        return out.index_fill(0, torch.tensor([2]), torch.nan) if bad else out


def test_a_loss_that_is_nan_ends_both_and_one_says_where(tmp_path):
    recipe = small(network=lambda family, seed: Breaks())
    t = int(recipe.draw(recipe.build().network)(13)[1][5])
    first, second = in_two(tmp_path / "run", recipe)
    start = "FloatingPointError: The loss is nan at step 13: "
    assert first["raised"].startswith(f"{start}another process says where. ")
    assert second["raised"].startswith(f"{start}signal 5 of the batch, at t = {t}. ")
    assert steps_kept(tmp_path / "run") == 12


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^2 processes cannot share a batch of 9 evenly: change one of the two\.$"):
        fit(small(batch=9), tmp_path, **CPU)
    assert not list(tmp_path.iterdir())


# --- the command line ---------------------------------------------------------------------------------

MODULE = '''
import os
from ddpm_lib import UNet1D

class Tiny(UNet1D):
    """Kills the second process at its ninth step, where it is told so."""
    calls = 0

    def forward(self, *args):
        self.calls += 1
        if self.calls == 9 and os.environ.get("LOCAL_RANK") == "1" and os.environ.get("KILL"):
            os.kill(os.getpid(), 9)
        return super().forward(*args)

def tiny(family, seed):
    return Tiny(width=8, levels=2, blocks=1, dim=16)
'''
OPTIONS = [
    "--recipe.network",
    "scaled_module.tiny",
    "--recipe.family.length=64",
    "--recipe.steps=20",
    "--recipe.batch=8",
]
TWO = ["--trainer.devices=2", "--trainer.accelerator=cpu"]


def test_the_command_line_trains_in_two_processes_and_says_how_to_go_on(tmp_path, monkeypatch):
    """Once started by torchrun, once by Lightning, with a kill; in the end all three runs are one."""
    monkeypatch.chdir(tmp_path)
    Path("scaled_module.py").write_text(MODULE)
    settings = {"PYTHONPATH": str(ROOT), "DDPM_DEVICE": "cpu", "DDPM_PROGRESS": "0", "OMP_NUM_THREADS": "1"}

    def run(*command, **more):
        command = [sys.executable, "-m", *command]
        env = os.environ | settings | more
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)

    assert main(["fit", "one", *OPTIONS]) == 0
    launch = "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"
    done = run(*launch, "ddpm_lib", "fit", "two", *OPTIONS, *TWO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("two: 20 steps") == 1  # one process speaks for both
    killed = run("ddpm_lib", "fit", "three", *OPTIONS, *TWO, KILL="yes")
    assert killed.returncode == 2
    assert "Another process of this run has ended" in killed.stderr and "Traceback" not in killed.stderr
    assert "ddpm fit three --resume" in killed.stderr
    assert steps_kept(Path("three")) == 8
    assert main(["fit", "three", "--resume", "--trainer.devices=1"]) == 0
    one, two, three = (load_file(f"{name}/model.safetensors") for name in ("one", "two", "three"))
    close(two, one)
    close(three, one)
    assert sorted(os.listdir("two")) == sorted(os.listdir("three")) == ["config.yaml", "last.ckpt", "model.safetensors"]
