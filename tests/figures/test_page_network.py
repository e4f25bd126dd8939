"""The JavaScript of the page against torch, in a browser: the network, the times, the samplers, the fit."""

import base64
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import HO, noise, rng

from ddpm_lib import (
    X0,
    BenchmarkMorlet,
    Denoiser,
    Eps,
    LinearSkip,
    Morlet,
    UNet1D,
    ddim,
    even_log_snr,
    fit_family,
    fit_gaussian,
    linear_skip,
    load,
    q_sample,
    sample,
)
from ddpm_lib.diffusion import Measurement
from ddpm_lib.exact import Wiener
from ddpm_lib.figures import model_script
from ddpm_lib.sampling import LinearCovariance, PseudoinverseGuidance
from ddpm_lib.sampling import steps as sampling_steps
from ddpm_lib.sampling.grids import TILT
from ddpm_lib.training import shipped_recipe
from ddpm_lib.training.store import SHIPPED

pytestmark = pytest.mark.browser
FAMILY = BenchmarkMorlet()
BOX = [(-2.0, 2.0), (0.4, 1.0), (4.0, 7.0)]
NAMES = ("network", "schedule", "evenLogSnr", "denoiser", "samplers", "sample", "guided", "fit", "normal")
every_step = pytest.mark.parametrize("step", sampling_steps.ALL, ids=[step.__name__ for step in sampling_steps.ALL])


@pytest.fixture(scope="module")
def shipped():
    """The denoiser of the page: the recipe that ships."""
    return load(shipped_recipe().build(), SHIPPED / "benchmark.safetensors").denoiser


def at_random(unet, channels=1, length=128, seed=0):
    """A denoiser around a UNet1D with all weights at random."""
    x0 = noise(200, channels, length, seed=seed).cumsum(-1) / 40  # of the size of the wavelets
    skip = LinearSkip(unet, Wiener(*fit_gaussian(x0)))
    with torch.no_grad():
        for p in unet.parameters():
            p.copy_(torch.randn(p.shape, generator=rng(seed)) / math.sqrt(max(p[0].numel(), 4)))
    return Denoiser(skip, HO, Eps())


@pytest.fixture(scope="module")
def tab(chromium):
    """An empty page that has imported the worker's source, a plain script, as `js`."""
    tab = chromium.new_page()
    tab.evaluate(
        """async (source) => {
             const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
             globalThis.js = await import(url);
             globalThis.floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
             globalThis.text = (list) => list.map((x) => Array.from(x));
           }""",
        model_script.source() + f"\nexport {{ {', '.join(NAMES)} }};",
    )
    yield tab
    tab.close()


def told(denoiser):
    """The model for the tab, on whatever signals."""
    model = model_script.manifest(denoiser, FAMILY)
    return {"manifest": model, "weights": base64.b64encode(model_script.weights(denoiser)).decode()}


def computed(tab, denoiser, x, log_snr, cond=None):
    """ε̂ of the tab's network for signals x (n, C, L), one by one; NaN travels as null."""
    rows = None if cond is None else [[None if v != v else v for v in row] for row in cond.tolist()]
    out = tab.evaluate(
        """({ manifest, weights, x, logSnr, cond }) => {
             const net = js.network(manifest, floats(weights));
             return text(x.map((v, i) => net(Float32Array.from(v), logSnr[i], cond && cond[i].map((c) => c ?? NaN))));
           }""",
        told(denoiser) | {"x": x.flatten(1).tolist(), "logSnr": log_snr.tolist(), "cond": rows},
    )
    return torch.tensor(out).view_as(x)


@torch.no_grad()
def furthest(tab, denoiser, n=24, cond=None, pure=False):
    """Largest difference to torch over n noised signals, or n times pure noise, at noise levels from T to 1."""
    wiener = denoiser.network.wiener
    t = torch.cat([torch.tensor([1.0, HO.T]), 1 + 999 * torch.rand(n - 2, generator=rng(4))])
    x0 = ((noise(n, len(wiener.power), seed=2) * wiener.power.sqrt()) @ wiener.basis.T).view(n, *wiener.mean.shape)
    x = noise(*x0.shape, seed=3) if pure else q_sample(x0 + wiener.mean, t, noise(*x0.shape, seed=3), HO)
    log_snr = HO.log_snr(t).float()
    exact = denoiser.network(x, log_snr, cond)
    assert exact.std() > 0.5
    return (computed(tab, denoiser, x, log_snr, cond) - exact).abs().max().item()


@pytest.mark.parametrize("pure", [False, True])
def test_the_network_that_ships_equals_torch(tab, shipped, pure):
    assert furthest(tab, shipped, 64, pure=pure) < 1e-4


def some_conditions(n):
    """(n, 3), each value with probability ½, else NaN; one row with all and one with none."""
    cond = torch.tensor([low for low, _ in BOX]) + torch.rand(n, 3, generator=rng(5)) * torch.tensor([4.0, 0.6, 3.0])
    hidden = torch.rand(n, 3, generator=rng(6)) < 0.5
    hidden[0], hidden[1] = False, True
    return cond.masked_fill(hidden, math.nan)


def test_a_network_with_conditions_equals_torch(tab):
    denoiser = at_random(UNet1D(2, 1, width=16, levels=2, blocks=2, dim=32, conditions=BOX))
    cond = some_conditions(24)
    assert furthest(tab, denoiser, cond=cond) < 1e-4
    assert furthest(tab, denoiser) < 1e-4  # nothing asked at all
    x, log_snr = noise(1, 1, 128), torch.zeros(1)
    asked, silent = (computed(tab, denoiser, x, log_snr, c) for c in (cond[:1], cond[1:2]))
    assert (asked - silent).abs().max() > 1e-2  # it hears what is asked


@pytest.mark.parametrize(
    ("sizes", "channels", "length"),
    [
        (dict(levels=1, blocks=1), 1, 128),
        (dict(levels=3, blocks=1, patch=3, kernel=5), 1, 100),
        (dict(levels=2, blocks=1, position=False), 1, 37),
        (dict(levels=3, blocks=1, bridges=False), 1, 128),
        (dict(levels=2, blocks=1, width=6, dim=10, kernel=1), 2, 30),
    ],
)
def test_networks_of_other_sizes_equal_torch(tab, sizes, channels, length):
    denoiser = at_random(UNet1D(2 * channels, channels, **(dict(width=8, dim=16) | sizes)), channels, length)
    assert furthest(tab, denoiser) < 1e-4


def test_the_times_are_those_of_the_library(tab, shipped):
    for steps in (1, 2, 7, 20, 100):
        times = tab.evaluate(
            "({ manifest, steps }) => js.evenLogSnr(js.schedule(manifest.log_alpha_bar), steps, manifest.tilt)",
            {"manifest": model_script.manifest(shipped, FAMILY), "steps": steps},
        )
        np.testing.assert_allclose(times, even_log_snr(HO, steps, TILT), atol=1e-8)


def path(tab, denoiser, step, times, draws, cond=None, hole=None):
    """The states (steps + 1, L) that the tab visits, with the given noise (steps + 1, L)."""
    return torch.tensor(
        tab.evaluate(
            """({ manifest, weights, step, times, draws, cond, hole }) => {
                 const net = js.network(manifest, floats(weights)), levels = js.schedule(manifest.log_alpha_bar);
                 let ask = js.denoiser(net, levels, cond && cond.map((c) => c ?? NaN));
                 if (hole) ask = js.guided(ask, net.wiener, hole.signal, hole.known);
                 let k = 0;
                 const draw = () => Float32Array.from(draws[k++]);
                 return text([...js.sample(ask, draw(), times, js.samplers[step], draw)]);
               }""",
            told(denoiser)
            | {"step": step.__name__, "times": times, "draws": draws.tolist(), "cond": cond, "hole": hole},
        )
    )


@every_step
@pytest.mark.parametrize("steps", [20, [1000.0, 700.0, 420.5, 100.0, 3.25, 0.0]])
def test_a_path_of_the_model_that_ships_equals_torch(tab, shipped, step, steps):
    times = even_log_snr(HO, steps, TILT) if isinstance(steps, int) else steps
    exact = torch.stack(list(sample(shipped, (1, 1, 128), steps, step, rng(7))))[:, 0, 0]
    again = rng(7)
    draws = torch.stack([torch.randn(1, 1, 128, generator=again)[0, 0] for _ in times])
    assert (path(tab, shipped, step, times, draws) - exact).abs().max() < 1e-3
    assert exact[-1].std() < 0.6 < exact[0].std()  # from noise to a wavelet


@every_step
def test_a_path_with_a_hole_equals_torch(tab, shipped, step):
    y, known = FAMILY.render(torch.tensor([[0.3, 0.7, 5.0]])), torch.ones(128, dtype=torch.bool)
    known[58:76] = False
    measured = Measurement.samples(known, 0.01)
    guided = PseudoinverseGuidance(LinearCovariance(shipped), measured, measured(y))
    times = even_log_snr(HO, 20, TILT)
    exact = torch.stack(list(sample(guided, (1, 1, 128), times, step, rng(8))))[:, 0, 0]
    again = rng(8)
    draws = torch.stack([torch.randn(1, 1, 128, generator=again)[0, 0] for _ in times])
    hole = {"signal": y[0, 0].tolist(), "known": known.tolist()}
    assert (path(tab, shipped, step, times, draws, hole=hole) - exact).abs().max() < 5e-3
    assert (exact[-1] - y[0, 0])[known].abs().max() < 0.05


def test_a_path_with_conditions_equals_torch(tab):
    denoiser = at_random(UNet1D(2, 1, width=16, levels=2, blocks=2, dim=32, conditions=BOX))
    cond = some_conditions(8)[4:5]

    class Asked:
        schedule = HO

        def __call__(self, xt, t):
            return denoiser(xt, t, cond)

    times = even_log_snr(HO, 20, TILT)
    exact = torch.stack(list(sample(Asked(), (1, 1, 128), times, ddim, rng(9))))[:, 0, 0]
    again = rng(9)
    draws = torch.stack([torch.randn(1, 1, 128, generator=again)[0, 0] for _ in times])
    asked = [None if v != v else v for v in cond[0].tolist()]
    mine = path(tab, denoiser, ddim, times, draws, cond=asked)
    assert (mine - exact).abs().max() < 1e-3 * exact.abs().max()


def test_the_fit_equals_the_library_s(tab, shipped):
    *_, samples = sample(shipped, (24, 1, 128), generator=rng(10))
    x = torch.cat([samples, FAMILY.sample(8, rng(11))[0], 0.3 * noise(4, 1, 128, seed=12)])
    outside = BenchmarkMorlet(s=(1.1, 1.2)).sample(4, rng(13))[0]  # wavelets, but too wide
    x = torch.cat([x, outside])
    exact = fit_family(x, FAMILY)
    mine = tab.evaluate(
        """({ x, family }) => x.map((v) => js.fit(v, family))
             .map(({ params, residual, valid }) => [params, residual, valid])""",
        {"x": x[:, 0].tolist(), "family": model_script.manifest(shipped, FAMILY)["family"]},
    )
    params, residual, valid = zip(*mine, strict=True)
    assert list(valid) == exact.valid.tolist()
    assert {True, False} == set(valid)
    good = exact.residual < 0.5  # of noise there are many fits that are equally bad
    np.testing.assert_allclose(np.array(params)[good], exact.params[good], atol=2e-3)
    np.testing.assert_allclose(np.array(residual), exact.residual, rtol=0.02, atol=2e-4)


def test_random_numbers_are_normal_and_belong_to_their_seed(tab):
    draw = "(seed) => { const next = js.normal(seed); return Array.from({ length: 20000 }, next); }"
    x = np.array(tab.evaluate(draw, 5))
    assert abs(x.mean()) < 0.03 and abs(x.std() - 1) < 0.03 and abs((x**4).mean() - 3) < 0.3
    assert abs((x[1:] * x[:-1]).mean()) < 0.03
    assert np.array_equal(x, tab.evaluate(draw, 5)) and not np.allclose(x, tab.evaluate(draw, 6))


def test_a_step_takes_no_longer_than_a_film_allows(tab, shipped):
    milliseconds = tab.evaluate(
        """({ manifest, weights }) => {
             const net = js.network(manifest, floats(weights)), levels = js.schedule(manifest.log_alpha_bar);
             const draw = () => Float32Array.from({ length: 128 }, js.normal(1)), taken = [];
             for (let run = 0; run < 3; run++) {
               const ask = js.denoiser(net, levels), times = js.evenLogSnr(levels, 20, manifest.tilt);
               let before = performance.now();
               for (const x of js.sample(ask, draw(), times, js.samplers.dpmpp_2m_sde, draw)) {
                 taken.push(performance.now() - before);
                 before = performance.now();
               }
             }
             return taken.slice(1).sort((a, b) => a - b)[Math.floor(taken.length / 2)];
           }""",
        told(shipped),
    )
    print(f"\na step of the network in the page: {milliseconds:.1f} ms (median of 60)")
    assert milliseconds < 60


def test_what_the_page_cannot_compute_is_refused_in_one_sentence(shipped):
    plain = Denoiser(UNet1D(), HO, Eps())
    with pytest.raises(ValueError, match="LinearSkip around a UNet1D with Eps"):
        model_script.manifest(plain, FAMILY)
    with pytest.raises(ValueError, match="got LinearSkip with X0"):
        model_script.manifest(Denoiser(shipped.network, HO, X0()), FAMILY)
    with pytest.raises(ValueError, match="BenchmarkMorlet alone"):
        model_script.manifest(shipped, Morlet())


def test_a_script_is_named_by_the_network_and_holds_its_weights(shipped):
    name, text = model_script.script_name(shipped), model_script.script(shipped, FAMILY)
    assert name == model_script.script_name(replace(shipped_recipe(), seed=1).build())
    assert name != model_script.script_name(Denoiser(linear_skip(FAMILY, width=8), HO, Eps()))
    model = json.loads(text.split("] = ", 1)[1].rstrip(";\n"))
    sizes = sum(math.prod(shape) for _, shape in model["manifest"]["tensors"])
    assert len(base64.b64decode(model["weights"])) == 4 * sizes
