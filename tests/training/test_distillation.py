"""Distillation: what the student is asked for is what two steps of its teacher do, and it learns it."""

from dataclasses import replace

import pytest
import torch
from helpers import HO, SHORT, net, noise, small
from torch.testing import assert_close

from ddpm_lib import Denoiser, Eps, ddim, even_log_snr, fit, q_sample
from ddpm_lib.diffusion import truncated
from ddpm_lib.training import distilled
from ddpm_lib.training.distillation import towards

TIMES = even_log_snr(HO, 8, 0.3)


def bent(scale=1.0):
    """A teacher that is exact for nothing: not linear, and different at every t."""
    return Denoiser(Bent(scale), HO, Eps())


class Bent(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x, log_snr, cond=None):
        return torch.tanh(self.scale * x + 0.1 * log_snr.view(-1, 1, 1))


def recipe(teacher=None, times=TIMES, **changes):
    return distilled(teacher or bent(), times, **(dict(family=SHORT, batch=64) | changes))


@pytest.mark.parametrize("t, s", [(900.0, 400.5), (300.25, 20.0), (1.0, 0.0)])
def test_a_step_for_each_signal_is_ddim(t, s):
    x, teacher = noise(5, 1, 7), bent()
    each = torch.full((5,), t, dtype=torch.float64), torch.full((5,), s, dtype=torch.float64)
    found = towards(x, teacher(x, t).x0, *each, HO)
    assert_close(found, ddim(teacher, x, t, s, torch.zeros_like(x)), rtol=1e-4, atol=1e-5)


def test_one_step_towards_the_target_leads_where_two_of_the_teacher_lead():
    one = recipe()
    x0, t, eps, weight, _ = one.draw(None)(3)
    xt = q_sample(x0, t, eps, HO)
    assert set(t.tolist()) == set(TIMES[:-1:2])  # all of them are drawn
    assert (weight == 1).all()
    for k in range(len(TIMES) // 2):
        t0, middle, s = TIMES[2 * k : 2 * k + 3]
        x = xt[t == t0]
        zero = torch.zeros_like(x)
        two = ddim(bent(), ddim(bent(), x, t0, middle, zero), middle, s, zero)
        asked = [torch.full((len(x),), v, dtype=torch.float64) for v in (t0, s)]
        assert_close(towards(x, x0[t == t0], *asked, HO), two, rtol=1e-3, atol=1e-4)


def test_the_states_are_noised_signals():
    """√ᾱ·x̃_0 + √(1-ᾱ)·ε̃ is a signal of the family and noise: at small t it is the signal."""
    one = recipe(times=[2.0, 1.0, 0.0])
    x0, t, eps, _, _ = one.draw(None)(0)
    xt = q_sample(x0, t, eps, HO)
    signals, _ = SHORT.sample(64, torch.Generator().manual_seed(0))
    power = signals.square().mean()
    assert abs(xt.square().mean() - power) < 0.3 * power


@pytest.mark.slow
def test_a_student_begins_as_its_teacher_and_learns():
    teacher = fit(small(network=net, steps=60)).denoiser
    times = even_log_snr(teacher.schedule, 4, 0.3)
    one = recipe(teacher=teacher, times=times, steps=80, lr=1e-3, kernel_lr=5e-3, ema=0.9, weight=truncated)
    student = one.build()
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), teacher.parameters(), strict=True))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trained = fit(one).denoiser
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    x0, t, eps, _, _ = one.draw(None)(10**6)
    xt = q_sample(x0, t, eps, HO)
    with torch.no_grad():
        off = [(d(xt, t).x0 - x0).square().mean() for d in (teacher, trained)]
    assert off[1] < 0.7 * off[0]


def test_the_weight_is_the_larger_of_snr_and_one():
    t = torch.tensor([1, 100, 900])
    assert_close(truncated(HO, t), torch.maximum(HO.snr(t), torch.ones(3, dtype=torch.float64)))


def test_the_fingerprint_knows_teacher_and_times():
    one = recipe()
    others = [recipe(teacher=bent(1.1)), recipe(times=[*TIMES[:4], 0.0]), replace(one, steps=7)]
    assert len({r.fingerprint() for r in (one, *others)}) == 4 and recipe().fingerprint() == one.fingerprint()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"times": TIMES[:-1]}, "fall to 0 in an even number of steps"),
        ({"times": TIMES[1:]}, "even number"),
        ({"times": [0.0]}, "even number"),
        ({"times": [5.0, 9.0, 0.0]}, "fall to 0"),
        ({"times": [2000.0, 1.0, 0.0]}, "A time must be a number"),
    ],
)
def test_bad_input_gets_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as info:
        recipe(**changes)
    assert str(info.value).count(". ") == 0
