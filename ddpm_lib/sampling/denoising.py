"""Denoising as a task: a signal with noise of known size, and the one that was there before (chapter `noisy_data`).

y = x_0 + σ·n is an x_t in other units: x_t = √ᾱ_t·y at the time at which √(1-ᾱ_t)/√ᾱ_t = σ. So a denoiser answers it
in one step, with the mean of all signals that y could have been, and the second half of a sampler with one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_count, check_signals
from ..diffusion.denoiser import DenoiserLike, Prediction
from ..diffusion.schedules import noise_time
from ..shapes import Float
from .grids import TILT, even_log_snr
from .loop import sample
from .steps import Step, dpmpp_2m_sde

__all__ = ["denoise", "posterior_draws"]


def denoise(denoiser: DenoiserLike, y: Float[Tensor, "B C L"], sigma: float) -> Prediction:
    """E[x_0 | y] in one step: the best guess in mean square, and the estimate of the noise n that belongs to it.

    Args:
        denoiser: a `Denoiser` or an oracle.
        y: x_0 + σ·n with n ~ N(0, I).
        sigma: σ, within what the schedule knows (see `noise_time`).

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> denoise(exact, torch.ones(1, 1, 4), 0.5).x0  # unit power: y/(1 + σ²)
    tensor([[[0.8000, 0.8000, 0.8000, 0.8000]]])
    """
    xt, t = _as_xt(denoiser, check_signals(y, "y"), sigma)
    return denoiser(xt, t)


def posterior_draws(
    denoiser: DenoiserLike,
    y: Float[Tensor, "B C L"],
    sigma: float,
    n: int = 1,
    steps: int = 20,
    step: Step = dpmpp_2m_sde,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B n C L"]:
    """n signals that y could have been, from the distribution of x_0 given y.

    The sampler starts from x_t itself, at the time that y's noise belongs to, and goes on from there. The draws of one
    signal share their start and nothing else.

    Args:
        denoiser, y, sigma: as for `denoise`.
        n: draws of each signal.
        steps: of the sampler, spaced from that time to 0 as `sample` spaces its own.
        step: of the sampler. One that adds no noise always finds the same signal, and that is no draw.
        generator: a CPU generator.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> posterior_draws(exact, torch.ones(2, 1, 4), 0.5, n=3).shape
    torch.Size([2, 3, 1, 4])
    """
    xt, t = _as_xt(denoiser, check_signals(y, "y"), sigma)
    schedule = denoiser.schedule
    start = xt.repeat_interleave(check_count(n, "The number of draws", high=10**6), 0)
    # so near to the first time there is nothing between it and 0
    times = even_log_snr(schedule, steps, TILT, start=t) if t > 1.01 else [t, 0.0]
    rows, channels, length = start.shape
    *_, x0 = sample(denoiser, (rows, channels, length), times, step, generator, start.device, start)
    return x0.view(len(y), n, channels, length)


def _as_xt(denoiser: DenoiserLike, y: Float[Tensor, "B C L"], sigma: float) -> tuple[Float[Tensor, "B C L"], float]:
    """y as the x_t that it is, and its t."""
    t = noise_time(denoiser.schedule, sigma)
    return denoiser.schedule(torch.tensor([t], dtype=torch.float64), y.dtype)[0].to(y.device) * y, t
