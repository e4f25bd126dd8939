"""The exact answer, E[x_0 | x_t], for a parametric family: an integral over its box (chapter `best_denoiser`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_count, check_number
from ..diffusion.denoiser import Prediction
from ..diffusion.schedules import Schedule
from ..shapes import Float, Int, Time
from ..signals.family import Family
from .truncated_normal import TruncatedNormal

__all__ = ["FamilyOracle"]


class _Nodes(NamedTuple):
    """The posterior of some x_t, as a weighted sum over shapes; a scale of the shape, if any, is integrated exactly."""

    theta: Float[Tensor, "B K P"]  # parameters of the shapes
    shapes: Float[Tensor, "B K L"] | Float[Tensor, "K L"]  # the latter where all x_t share them
    weight: Float[Tensor, "B K"]  # sums to 1
    scale: TruncatedNormal | None
    evidence: Float[Tensor, "B"]  # log of the density of x_t


class _UnitScale(Family):
    """A family with the parameter that multiplies the signal fixed at 1."""

    def __init__(self, family: Family):
        self.whole, self.column = family, family.names.index(str(family.scale))
        limits = zip(family.names, family.low.tolist(), family.high.tolist(), strict=True)
        box = {name: (low, high) for name, low, high in limits if name != family.scale}
        super().__init__(box, family.length, (float(family.x[0]), float(family.x[-1])))

    def formula(self, x: Float[Tensor, "L"], *params: Float[Tensor, "n 1"]) -> Float[Tensor, "n L"]:
        return self.whole.formula(x, *params[: self.column], torch.ones_like(params[0]), *params[self.column :])


class FamilyOracle(nn.Module):
    """The exact denoiser of a parametric family, by quadrature over its box of parameters.

    E[x_0|x_t] = ∫ψ_θ·p(θ|x_t)dθ with p(θ|x_t) ∝ exp(-‖x_t - √ᾱ·ψ_θ‖²/2(1-ᾱ)) on the box. A grid of cells covers
    the box, each about as long in every direction as the signal changes by equal amounts. Where the noise is
    so small that the posterior is narrower than a cell, the `keep` likeliest cells are cut in eight, and again,
    until a cell moves the signal by less than `resolution` standard deviations of the noise. A parameter that
    multiplies the whole signal (``family.scale``) is integrated in closed form: given the others, its posterior is a
    normal distribution cut to its interval.

    Args:
        family: up to three parameters besides ``family.scale``, uniform on its box.
        schedule: the noise schedule.
        cells: cells of the first grid.
        keep: cells that are cut at the first and at the last level; half as many in between.
        resolution: size of the last cells in units of the posterior's width; halve it to see the error.

    Raises:
        ValueError: a family of more parameters: its floor is not known.

    >>> from ddpm_lib import BenchmarkMorlet, linear, q_sample
    >>> family = BenchmarkMorlet()
    >>> oracle = FamilyOracle(family, linear())
    >>> x0, _ = family.sample(4, torch.Generator().manual_seed(0))
    >>> xt = q_sample(x0, 10, torch.zeros_like(x0), linear())
    >>> bool((oracle(xt, 10).x0 - x0).abs().max() < 0.02)
    True
    """

    grid: Float[Tensor, "K P"]
    size: Float[Tensor, "P"]
    atoms: Float[Tensor, "K L"]
    corners: Float[Tensor, "corners P"]

    def __init__(self, family: Family, schedule: Schedule, cells: int = 16384, keep: int = 64, resolution: float = 1.2):
        super().__init__()
        check_count(keep, "The number of cells to keep", 2, 10**6)
        check_number(resolution, "resolution", 1e-3, 1e3)
        self.scaled = family.scale is not None and len(family.names) > 1
        shapes = _UnitScale(family) if self.scaled else family
        n_params = len(shapes.names)
        if n_params > 3:
            raise ValueError(
                f"{type(family).__name__} has {n_params} parameters besides its scale: quadrature covers up to three, "
                "so the exact floor of this family is not known here."
            )
        self.family, self.shapes, self.schedule, self.keep, self.resolution = family, shapes, schedule, keep, resolution
        grid, size = shapes.grid(cells)
        self.register_buffer("size", size)
        self.register_buffer("grid", grid)
        self.register_buffer("atoms", shapes.render(grid).flatten(1))
        self.largest, self.per_unit = (
            1.0,
            0.0,
        )  # the latter: log of a scale's uniform density, with the √2π of its distribution
        if self.scaled:
            column = family.names.index(str(family.scale))
            self.limits = low, high = float(family.low[column]), float(family.high[column])
            self.largest = max(abs(v) for v in self.limits)
            self.per_unit = 0.5 * math.log(2 * math.pi) - math.log(high - low)
        # how far the signal moves along one edge of a cell: by the making of the grid much the same for all edges
        across = shapes.render(grid[::7] + 0.5 * size) - shapes.render(grid[::7] - 0.5 * size)
        self.edge = self.largest * float(across.square().sum((1, 2)).mean().sqrt()) / math.sqrt(n_params)
        corners = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25])] * n_params)
        self.register_buffer("corners", corners.view(-1, n_params))

    def _log_weight(
        self, x: Float[Tensor, "B L"], shapes: Float[Tensor, "B K L"] | Float[Tensor, "K L"], a: float, s: float
    ) -> tuple[Float[Tensor, "B K"], TruncatedNormal | None]:
        """Log-likelihood of x under the shapes, their scale integrated out."""
        shared = shapes.ndim == 2  # the first grid, whose cells are wide: there ‖x - ψ‖² may be expanded
        if not self.scaled:
            apart = torch.cdist(x, a * shapes).square() if shared else (x[:, None] - a * shapes).square().sum(-1)
            return -apart / (2 * s**2), None
        wide, y = a * shapes.double(), x.double()
        power = wide.square().sum(-1)
        # given the shape, the best scale is the projection of x on it
        mean = (y @ wide.mT if shared else (wide @ y[..., None])[..., 0]) / power
        spread = (s / power.sqrt()).expand_as(mean)
        scale = TruncatedNormal(mean, spread, *((limit - mean) / spread for limit in self.limits))
        if shared:
            apart = y.square().sum(1, keepdim=True) - mean**2 * power
        else:
            apart = (y[:, None] - mean[..., None] * wide).square().sum(-1)
        return (spread.log() + scale.log_mass() - apart / (2 * s**2)).to(x.dtype), scale

    def _nodes(self, x: Float[Tensor, "B L"], t: float, keep: int) -> _Nodes:
        """The posterior of x, all at one time."""
        a, s = (v.item() for v in self.schedule(torch.as_tensor([t])))
        theta, shapes, size = self.grid.expand(len(x), -1, -1), self.atoms, self.size
        log_w, scale = self._log_weight(x, shapes, a, s)
        levels = max(0, math.ceil(math.log2(self.edge * a / (self.resolution * s))))
        for level in range(levels):
            # at first the posterior may stand in several places, at last it is to be covered to its tails;
            # in between a cell is wider than the posterior, and half as many hold it
            k = keep if level in (0, levels - 1) else keep // 2
            best = log_w.topk(min(k, log_w.shape[1]), dim=1).indices
            theta = theta.gather(1, best[..., None].expand(-1, -1, theta.shape[2]))
            theta = (theta[:, :, None] + self.corners * size).flatten(1, 2)
            size = size / 2
            shapes = self.shapes.render(theta.flatten(0, 1)).view(*theta.shape[:2], -1)
            log_w, scale = self._log_weight(x, shapes, a, s)
        share = -math.log(len(self.grid)) - levels * len(self.size) * math.log(2)  # of the box, that a cell is
        evidence = log_w.logsumexp(1) + share + self.per_unit - x.shape[1] / 2 * math.log(2 * math.pi * s**2)
        weight = log_w.softmax(1)
        if not torch.isfinite(weight).all():
            raise FloatingPointError("Signals that lie so far from all of the family leave its posterior no digits.")
        return _Nodes(theta, shapes, weight, scale, evidence)

    def _by_time(
        self, xt: Float[Tensor, "B 1 L"], t: Time, tails: int = 1
    ) -> Iterator[tuple[Int[Tensor, "rows"], _Nodes]]:
        """Rows that share a time, in chunks that fit the cache, with their nodes.

        The mean needs the middle of the posterior; what needs its tails keeps `tails` times as many cells.
        """
        t, numbers = (
            self.schedule.at(t, xt)[0],
            len(self.corners) * tails * self.keep * self.atoms.shape[1],
        )  # of one row's nodes
        chunk = min(32, max(1, 2**23 // numbers))
        for time in t.unique().tolist():
            for rows in (t == time).nonzero()[:, 0].split(chunk):
                yield rows, self._nodes(xt[rows].flatten(1).to(self.atoms), time, tails * self.keep)

    @torch.no_grad()
    def forward(self, xt: Float[Tensor, "B 1 L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The posterior mean, at times 0 < t ≤ T."""
        return Prediction.from_x0(self.with_evidence(xt, t)[0], xt, *self.schedule.at(t, xt)[1:])

    @torch.no_grad()
    def with_evidence(
        self, xt: Float[Tensor, "B 1 L"], t: Time, tails: int = 1
    ) -> tuple[Float[Tensor, "B 1 L"], Float[Tensor, "B"]]:
        """E[x_0 | x_t], and log p(x_t): how well the family explains x_t, in nats."""
        x0, evidence = torch.empty_like(xt), xt.new_empty(len(xt))
        for rows, nodes in self._by_time(xt, t, tails):
            weight = nodes.weight if nodes.scale is None else nodes.weight * nodes.scale.moments()[0].to(nodes.weight)
            x0[rows] = (weight[:, None] @ nodes.shapes).to(xt.dtype)
            evidence[rows] = nodes.evidence.to(xt.dtype)
        return x0, evidence

    @torch.no_grad()
    def covariance(self, xt: Float[Tensor, "B 1 L"], t: Time) -> Float[Tensor, "B L L"]:
        """Cov[x_0 | x_t]."""
        out = xt.new_empty(len(xt), xt.shape[-1], xt.shape[-1])
        for rows, (_, shapes, weight, scale, _) in self._by_time(xt, t, tails=3):
            moments = None if scale is None else [m.to(weight) for m in scale.moments()]
            scaled = shapes if moments is None else moments[0][..., None] * shapes
            gap = scaled - weight[:, None] @ scaled
            cov = (weight[..., None] * gap).mT @ gap
            if moments is not None:  # and the scale is not sharp
                cov = cov + ((weight * (moments[1] - moments[0] ** 2))[..., None] * shapes).mT @ shapes
            out[rows] = cov.to(xt.dtype)
        return out

    @torch.no_grad()
    def posterior(
        self, xt: Float[Tensor, "B 1 L"], t: Time, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B n P"]:
        """n draws of the parameters given each x_t: middles of cells, a scale from its own distribution."""
        out = torch.empty(len(xt), n, len(self.family.names))
        for rows, nodes in self._by_time(xt, t, tails=3):
            k = torch.multinomial(nodes.weight, n, replacement=True, generator=generator)
            theta = nodes.theta.gather(1, k[..., None].expand(-1, -1, nodes.theta.shape[2]))
            if nodes.scale is not None:
                scale = TruncatedNormal(*(v.gather(1, k) for v in nodes.scale)).draw(generator).to(theta)
                column = self.family.names.index(str(self.family.scale))
                theta = torch.cat([theta[..., :column], scale[..., None], theta[..., column:]], 2)
            out[rows] = theta
        return out


ALL = (FamilyOracle,)
