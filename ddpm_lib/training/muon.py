"""Muon for the kernels of convolutions, AdamW for everything else (chapter `training`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..shapes import Float

__all__ = ["Muon", "orthogonal"]


def orthogonal(g: Float[Tensor, "n rows columns"], iterations: int = 5) -> Float[Tensor, "n rows columns"]:
    """Matrices → about U·Vᵀ of their singular value decomposition U·S·Vᵀ.

    The quintic Newton-Schulz iteration of Jordan et al. 2024: every singular value moves towards 1, and stays
    within some 40 % of it, which is near enough.

    >>> u = orthogonal(torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0)), iterations=8)
    >>> bool((torch.linalg.svdvals(u) - 1).abs().max() < 0.4)
    True
    """
    x = g.mT if g.shape[1] > g.shape[2] else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        a = torch.bmm(x, x.mT)
        x = 3.4445 * x + torch.bmm(-4.7750 * a + torch.bmm(2.0315 * a, a), x)
    return x.mT if g.shape[1] > g.shape[2] else x


class Muon(torch.optim.Optimizer):
    """One optimiser with two rules: kernels take orthogonal steps, everything else takes AdamW's.

    A kernel (out, in, k) is a matrix (out, in·k). Adam scales each of its numbers by itself; Muon (Jordan et al. 2024)
    gives every *direction* of the matrix a step of the same length, so rare directions are learned as fast as
    common ones. ``torch.optim.Muon`` does the same and refuses kernels.

    Args:
        module: whose parameters to train.
        lr: of AdamW.
        kernel_lr: of the orthogonal steps.
        momentum: of the orthogonal steps (Nesterov's).
        betas, eps, weight_decay: of AdamW.
        is_kernel: (name, parameter) → whether it takes orthogonal steps; by default a convolution inside a network,
            that is one with more than one channel on both sides.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float = 2e-3,
        kernel_lr: float = 0.02,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        is_kernel: Callable[[str, Tensor], bool] = lambda name, p: p.ndim == 3 and min(p.shape[:2]) > 4,
    ):
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        kernels = [p for name, p in named if is_kernel(name, p)]
        others = [p for name, p in named if not is_kernel(name, p)]
        groups: list[dict[str, Any]] = [
            {"params": others, "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": 0},
            {"params": kernels, "lr": kernel_lr, "momentum": momentum},
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both rules; parameters without a gradient stay."""
        value = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._kernels if "momentum" in group else self._adamw)(group, params)
        return value

    def _memory(self, p: Tensor, name: str) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p)
        return state[name]

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        group["step"] += 1
        (b1, b2), lr, k = group["betas"], group["lr"], group["step"]
        grads = _grads(params)
        first = [self._memory(p, "first") for p in params]
        second = [self._memory(p, "second") for p in params]
        torch._foreach_lerp_(first, grads, 1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, grads, grads, 1 - b2)
        size = torch._foreach_div(second, 1 - b2**k)
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, group["eps"])
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(params, first, size, -lr / (1 - b1**k))

    def _kernels(self, group: dict[str, Any], params: list[Tensor]) -> None:
        momentum = group["momentum"]
        for shape in {p.shape: None for p in params}:  # kernels of one shape go through the iteration together
            same = [p for p in params if p.shape == shape]
            memory = [self._memory(p, "momentum") for p in same]
            torch._foreach_lerp_(memory, _grads(same), 1 - momentum)
            ahead = torch._foreach_lerp(_grads(same), memory, momentum)
            steps = orthogonal(torch.stack(ahead).flatten(2))
            # a tall matrix has longer columns: its step is scaled so that what it does to a signal is as large
            scale = max(1.0, shape[0] / shape[1:].numel()) ** 0.5
            torch._foreach_add_(same, list(steps.view(-1, *shape)), alpha=-group["lr"] * scale)


def _grads(params: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in params if p.grad is not None]
