"""A trained denoiser for the built page: one script with the weights and the JavaScript that computes with them.

A page loads it when the reader asks for it and not before, by a script element, which also works from disk. The
JavaScript is that of `PARTS`, plain scripts put together in this order.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, Eps
from ..networks.skip import LinearSkip
from ..networks.unet import UNet1D
from ..sampling.grids import TILT
from ..signals.family import Family
from ..signals.wavelets import BenchmarkMorlet

__all__ = ["manifest", "script", "script_name"]


HERE = Path(__file__).with_name("js")


PARTS = ("noise.js", "unet.js", "samplers.js", "morlet_fit.js", "sampler_worker.js")


def _network(denoiser: Denoiser) -> tuple[LinearSkip, UNet1D]:
    """The two parts of the network, or one sentence on why the page cannot compute it."""
    skip = denoiser.network
    if not (
        isinstance(skip, LinearSkip) and isinstance(skip.network, UNet1D) and isinstance(denoiser.parametrisation, Eps)
    ):
        raise ValueError(
            "The page computes a LinearSkip around a UNet1D with Eps() and nothing else, "
            f"got {type(skip).__name__} with {type(denoiser.parametrisation).__name__}."
        )
    return skip, skip.network


def manifest(denoiser: Denoiser, family: Family) -> dict[str, Any]:
    """What the JavaScript needs of a model besides its weights: names and shapes, schedule, family.

    Raises:
        ValueError: a denoiser that the page cannot compute, or another family than the benchmark's, whose formula is
            the only one that the page knows.
    """
    skip, net = _network(denoiser)
    if not isinstance(family, BenchmarkMorlet):
        raise ValueError(f"The page knows the formula of BenchmarkMorlet alone, got {type(family).__name__}.")
    cell = family.grid(8192)[1]
    schedule = denoiser.schedule
    return {
        "tensors": [(name, tuple(tensor.shape)) for name, tensor in skip.state_dict().items()],
        "channels": len(skip.wiener.mean),
        "position": bool(net.position),
        "bridges": bool(net.bridges),
        "size": skip.size,
        "tilt": TILT,
        "log_alpha_bar": schedule.log_alpha_bar(torch.arange(schedule.T + 1)).tolist(),
        "family": {
            "names": family.names,
            "low": family.low.tolist(),
            "high": family.high.tolist(),
            "x": family.x.tolist(),
            "cells": ((family.high - family.low) / cell).round().int().tolist(),
        },
    }


def script_name(denoiser: Denoiser) -> str:
    """Name of the script of a model, the same for two trainings of one network."""
    shapes = {name: tuple(tensor.shape) for name, tensor in _network(denoiser)[1].state_dict().items()}
    return f"model-{hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()[:10]}.js"


def weights(denoiser: Denoiser) -> bytes:
    """All tensors of the network in the order of the manifest, as little-endian float32."""
    flat = torch.cat([tensor.detach().flatten().float() for tensor in denoiser.network.state_dict().values()])
    return flat.cpu().numpy().astype("<f4").tobytes()


def source() -> str:
    """The JavaScript of the worker that samples."""
    return "\n".join((HERE / part).read_text("utf-8") for part in PARTS)


def script(denoiser: Denoiser, family: Family) -> str:
    """The script that gives the page a model: ``globalThis.ddpmModels[name] = {source, manifest, weights}``."""
    model = {
        "source": source(),
        "manifest": manifest(denoiser, family),
        "weights": base64.b64encode(weights(denoiser)).decode(),
    }
    return f"(globalThis.ddpmModels ??= {{}})[{json.dumps(script_name(denoiser))}] = {json.dumps(model)};\n"
