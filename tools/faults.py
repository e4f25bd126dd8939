"""Kill a training run again and again, and see that nothing is lost: `make faults`.

A tiny run writes a checkpoint after every step. Each trial kills it twice with SIGKILL, resumes it each time and
compares losses, weights, running mean and optimiser with those of a run that nobody disturbed, to the bit. The first
kill comes at a random moment; the second, in the resumed run, at another one or in the middle of writing a checkpoint.
What is done stands in _build/faults.jsonl, so that a run that is stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DDPM_DEVICE", "cpu")

import torch

from ddpm_lib import BenchmarkMorlet, Recipe, UNet1D, fit
from ddpm_lib.training import atomic

ROOT = Path(__file__).resolve().parents[1]
DONE = ROOT / "_build" / "faults.jsonl"
TRIALS = 30
STEPS = 19  # a checkpoint after every step: fit writes one each steps // 10


def network(family: Any, seed: int) -> UNet1D:
    return UNet1D(width=8, levels=2, blocks=1, dim=16)


RECIPE = Recipe(family=BenchmarkMorlet(length=64), network=network, steps=STEPS, batch=8, warmup=3)


def digest(x: Any) -> str:
    """Of tensors, numbers and texts in any nesting: equal for equal bits only."""
    if isinstance(x, torch.Tensor):
        return hashlib.sha256(x.contiguous().flatten().view(torch.uint8).numpy()).hexdigest()
    if isinstance(x, dict):
        x = [[str(k), digest(v)] for k, v in x.items()]
    elif isinstance(x, (list, tuple)):
        x = [digest(v) for v in x]
    return hashlib.sha256(repr(x).encode()).hexdigest()


def train(folder: Path) -> None:
    """The run, from its checkpoint where there is one; what it made goes into ``result``."""
    warnings.simplefilter("ignore")
    last = folder / "last.ckpt"
    trained = fit(RECIPE, folder, resume=last.exists())
    kept = torch.load(last, weights_only=True)
    parts = [kept[k] for k in ("state_dict", "optimizer_states", "losses")]
    made = {"fit": [trained.losses, trained.denoiser.state_dict()], "checkpoint": parts}
    (folder / "result").write_text(json.dumps({k: digest(v) for k, v in made.items()}))


def fork(work: Callable[[], None]) -> int:
    """Its process: everything is imported already, so it costs no more than the work."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(pid: int) -> bool:
    """Wait for a process: True where it ended by itself, False where it was killed."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise RuntimeError(f"A training process failed: its status is {status}; its traceback stands above.")
    return True


def at_random(folder: Path, seconds: float) -> None:
    """Train, and kill the run after some seconds; again, and sooner, where it was faster."""
    before = {file: file.read_bytes() for file in folder.iterdir()}
    while True:
        pid = fork(lambda: train(folder))
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # not yet waited for, so it is still there
        if not finish(pid):
            return
        for file in folder.iterdir():
            file.unlink()
        for file, data in before.items():
            file.write_bytes(data)
        seconds *= 0.7


def in_a_write(folder: Path, number: int, share: float) -> bool:
    """Train, and kill the run where a share of the checkpoint of this number is written; False if it writes none."""

    def dying() -> None:
        left, sync = [number], os.fsync

        def fsync(fd: int) -> None:
            left[0] -= 1
            if not left[0]:
                os.truncate(fd, int(share * os.fstat(fd).st_size))
                os.kill(os.getpid(), signal.SIGKILL)
            sync(fd)

        atomic.os.fsync = fsync
        train(folder)

    return not finish(fork(dying))


def steps_kept(folder: Path) -> int:
    last = folder / "last.ckpt"
    return int(torch.load(last, weights_only=True)["global_step"]) if last.exists() else 0


def undisturbed() -> tuple[dict[str, str], float]:
    """What the run makes, and the seconds that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        finish(fork(lambda: train(Path(folder))))
        return json.loads((Path(folder) / "result").read_text()), time.monotonic() - start


def trial(number: int, expected: dict[str, str], seconds: float) -> dict[str, Any]:
    """Two kills, each followed by a resumed run: after which steps they came, and whether the end is the same."""
    chance = random.Random(number)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept, parts = [], 0
        for kill in range(2):
            if kill and number % 2:
                killed = in_a_write(folder, 1 + int(chance.random() * (STEPS - kept[0])), chance.random())
            else:
                killed = True
                at_random(folder, chance.random() * seconds)
            kept += [steps_kept(folder)] * killed
            parts += len(list(folder.glob("*.part")))
        finish(fork(lambda: train(folder)))
        left = sorted(file.name for file in folder.iterdir())
        same = json.loads((folder / "result").read_text()) == expected and left == ["last.ckpt", "result"]
    return {"trial": number, "after": kept, "in a write": parts, "same": same}


def main(trials: int) -> int:
    DONE.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []
    expected, seconds = undisturbed()
    for number in sorted(set(range(trials)) - {row["trial"] for row in rows}):
        rows.append(trial(number, expected, seconds))
        print(json.dumps(rows[-1]), flush=True)
        with DONE.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    kills = [step for row in rows for step in row["after"]]
    writes, same = sum(row["in a write"] for row in rows), sum(row["same"] for row in rows)
    early = sum(step == 0 for step in kills)
    print(
        f"faults: {same} of {len(rows)} runs end to the bit as if nobody had disturbed them, after {len(kills)} kills, "
        f"{early} of them before the first checkpoint and {writes} while one was written"
    )
    return int(same < len(rows))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS))
