"""How often a GPU would be waited for: numbers read back from the device, counted on a pretend device (`pretend`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.slow

COUNT = """
import json
import warnings

import torch
import pretend

pretend.on()
warnings.simplefilter("ignore")
torch.set_num_threads(1)
from ddpm_lib import Recipe, UNet1D, dpmpp_2m_sde, heun, loss, pretrained, sample

device, found = torch.device("pretend", 0), {}


def count(name, call):
    pretend.reads.clear(), pretend.ops.clear()
    call()
    found[name] = sum(pretend.reads.values()), sum(pretend.ops.values())


def draw(step, **options):
    generator = torch.Generator().manual_seed(0)
    return lambda: [None for x in sample(unet, (4, 1, 128), 20, step, generator, **options)]


unet = pretrained().to(device)
xt, t = torch.randn(4, 1, 128).to(device), torch.tensor([5, 100, 500, 999]).to(device)
with torch.no_grad():
    unet(xt, t)  # tables are copied once
    count("an evaluation", lambda: unet(xt, t))
    count("20 steps", draw(dpmpp_2m_sde))
    count("20 steps of Heun", draw(heun))
    count("20 steps, not checked", draw(dpmpp_2m_sde, check_finite=False))

recipe = Recipe(batch=8)
denoiser = recipe.build().to(device)
batches, optimiser = recipe.draw(denoiser.network), recipe.optimiser(denoiser, recipe)


def step(k):
    x0, t, eps, importance, _ = (value if value is None else value.to(device) for value in batches(k))
    value = (importance * loss(denoiser, x0, t, eps)).mean()
    optimiser.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(denoiser.parameters(), recipe.clip)
    optimiser.step()
    return value.item()


step(0)
count("a training step", lambda: step(1))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def counts():
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_device_is_read_no_more_than_once_a_step(counts, capsys):
    with capsys.disabled():
        print()
        for name, (reads, operations) in counts.items():
            print(f"{name:24} {reads:3} host reads, {operations:6} operations")
    reads = {name: number for name, (number, _) in counts.items()}
    assert reads["an evaluation"] == reads["20 steps, not checked"] == 0
    assert reads["20 steps"] == reads["20 steps of Heun"] == 20 and reads["a training step"] == 1


def test_a_training_step_has_no_operations_that_do_nothing(counts):
    """It had 2100. Of what is left 312 are torch's own clipping, which on a real GPU are a handful."""
    assert counts["a training step"][1] <= 1620
