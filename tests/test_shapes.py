"""The shapes in signatures: checked in these tests, a note where the packages that check them are not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import shapecheck
import torch

from ddpm_lib import Gaussian, Prediction, linear, loss, q_sample, shapes

ROOT = Path(__file__).resolve().parents[1]
HOOKED = shapecheck.available() and os.environ.get("SHAPES") != "off"  # what conftest.py asks

WITHOUT = """
import sys

sys.modules.update(jaxtyping=None, beartype=None)  # to import them is an ImportError
import torch
from typing import get_type_hints
from ddpm_lib import Gaussian, linear, q_sample, sample, shapes

assert shapes.Float is shapes.Int
*_, x0 = sample(Gaussian(torch.zeros(1, 4), torch.eye(4), linear()), (2, 1, 4), steps=3)
assert x0.shape == (2, 1, 4) and get_type_hints(q_sample)["x0"] is torch.Tensor
"""


def test_the_library_needs_neither_of_the_packages():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_hook_knows_every_name_of_a_shape():
    assert all(shapecheck.NAMES.fullmatch(name) for name in shapes.__all__)


@pytest.mark.skipif(not HOOKED, reason="jaxtyping and beartype are not installed, or SHAPES=off")
def test_a_wrong_shape_fails():
    """Also one that broadcasting would hide: noise of one channel for signals of two."""
    x0, t = torch.zeros(3, 2, 4), torch.tensor([1, 2, 3])
    with pytest.raises(TypeError, match="eps"):
        q_sample(x0, t, torch.zeros(3, 1, 4), linear())
    with pytest.raises(TypeError, match="t"):
        q_sample(x0, t[:1], x0, linear())
    with pytest.raises(TypeError, match="x0"):
        q_sample(x0.long(), t, x0, linear())


@pytest.mark.skipif(not shapecheck.available(), reason="jaxtyping and beartype are not installed")
def test_a_wrong_result_fails():
    @shapecheck.checked
    def doubled(x: shapes.Float[torch.Tensor, "B C L"]) -> shapes.Float[torch.Tensor, "B C L"]:
        return torch.cat([x, x])

    with pytest.raises(TypeError, match="return value"):
        doubled(torch.zeros(3, 1, 4))


def test_what_a_function_refuses_itself_keeps_its_error():
    with pytest.raises(ValueError, match="covariance"):
        Gaussian(torch.zeros(1, 4), torch.eye(3), linear())


def test_a_denoiser_that_is_no_module_is_one_all_the_same():
    """What is like a `DenoiserLike` is not looked at, only the tensors that come and go."""

    class Nothing:
        schedule = linear()

        def __call__(self, xt, t, cond=None):
            return Prediction(torch.zeros_like(xt), xt)

    x0 = torch.zeros(2, 1, 4)
    assert loss(Nothing(), x0, 5, x0).shape == (2,)
