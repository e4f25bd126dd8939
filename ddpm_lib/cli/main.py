"""Diffusion models on signals whose exact answer is known.

  ddpm fit FOLDER         train a recipe; the folder then holds the run
  ddpm sample [FOLDER]    draw signals from the model of a run: an .npz and a picture
  ddpm evaluate [FOLDER]  how far it is from perfect: loss over floor, scores of its samples
  ddpm export [FOLDER]    its weights, for programs without torch

Without FOLDER the model that comes with the package is taken: ddpm sample is the place to begin.
ddpm fit --help explains fit, and so on. With --debug an error shows where it happened.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
import traceback
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from torch import Tensor

from .. import __version__
from ..exact.family import FamilyOracle
from ..measures import evaluation
from ..measures.loss import loss_over_floor, mean_loss
from ..sampling.loop import sample as walk_down
from ..sampling.steps import dpmpp_2m_sde
from ..signals.files import Signals
from ..signals.finite import Finite
from ..signals.source import signal_shape
from ..training.atomic import atomic_write
from ..training.distributed import part_of
from . import runs
from .output import export_weights, free, output_path, picture, scale_of


class _Format(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Examples keep their lines."""


def _parser(command: Callable[..., None], usage: str) -> ArgumentParser:
    """A parser that explains itself by the docstring of the command."""
    name, about = f"ddpm {command.__name__}", cleandoc(str(command.__doc__))
    return ArgumentParser(
        prog=name, usage=f"{name} {usage}", description=about, exit_on_error=False, formatter_class=_Format
    )


def fit(arguments: Sequence[str]) -> None:
    """Train a recipe. FOLDER then holds the run: config.yaml (all options), model.safetensors (the weights),
    last.ckpt (to go on from), and signals.npy where the signals came from a file.

      ddpm fit runs/first --recipe.steps 300                  the book's wavelets; quick, and not yet good
      ddpm fit runs/chirps --recipe.family Chirp --recipe.family.length 64
      ddpm fit runs/mine --recipe.family Signals --recipe.family.path my.npy       signals of your own
      ddpm fit runs/own --recipe.family my_module.MyFamily    a class of my_module.py in this folder
      ddpm fit runs/cosine --recipe.schedule ddpm_lib.cosine --recipe.sizes.width 16
      ddpm fit runs/first --resume                            go on where it was stopped
      ddpm fit runs/again --config runs/first/config.yaml     the same run again
      ddpm fit runs/exact --threads 2                         again and again the same to the bit, on one machine

    Families, schedules (ddpm_lib.linear, cosine, sigmoid, quadratic, log_linear, straight), what the network predicts
    (ddpm_lib.Eps, X0, V, U) and networks are named by their path. --recipe.family.help Signals lists its options.
    --print_config writes all options as YAML, to edit and give to --config, and trains nothing.
    DDPM_DEVICE=cpu (or cuda, mps) says where to compute, DDPM_PROGRESS=0 that no bar is wanted.
    """
    parser = _parser(fit, "FOLDER [--config FILE] [--recipe.NAME VALUE ...] [--trainer.NAME VALUE ...]")
    parser.add_argument("folder", help="where the run goes")
    parser.add_argument("--config", action="config", help="a YAML file of options; those after it count more")
    parser.add_argument("--resume", action="store_true", help="go on from last.ckpt of the folder, with its config")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    runs.recipe_options(parser)
    options, start = runs.parse(parser, arguments), time.perf_counter()
    folder = Path(options.folder)
    if options.resume:
        if not (folder / runs.CONFIG).is_file():
            raise FileNotFoundError(f"There is nothing to resume: {folder} has no {runs.CONFIG}.")
        options = runs.parse(parser, ["--config", str(folder / runs.CONFIG), *arguments])
    odd = sorted(set(options.trainer) - set(runs.TRAINER))
    if odd:
        raise ValueError(f"--trainer.{odd[0]} cannot be chosen. What can: {', '.join(runs.TRAINER)}.")
    recipe = runs.recipe_of(parser, options)
    losses = runs.train(folder, options, recipe)
    took, last = time.perf_counter() - start, losses[-100:].mean()
    print(f"{folder}: {recipe.steps} steps in {took:.0f} s, loss {last:.4g} (mean of the last {min(100, len(losses))})")
    print(f"Next: ddpm sample {folder}, or ddpm evaluate {folder}")


def sample(arguments: Sequence[str]) -> None:
    """Draw signals from a model. Writes samples.npz and a picture, samples.png, into the folder of the run
    (for the model that ships: into this folder), or where --out says.

      ddpm sample                                             wavelets, from the model that ships
      ddpm sample runs/first --n 1000 --seed 7 --out more.npz
      ddpm sample runs/first --steps 50 --sampler ddpm_lib.heun
      ddpm sample runs/first --n 100000 --part 2/8            the second of eight parts, for eight processes

    In Python: numpy.load("samples.npz")["signals"] has shape (n, channels, length); seed, steps, sampler and
    fingerprint (of the recipe) say how to draw the same again.
    """
    options = _options(sample, arguments, samples=16)
    part_of(options.n, options.part)  # a wrong one is told before anything is written
    name = "samples.npz" if options.part == "1/1" else f"samples-{options.part.replace('/', '-of-')}.npz"
    out = output_path(Path(options.out or Path(options.model or "", name)), ".npz", options.overwrite)
    beside = out.with_suffix(".png")
    free(beside, options.overwrite)
    run = runs.run_of(options.model)
    with atomic_write(out) as file:  # opened first: a full or read-only disk is told before the work
        x = _draw(run, options)
        if isinstance(run.recipe.family, Signals):
            x = run.recipe.family.restore(x)
        np.savez(file, signals=x.numpy(), fingerprint=run.fingerprint, **_how(options))
    drawn = picture(x, getattr(run.recipe.family, "x", torch.arange(x.shape[-1])), beside)
    print(f"{out}{f', {beside}' if drawn else ''}: {len(x)} signals of {run.name}")


def evaluate(arguments: Sequence[str]) -> None:
    """How far is a model from perfect? Its loss on fresh signals over the smallest possible one, where that is known,
    and the scores of its samples, each beside what as many real signals score. Intervals are 95 %. Writes no file.

      ddpm evaluate                                           the model that ships
      ddpm evaluate runs/first --n 2000 --json                one JSON line, for programs
    """
    options = _options(evaluate, arguments, samples=512)
    if options.draws < 2:
        raise ValueError(f"A loss with an interval needs at least 2 --draws, got {options.draws}.")
    run = runs.run_of(options.model)
    exact, drawn = evaluation.oracle(run.recipe), evaluation.fresh(run.recipe, options.draws)
    loss = mean_loss(run.denoiser, *drawn)
    ratio = None if isinstance(exact, str) else loss_over_floor(run.denoiser, exact, *drawn)
    if ratio is not None and not math.isfinite(ratio.value):
        exact, ratio = "The smallest possible loss is 0: these signals can be told apart through all noise.", None
    scored = evaluation.scores(run.recipe, _draw(run, options), isinstance(exact, FamilyOracle))
    if options.json:
        said: dict[str, Any] = {"model": run.name, "fingerprint": run.fingerprint, "loss": loss._asdict()}
        said |= {"loss_over_floor": ratio and ratio._asdict(), "samples": options.n, **_how(options)}
        print(json.dumps({**said, "scores": {name: score._asdict() for name, score in scored.rows.items()}}))
        return
    best = "knows them by heart" if isinstance(run.recipe.family, Finite) else "is exact"
    print(f"{run.name}: {run.recipe.family}")
    print(f"loss             {loss} on {options.draws} fresh signals")
    print(f"loss over floor  {f'{ratio}; 1 is a denoiser that {best}' if ratio else f'not known. {exact}'}")
    print(f"\n{options.n} samples, {options.steps} steps of {options.sampler.__name__}\n{scored}")


def export(arguments: Sequence[str]) -> None:
    """Write the weights of a model for programs that have no torch, as one file, weights.safetensors.

    It goes into the folder of the run (for the model that ships: into this folder), or where --out says.

      ddpm export runs/first --out page/weights.safetensors

    The tensors are those of the network, network.NAME (float32), and log_alpha_bar (float64) of the schedule, t = 0…T.
    The header's __metadata__.card is JSON: recipe (its fingerprint), shape of a signal, network in words, what it
    predicts, and for signals from a file mean and scale of each channel: the network sees (signal - mean) / scale.

    In Python, with numpy:

      weights = safetensors.numpy.load_file("weights.safetensors")

    In JavaScript (log_alpha_bar is a Float64Array):

      const file = await (await fetch("weights.safetensors")).arrayBuffer(), view = new DataView(file);
      const start = 8 + view.getUint32(0, true), header = JSON.parse(new TextDecoder().decode(file.slice(8, start)));
      const tensor = (name) => new Float32Array(file.slice(...header[name].data_offsets.map((at) => start + at)));
    """
    options = _options(export, arguments)
    path = Path(options.out or Path(options.model or "", "weights.safetensors"))
    out = output_path(path, ".safetensors", options.overwrite)
    run = runs.run_of(options.model)
    family, network = run.recipe.family, run.denoiser.network
    card = {"recipe": run.fingerprint, "shape": signal_shape(family), "network": repr(network), **scale_of(family)}
    export_weights(run.denoiser, out, **card, predicts=type(run.recipe.parametrisation).__name__)
    tensors = network.state_dict().values()
    print(f"{out}: {sum(v.numel() for v in tensors):,} numbers in {len(tensors)} tensors, and log_alpha_bar")


def _options(command: Callable[..., None], arguments: Sequence[str], samples: int = 0) -> Namespace:
    """The options of a command that takes a model, and draws so many samples from it."""
    parser = _parser(command, "[FOLDER] [--NAME VALUE ...]")
    add = parser.add_argument
    add("model", nargs="?", metavar="FOLDER", help="a run of ddpm fit; without it, the model that ships")
    if samples:
        add("--n", type=int, default=samples, help="how many samples")
        add("--steps", type=int, default=20, help="steps of the sampler")
        add("--sampler", type=Callable, default=dpmpp_2m_sde, help="by its path, such as ddpm_lib.heun")
        add("--seed", type=int, default=0, help="the same seed, the same samples")
        add("--device", default="cpu", help="where to compute: cpu, cuda, mps")
    if command is sample:
        add("--part", default="1/1", help="K/N draws the K-th of N parts of the n; joined in order, they are the whole")
    if command is evaluate:
        add("--draws", type=int, default=2048, help="fresh signals that the loss is measured on")
        add("--json", action="store_true", help="print one JSON line instead of a table")
    else:
        add("--out", help="the file to write, instead of one in FOLDER")
        add("--overwrite", action="store_true", help="write over files that are there")
    options = parser.parse_args(arguments)
    if samples and options.n < 1:
        raise ValueError(f"The number of samples must be at least 1, got {options.n}.")
    return options


def _how(options: Namespace) -> dict[str, Any]:
    """How samples were drawn, to draw them again."""
    step = options.sampler
    return {"seed": options.seed, "steps": options.steps, "sampler": f"{step.__module__}.{step.__qualname__}"}


def _draw(run: runs.Run, options: Namespace) -> Tensor:
    """Samples (n, C, L), at the scale that the model was trained at."""
    generator = torch.Generator().manual_seed(options.seed)
    denoiser, shape = run.denoiser.to(options.device), (options.n, *signal_shape(run.recipe.family))
    rows = part_of(options.n, options.get("part", "1/1"))
    *_, x = walk_down(denoiser, shape, options.steps, options.sampler, generator, options.device, rows=rows)
    run.denoiser.cpu()
    if not torch.isfinite(x).all():
        raise ValueError(f"{run.name} draws NaN or infinity: take another sampler or more steps, or train it longer.")
    return x.cpu()


COMMANDS = {command.__name__: command for command in (fit, sample, evaluate, export)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, or 2 after one sentence on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    name, *rest = [argument for argument in given if argument != "--debug"] or ["--help"]
    if name in ("-h", "--help", "--version"):
        print(f"ddpm_lib {__version__}" if name == "--version" else __doc__)
        return 0
    if os.getcwd() not in sys.path:  # a reader's own my_module.py is found, however this was started
        sys.path.insert(0, os.getcwd())

    def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not category.__module__.startswith(("lightning", "jsonargparse")):
            print(f"ddpm {name}: {message}", file=sys.stderr)

    log, handler = logging.getLogger("ddpm_lib"), logging.Handler()
    handler.emit = lambda record: tell(record.getMessage(), UserWarning)  # type: ignore[method-assign]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.showwarning = tell
        try:
            if name not in COMMANDS:
                raise ValueError(f"there is no such command. There are {', '.join(COMMANDS)}: see ddpm --help.")
            COMMANDS[name](rest)
        except KeyboardInterrupt as stop:
            print(f"\nddpm {name}: stopped. {stop}", file=sys.stderr)
            return 130
        except Exception as error:
            if debug:
                traceback.print_exc()
            print(f"ddpm {name}: {runs.sentence(error)}", file=sys.stderr)
            return 2
        finally:
            log.removeHandler(handler)
    return 0
