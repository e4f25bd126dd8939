"""A run in a folder: its options as YAML, its weights, and the way back from them to the model.

``config.yaml`` holds all options, enough to repeat the run; ``model.safetensors`` the averaged weights; ``last.ckpt``
what is needed to resume; ``signals.npy`` the signals, where they came from a file. The config names classes and
functions, which are imported: open runs of people you trust.

`train` is `Recipe` and `fit` and nothing else, so there is one way to train. LightningCLI would be a second: it builds
a LightningModule and its data from options, where here both follow from the recipe.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from .. import __version__
from ..diffusion.denoiser import Denoiser
from ..diffusion.forward import q_sample
from ..diffusion.losses import simple
from ..measures.evaluation import held_out, oracle
from ..measures.loss import loss_over_floor, predicted_noise
from ..networks.skip import by_linear_error, linear_skip
from ..signals import families  # noqa: F401  # so that jsonargparse knows their names
from ..signals.augmentation import Augmented
from ..signals.family import Family
from ..signals.files import Signals
from ..signals.finite import Finite
from ..signals.mixture import Mixture
from ..signals.noisy import Noisy
from ..training import store
from ..training.atomic import atomic_write
from ..training.recipe import Recipe, shipped_recipe
from .output import print_scale, refuse_to_overwrite, scale_of

__all__ = ["Run", "add_recipe_options", "build_recipe", "error_message", "load_run", "parse", "train"]


CONFIG, MODEL, LAST = "config.yaml", "model.safetensors", "last.ckpt"
FAMILY = "--recipe.family"
TRAINER = (
    "accelerator", "benchmark", "detect_anomaly", "deterministic", "devices", "num_nodes", "plugins", "precision",
    "profiler", "strategy", "sync_batchnorm",
)  # fmt: skip
"""The options of Lightning's Trainer that can be chosen; the others follow from the recipe."""


def add_recipe_options(parser: ArgumentParser) -> None:
    """Add the options that a config file holds: the recipe, and what goes to Lightning."""
    parser.add_class_arguments(Recipe, "recipe", skip={"family", "network", "density", "weight"}, instantiate=False)
    for name, path in (("schedule", "ddpm_lib.linear"), ("parametrisation", "ddpm_lib.Eps")):
        parser.set_defaults({f"recipe.{name}": {"class_path": path}})
    add = parser.add_argument
    add(
        FAMILY,
        type=Family | Finite | Noisy | Augmented | Mixture | None,
        help="what to draw signals from; BenchmarkMorlet by default",
    )
    add("--recipe.network", type=Callable, default=linear_skip, help="function (family, seed, **sizes) → network")
    add("--recipe.sizes", type=dict[str, Any], default={}, help="of the network, such as --recipe.sizes.width 16")
    density = "function (network, schedule) → how often each t is drawn"
    add("--recipe.density", type=Callable, default=by_linear_error, help=density)
    weight = "function (schedule, t) → weight of the square error of x0, such as ddpm_lib.min_snr or ddpm_lib.vlb"
    add("--recipe.weight", type=Callable, default=simple, help=weight)
    trainer = f"to Lightning's Trainer, such as --trainer.devices 2: {', '.join(TRAINER)}"
    add("--trainer", type=dict[str, Any], default={}, help=trainer)
    add("--workers", type=int, default=0, help="processes that draw batches ahead; the batches stay the same")
    threads = "number of threads; by default torch's, and fewer while other programs use the cores"
    add("--threads", type=int | None, default=None, help=threads)


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse the command line.

    Where a class is named, jsonargparse keeps the options of the class before it that have the same name, defaults
    too. The length or shift of one family means nothing to another: null in between clears them.
    """
    cleared: list[str] = []
    names = [argument.split("=")[0] for argument in arguments]
    for name, argument in zip(names, arguments, strict=True):
        cleared += [FAMILY, "null", argument] if name == FAMILY else [argument]
    if FAMILY in names or "--config" in names:
        options = parser.parse_args(cleared)
        if options.recipe.family is not None:
            return options
    return parser.parse_args([FAMILY, "BenchmarkMorlet", *cleared])


def build_recipe(parser: ArgumentParser, options: Namespace) -> Recipe:
    """Build the recipe that options describe."""
    fields = dict(vars(parser.instantiate(options).recipe))
    sizes = fields.pop("sizes")
    if sizes:
        fields["network"] = partial(fields["network"], **sizes)
    return Recipe(**fields)


def error_message(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    text = str(error) or type(error).__name__
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    if re.search("Parser key|Union subtypes", text):  # jsonargparse lists all it tried: the last line is the reason
        noise = "Does not|Subtypes:|Errors:|Given v|Problem with|Import path|Expected.*NoneType|Parser key [^ ]*:$"
        reasons = [re.sub('Parser key "[^"]*": ', "", line) for line in lines if not re.match(noise, line)]
        option = ".".join(re.findall('Parser key "([^"]*)"', text))
        reason = (reasons or lines)[-1]
        return f"--{option}: {reason}" if option else reason
    if text.startswith("Problems parsing config"):
        return " ".join(lines)  # the place in the file stands on lines of its own
    expected = (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ArgumentError)
    return lines[0] if isinstance(error, expected) else f"{type(error).__name__}: {lines[0]} (--debug shows where)"


def prepare(folder: Path, options: Namespace, recipe: Recipe) -> None:
    """Write config and signals into the folder before training, so that a full or read-only disk is noticed at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / CONFIG
    existing = [folder / MODEL, folder / LAST]
    if config.exists() and not config.read_bytes().startswith(b"# ddpm_lib"):
        existing.append(config)  # of another program; one of ours, without weights, is of a run that failed early
    for path in existing:
        refuse_to_overwrite(path, options.overwrite, "add --resume or --overwrite, or name another folder")
        path.unlink(missing_ok=True)
    kept = {name: options[name] for name in ("trainer", "workers", "threads")}
    saved = Namespace(recipe=options.recipe.clone(), **kept)
    if isinstance(recipe.family, Signals):
        signals = folder / "signals.npy"
        if not (signals.exists() and signals.samefile(recipe.family.path)):
            with atomic_write(signals) as file:
                np.save(file, recipe.family.raw.numpy())
        saved.recipe.family.init_args.path = signals.name
    parser = ArgumentParser()
    add_recipe_options(parser)
    head = f"# ddpm_lib {__version__}, torch {torch.__version__}. Repeat it: ddpm fit FOLDER --config {CONFIG}\n"
    with atomic_write(config) as file:
        file.write((head + parser.dump(saved, skip_validation=True)).encode())


def train(folder: Path, options: Namespace, recipe: Recipe) -> Tensor:
    """Train a recipe with `fit`, store the model in the folder, and return the losses (steps,).

    On several devices this runs once for each; all processes but the first exit here.
    """
    from lightning.pytorch.utilities import rank_zero_only  # Lightning takes seconds to import

    from ..training import loop

    first = not rank_zero_only.rank  # type: ignore[attr-defined]
    if first:
        print_scale(recipe.family, recipe.schedule)
        if not options.resume:
            prepare(folder, options, recipe)
    bar = [_over_floor(recipe)] if first and loop._progress() else []
    others = dict(resume=options.resume, workers=options.workers, threads=options.threads, callbacks=bar)
    try:
        run = loop.fit(recipe, folder, **others, **options.trainer)
    except SystemExit as stop:  # Lightning's answer to an interrupt
        raise KeyboardInterrupt(f"Go on with: ddpm fit {folder} --resume") from stop
    except ConnectionError as error:
        raise ConnectionError(f"{error} Go on with: ddpm fit {folder} --resume") from error
    if not first:
        sys.exit()
    store.save(run, folder / MODEL, **store.card(recipe), **scale_of(recipe.family))
    return run.losses


def _over_floor(recipe: Recipe) -> Any:
    """A callback that shows, ten times a run, the loss over the floor of the averaged weights beside the bar."""
    from lightning.pytorch.callbacks import Callback, LambdaCallback

    exact = oracle(recipe)
    if isinstance(exact, str):
        return Callback()
    x0, t, eps = held_out(recipe, 256)
    noise = predicted_noise(exact, q_sample(x0, t, eps, recipe.schedule), t)

    def show(trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step % max(1, recipe.steps // 10):
            return
        ratio = loss_over_floor(module.average.eval(), *(x.to(module.device) for x in (noise, x0, t, eps)))
        module.log("over floor", ratio.value, prog_bar=True, logger=False)

    return LambdaCallback(on_train_batch_end=show)


class Run(NamedTuple):
    """A trained model: its name, its recipe, the denoiser, and the fingerprint of the recipe."""

    name: str
    recipe: Recipe
    denoiser: Denoiser
    fingerprint: str


def load_run(folder: str | None) -> Run:
    """Load the model of a run, or the one that comes with the package.

    Raises:
        FileNotFoundError: the folder holds no run, or one that is not finished.
        ValueError: a file that is damaged, or a config that is not the one of the weights.
    """
    if folder is None:
        name, recipe, file = "the model that ships", shipped_recipe(), store.SHIPPED / "benchmark.safetensors"
    else:
        name, file, config = folder, Path(folder, MODEL), Path(folder, CONFIG)
        if not config.is_file():
            raise FileNotFoundError(f"{folder} holds no run: it has no {CONFIG}. Make one: ddpm fit {folder}")
        if not file.is_file():
            raise FileNotFoundError(f"The run in {folder} is not finished. Go on with it: ddpm fit {folder} --resume")
        parser = ArgumentParser(exit_on_error=False)
        add_recipe_options(parser)
        recipe = build_recipe(parser, parser.parse_path(config))
    denoiser = recipe.build()
    card, _ = store.read_into(denoiser, file)
    fingerprint = recipe.fingerprint()
    if card.get("recipe") != fingerprint:
        raise ValueError(f"{file} is not of the {CONFIG} beside it: that, or what it names, has changed since.")
    return Run(name, recipe, denoiser.eval(), fingerprint)
