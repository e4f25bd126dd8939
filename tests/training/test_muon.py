"""The optimiser against torch's own AdamW and Muon."""

import pytest
import torch
from helpers import rng
from torch import nn

from ddpm_lib.training import Muon, orthogonal


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.tall, self.twin = nn.Conv1d(8, 6, 5), nn.Conv1d(6, 40, 3), nn.Conv1d(8, 6, 5)
        self.linear, self.entry = nn.Linear(4, 4), nn.Conv1d(1, 8, 3)


def gradients(module, steps=4):
    """Step by step the same gradients for everyone."""
    for step in range(steps):
        generator = rng(step)
        for p in module.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        yield


def twins():
    one, other = Mixed(), Mixed()
    other.load_state_dict(one.state_dict())
    return one, other


def test_the_rest_takes_the_steps_of_adamw():
    ours, theirs = twins()
    mine = Muon(ours, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, is_kernel=lambda name, p: False)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    for _ in zip(gradients(ours), gradients(theirs), strict=True):
        mine.step()
        adamw.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_kernels_take_the_steps_of_muon():
    """torch.optim.Muon on the flattened kernels; it iterates in bfloat16, hence the tolerance."""
    ours, _ = twins()
    kernels = {n: p for n, p in ours.named_parameters() if p.ndim == 3 and min(p.shape[:2]) > 4}
    assert sorted(kernels) == ["tall.weight", "twin.weight", "wide.weight"]
    flat = {n: nn.Parameter(p.detach().flatten(1).clone()) for n, p in kernels.items()}
    start = {n: p.detach().clone() for n, p in flat.items()}
    mine = Muon(ours, kernel_lr=0.02)
    muon = torch.optim.Muon(list(flat.values()), lr=0.02, momentum=0.95, weight_decay=0.0)
    for _ in gradients(ours):
        for n, p in flat.items():
            p.grad = kernels[n].grad.flatten(1)
        mine.step()
        muon.step()
    for n, p in flat.items():
        moved, expected = kernels[n].detach().flatten(1) - start[n], p.detach() - start[n]
        assert (moved - expected).norm() < 0.03 * expected.norm()


def test_orthogonal_keeps_the_directions_and_evens_their_lengths():
    for rows, columns in [(6, 20), (20, 6), (7, 7)]:
        g = torch.randn(3, rows, columns, generator=rng(), dtype=torch.float64)
        u, s, vh = torch.linalg.svd(g, full_matrices=False)
        inside = u.mT @ orthogonal(g) @ vh.mT
        lengths = inside.diagonal(dim1=1, dim2=2)
        assert (inside - lengths.diag_embed()).abs().max() < 1e-6
        large = s > 0.1 * s[:, :1]
        assert ((lengths[large] > 0.65) & (lengths[large] < 1.3)).all()


def test_parameters_without_a_gradient_stay():
    module, _ = twins()
    before = [p.detach().clone() for p in module.parameters()]
    Muon(module).step()
    assert all(torch.equal(p, q) for p, q in zip(before, module.parameters(), strict=True))
