"""Diffusion models on signals whose exact answer is known.

  ddpm fit FOLDER         train a recipe; the folder then holds the run
  ddpm sample [FOLDER]    draw signals from the model of a run: an .npz and a picture
  ddpm evaluate [FOLDER]  compare it with a perfect model: loss over floor, scores of its samples
  ddpm export [FOLDER]    write its weights for programs without torch

Without FOLDER a command uses the model that comes with the package: begin with ddpm sample.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from ..sampling import loop
from ..sampling.steps import dpmpp_2m_sde
from ..signals.files import Signals
from ..signals.finite import Finite
from ..signals.source import signal_shape
from ..training.atomic import atomic_write
from ..training.distributed import part_slice
from . import runs
from .output import export_weights, output_path, plot_signals, refuse_to_overwrite, scale_of

Command = Callable[[Sequence[str]], None]
OPTIONS: dict[str, dict[str, Any]] = {
    "folder": dict(nargs="?", metavar="FOLDER", help="a run of ddpm fit; without it, the model that ships"),
    "--n": dict(type=int, help="number of samples"),
    "--steps": dict(type=int, default=20, help="steps of the sampler"),
    "--sampler": dict(type=Callable, default=dpmpp_2m_sde, help="by its path, such as ddpm_lib.heun"),
    "--seed": dict(type=int, default=0, help="the same seed, the same samples"),
    "--device": dict(default="cpu", help="where to compute: cpu, cuda, mps"),
    "--part": dict(default="1/1", help="K/N draws the K-th of N parts of the n; joined in order, they are the whole"),
    "--draws": dict(type=int, default=2048, help="fresh signals that the loss is measured on"),
    "--json": dict(action="store_true", help="print one JSON line instead of a table"),
    "--out": dict(help="the file to write, instead of one in FOLDER"),
    "--overwrite": dict(action="store_true", help="overwrite existing files"),
}
"""The options of the commands that use a model."""

SAMPLING = ("--n", "--steps", "--sampler", "--seed", "--device")
OUTPUT = ("--out", "--overwrite")


def fit(arguments: Sequence[str]) -> None:
    """Train a recipe.

    FOLDER then holds the run: config.yaml (all options), model.safetensors (the weights), last.ckpt (to resume from),
    and signals.npy where the signals came from a file.

      ddpm fit runs/first --recipe.steps 300                  the book's wavelets; quick, and not yet good
      ddpm fit runs/chirps --recipe.family Chirp --recipe.family.length 64
      ddpm fit runs/mine --recipe.family Signals --recipe.family.path my.npy       signals of your own
      ddpm fit runs/own --recipe.family my_module.MyFamily    a class of my_module.py in this folder
      ddpm fit runs/cosine --recipe.schedule ddpm_lib.cosine --recipe.sizes.width 16
      ddpm fit runs/first --resume                            resume a run that was stopped
      ddpm fit runs/again --config runs/first/config.yaml     the same run again
      ddpm fit runs/exact --threads 2                         equal to the bit each time, on one machine

    Families, schedules (ddpm_lib.linear, cosine, sigmoid, quadratic, log_linear, straight), what the network predicts
    (ddpm_lib.Eps, X0, V, U) and networks are named by their path. --recipe.family.help Signals lists its options.
    --print_config prints all options as YAML, to edit and give to --config, and trains nothing.
    DDPM_DEVICE=cpu (or cuda, mps) chooses the device, DDPM_PROGRESS=0 turns the progress bar off.
    """
    parser = _parser(fit, "FOLDER [--config FILE] [--recipe.NAME VALUE ...] [--trainer.NAME VALUE ...]")
    parser.add_argument("folder", help="the folder of the run")
    parser.add_argument("--config", action="config", help="a YAML file of options; those after it override it")
    parser.add_argument("--resume", action="store_true", help="continue from last.ckpt of the folder, with its config")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    runs.add_recipe_options(parser)
    options = runs.parse(parser, arguments)
    start = time.perf_counter()
    folder = Path(options.folder)
    if options.resume:
        config = folder / runs.CONFIG
        if not config.is_file():
            raise FileNotFoundError(f"There is nothing to resume: {folder} has no {runs.CONFIG}.")
        options = runs.parse(parser, ["--config", str(config), *arguments])
    for name in sorted(options.trainer):
        if name not in runs.TRAINER:
            raise ValueError(f"--trainer.{name} cannot be chosen. What can: {', '.join(runs.TRAINER)}.")
    recipe = runs.build_recipe(parser, options)
    losses = runs.train(folder, options, recipe)
    seconds, last = time.perf_counter() - start, losses[-100:]
    print(f"{folder}: {recipe.steps} steps in {seconds:.0f} s, loss {last.mean():.4g} (mean of the last {len(last)})")
    print(f"Next: ddpm sample {folder}, or ddpm evaluate {folder}")


def sample(arguments: Sequence[str]) -> None:
    """Draw signals from a model.

    Writes samples.npz and a picture, samples.png, into the folder of the run (for the model that ships: into this
    folder), or where --out says.

      ddpm sample                                             wavelets, from the model that ships
      ddpm sample runs/first --n 1000 --seed 7 --out more.npz
      ddpm sample runs/first --steps 50 --sampler ddpm_lib.heun
      ddpm sample runs/first --n 100000 --part 2/8            the second of eight parts, for eight processes

    In Python: numpy.load("samples.npz")["signals"] has shape (n, channels, length); seed, steps, sampler and
    fingerprint (of the recipe) are what it takes to draw the same again.
    """
    options = _options(sample, arguments, [*SAMPLING, "--part", *OUTPUT], n=16)
    part_slice(options.n, options.part)  # raises before any work
    name = "samples.npz" if options.part == "1/1" else f"samples-{options.part.replace('/', '-of-')}.npz"
    out = output_path(options.out, options.folder, name, options.overwrite)
    image = out.with_suffix(".png")
    refuse_to_overwrite(image, options.overwrite)
    run = runs.load_run(options.folder)
    family = run.recipe.family
    with atomic_write(out) as file:  # opened first: a full or read-only disk is noticed before the work
        x = _draw(run, options)
        if isinstance(family, Signals):
            x = family.restore(x)
        np.savez(file, signals=x.numpy(), fingerprint=run.fingerprint, **_settings(options))
    positions = getattr(family, "x", torch.arange(x.shape[-1]))
    files = f"{out}, {image}" if plot_signals(x, positions, image) else f"{out}"
    print(f"{files}: {len(x)} signals of {run.name}")


def evaluate(arguments: Sequence[str]) -> None:
    """Compare a model with a perfect one.

    Prints its loss on fresh signals over the smallest possible one, where that is known, and the scores of its
    samples, each beside the score of as many real signals. Intervals are 95 %. Writes no file.

      ddpm evaluate                                           the model that ships
      ddpm evaluate runs/first --n 2000 --json                one JSON line, for programs
    """
    options = _options(evaluate, arguments, [*SAMPLING, "--draws", "--json"], n=512)
    if options.draws < 2:
        raise ValueError(f"A loss with an interval needs at least 2 --draws, got {options.draws}.")
    run = runs.load_run(options.folder)
    family, exact = run.recipe.family, evaluation.oracle(run.recipe)
    x0, t, eps = evaluation.held_out(run.recipe, options.draws)
    loss = mean_loss(run.denoiser, x0, t, eps)
    ratio = None if isinstance(exact, str) else loss_over_floor(run.denoiser, exact, x0, t, eps)
    if ratio is not None and not math.isfinite(ratio.value):
        ratio, exact = None, "The smallest possible loss is 0: these signals can be distinguished through all noise."
    scored = evaluation.quality_of_samples(run.recipe, _draw(run, options), isinstance(exact, FamilyOracle))
    if options.json:
        over_floor = None if ratio is None else ratio._asdict()
        result: dict[str, Any] = {"model": run.name, "fingerprint": run.fingerprint, "loss": loss._asdict()}
        result |= {"loss_over_floor": over_floor, "samples": options.n, **_settings(options)}
        result |= {"scores": {name: score._asdict() for name, score in scored.rows.items()}}
        print(json.dumps(result))
        return
    best = "knows them by heart" if isinstance(family, Finite) else "is exact"
    floor = f"not known. {exact}" if ratio is None else f"{ratio}; 1 is a denoiser that {best}"
    print(f"{run.name}: {family}")
    print(f"loss             {loss} on {options.draws} fresh signals")
    print(f"loss over floor  {floor}")
    print(f"\n{options.n} samples, {options.steps} steps of {options.sampler.__name__}\n{scored}")


def export(arguments: Sequence[str]) -> None:
    """Write the weights of a model for programs that have no torch.

    Writes weights.safetensors into the folder of the run (for the model that ships: into this folder), or where --out
    says.

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
    options = _options(export, arguments, OUTPUT)
    out = output_path(options.out, options.folder, "weights.safetensors", options.overwrite)
    run = runs.load_run(options.folder)
    family, network = run.recipe.family, run.denoiser.network
    card = {"recipe": run.fingerprint, "shape": signal_shape(family), "network": repr(network)}
    card |= {"predicts": type(run.recipe.parametrisation).__name__, **scale_of(family)}
    export_weights(run.denoiser, out, card)
    sizes = [value.numel() for value in network.state_dict().values()]
    print(f"{out}: {sum(sizes):,} numbers in {len(sizes)} tensors, and log_alpha_bar")


COMMANDS = {command.__name__: command for command in (fit, sample, evaluate, export)}


class _Format(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Examples keep their lines."""


def _parser(command: Command, usage: str) -> ArgumentParser:
    """Make the parser of a command, with its docstring as help."""
    name = f"ddpm {command.__name__}"
    about = cleandoc(str(command.__doc__))
    return ArgumentParser(
        prog=name, usage=f"{name} {usage}", description=about, exit_on_error=False, formatter_class=_Format
    )


def _options(command: Command, arguments: Sequence[str], names: Sequence[str], **defaults: Any) -> Namespace:
    """Parse the arguments of a command that uses a model and has these options."""
    parser = _parser(command, "[FOLDER] [--NAME VALUE ...]")
    for name in ("folder", *names):
        parser.add_argument(name, **OPTIONS[name])
    parser.set_defaults(defaults)
    options = parser.parse_args(arguments)
    if "--n" in names and options.n < 1:
        raise ValueError(f"The number of samples must be at least 1, got {options.n}.")
    return options


def _settings(options: Namespace) -> dict[str, Any]:
    """Return what it takes, beside the model, to draw the same samples again."""
    step = options.sampler
    return {"seed": options.seed, "steps": options.steps, "sampler": f"{step.__module__}.{step.__qualname__}"}


def _draw(run: runs.Run, options: Namespace) -> Tensor:
    """Draw samples (n, C, L), at the scale of training."""
    shape = (options.n, *signal_shape(run.recipe.family))
    generator = torch.Generator().manual_seed(options.seed)
    denoiser = run.denoiser.to(options.device)
    rows = part_slice(options.n, options.get("part", "1/1"))
    *_, x = loop.sample(denoiser, shape, options.steps, options.sampler, generator, options.device, rows=rows)
    run.denoiser.cpu()
    if not torch.isfinite(x).all():
        raise ValueError(f"{run.name} draws NaN or infinity: take another sampler or more steps, or train it longer.")
    return x.cpu()


@contextmanager
def _messages_on_stderr(name: str) -> Iterator[None]:
    """Print warnings, and what the library logs, as one line each."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not category.__module__.startswith(("lightning", "jsonargparse")):
            print(f"ddpm {name}: {message}", file=sys.stderr)

    log, handler = logging.getLogger("ddpm_lib"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"ddpm {name}: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 2 after an error, 130 after an interrupt."""
    given = sys.argv[1:] if arguments is None else arguments
    name, *rest = [argument for argument in given if argument != "--debug"] or ["--help"]
    if name == "--version":
        print(f"ddpm_lib {__version__}")
        return 0
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if os.getcwd() not in sys.path:  # so that my_module.py of the current folder is found, however this was started
        sys.path.insert(0, os.getcwd())
    with _messages_on_stderr(name):
        try:
            if name not in COMMANDS:
                raise ValueError(f"there is no such command. There are {', '.join(COMMANDS)}: see ddpm --help.")
            COMMANDS[name](rest)
        except KeyboardInterrupt as stop:
            print(f"\nddpm {name}: stopped. {stop}", file=sys.stderr)
            return 130
        except Exception as error:
            if "--debug" in given:
                traceback.print_exc()
            print(f"ddpm {name}: {runs.error_message(error)}", file=sys.stderr)
            return 2
    return 0
