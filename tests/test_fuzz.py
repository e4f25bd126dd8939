"""Hostile input for everything public: a right answer, or one of our own sentences. Never NaN, never torch's traceback.

A case draws its arguments, mostly sound and sometimes hostile, and makes its calls. `make fuzz` draws thousands, with
new seeds each time; `pytest` a slice, always the same. What once broke something stands in corpus.json as a call.
"""

# ruff: noqa: F403, F405

import json
import math
import os
import tempfile
import traceback
import warnings
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import net, small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import ddpm_lib
from ddpm_lib import *
from ddpm_lib.checks import check_signals
from ddpm_lib.diffusion import *
from ddpm_lib.exact import *
from ddpm_lib.measures import *
from ddpm_lib.networks import *
from ddpm_lib.sampling import *
from ddpm_lib.sampling.steps import ALL as STEPS
from ddpm_lib.signals import *
from ddpm_lib.training import *
from ddpm_lib.training import store

LONG = os.environ.get("FUZZ") == "long"
EXPECTED = (TypeError, ValueError, FileNotFoundError, FloatingPointError, NotImplementedError, OSError)
HERE = Path(__file__).resolve().parent
LIBRARY = Path(ddpm_lib.__file__).resolve().parent
T, SHAPE = 20, (2, 1, 16)
corpus = json.loads((HERE / "corpus.json").read_text("utf-8"))
total = [0]


# --- what is right ------------------------------------------------------------------------------------


def finite(x, path="result"):
    """Nothing in it is NaN or infinite; NaN and infinity are named where they are documented."""
    if isinstance(x, torch.Tensor):
        if x.is_floating_point() or x.is_complex():
            assert torch.isfinite(x).all(), f"{path} holds NaN or infinity"
    elif isinstance(x, float):
        assert math.isfinite(x), f"{path} is {x}"
    elif isinstance(x, Estimate | Quality):
        assert math.isfinite(x.value) and not math.isnan(x.margin), f"{path} is {x}"  # of one signal: infinite
    elif isinstance(x, Terms):
        finite(tuple(x._replace(error=0.0)), path)  # of one draw: NaN, and said so
    elif isinstance(x, nn.Module):
        finite(dict(x.state_dict()), path)
    elif isinstance(x, dict):
        for k, v in x.items():
            finite(v, f"{path}[{k!r}]")
    elif isinstance(x, list | tuple):
        for i, v in enumerate(x):
            finite(v, f"{path}[{i}]")
    elif is_dataclass(x):
        finite({f.name: getattr(x, f.name) for f in fields(x)}, path)


def judge(call):
    """Make a call. It gives something finite, or an error of the library itself that says why."""
    total[0] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call()
        except EXPECTED as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            whole = "".join(traceback.format_exception(error))
            assert LIBRARY in Path(last.filename).parents and len(str(error)) > 20, whole
            return None
        finite(result)
        return result


# --- what is thrown at it -----------------------------------------------------------------------------

ODD = [
    None, "3", "x", b"x", True, False, math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-30, 10**20, 10**400, 0, -1, 1, 2,
    0.5, 2.0, 1j, [], [1], {}, (1.0, 2.0), torch.tensor(2.0), torch.tensor([1.0, 2.0]), torch.tensor(math.nan),
    np.float32(0.5), torch.tensor(1j), object(), int,
]  # fmt: skip


def mostly(good, bad):
    return st.one_of(good, good, good, bad)


def check_number(*good):
    return mostly(st.sampled_from(good), st.one_of(st.sampled_from(ODD), st.floats(width=32)))


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_value(x, value):
    x = x.clone()
    x.view(-1)[0] = value
    return x


def odd_tensors(shape):
    x = normal(shape)
    strange = [
        None, "x", 3.0, x.tolist(), x.numpy(), x[0], x[..., 0], x[None], x[:0], x[..., :0], x[..., :1], x[:1],
        x[..., :-1], torch.cat([x, x]), torch.cat([x, x], -1), x.long(), x.bool(), x.half(), x.double(), x.bfloat16(),
        x + 0j, x.flip(-1), x[:1].expand(x.shape), x.clone().requires_grad_(), torch.zeros(()), torch.zeros(0),
        0 * x, 1e30 * x, 1e15 * x, 1e11 * x, 1e-30 * x, x.double() * 1e300,
    ]  # fmt: skip
    return [*strange, *(with_value(x, v) for v in (math.nan, math.inf, -math.inf, 1e30, 3e38))]


def tensor(*shape):
    good = st.integers(0, 3).map(lambda seed: normal(shape, seed))
    return mostly(good, st.sampled_from(odd_tensors(shape)))


signals = tensor(*SHAPE)


def partner(x):
    """A tensor that goes with x, or does not."""
    if isinstance(x, torch.Tensor) and x.is_floating_point() and x.device.type == "cpu":
        return mostly(st.just(normal(x.shape, 7).to(x.dtype)), signals)
    return signals


ODD_TIMES = [
    0, T, T + 1, -1, 0.5, 1e-30, 1e-8, T - 0.5, T + 1e-6, math.nan, math.inf, True, None, "1", 1j, [3, 4], [1, "x"],
    torch.tensor([0, 1]), torch.tensor([1, T + 1]), torch.tensor([1.0, math.nan]), torch.tensor([1, 2, 3]),
    torch.tensor([[1], [2]]), torch.tensor([1]), torch.tensor([], dtype=torch.long), torch.tensor([True, False]),
    torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([1, 0], dtype=torch.uint8), torch.tensor([1.5, 2.5]).half(),
    torch.tensor([1 + 0j, 2]), torch.tensor([1.5, 2.25], dtype=torch.float64), 10**20, np.int64(3), np.array([1, 2]),
]  # fmt: skip
good_times = st.one_of(
    st.integers(1, T), st.floats(0.1, T), st.lists(st.integers(1, T), min_size=2, max_size=2).map(torch.tensor)
)
times = mostly(good_times, st.sampled_from(ODD_TIMES))
tables = mostly(st.just(torch.linspace(0.01, 0.4, T)), st.sampled_from(odd_tensors((T,)) + ODD))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FAMILY = BenchmarkMorlet(length=16)
    HO, SHORT, ONE = linear(T), cosine(3), log_linear(1)
    SCALED = Ricker(length=16)
schedules = st.sampled_from([HO, SHORT, ONE])
DENOISERS = [
    Denoiser(net(FAMILY, 0), HO, Eps()),
    Denoiser(net(FAMILY, 0), HO, V()),
    Denoiser(lambda x, log_snr, cond: torch.tanh(x), HO, X0()),
    Gaussian(torch.zeros(1, 16), torch.eye(16), HO),
    FiniteOracle(FAMILY.sample(5, torch.Generator().manual_seed(0))[0], HO),
    FamilyOracle(FAMILY, HO, cells=64, keep=8),
    FamilyOracle(SCALED, HO, cells=64, keep=8),
    MixtureOracle(Mixture([FAMILY, SCALED]), HO, cells=64, keep=8),
]
denoisers = st.sampled_from(DENOISERS)
pairs = mostly(
    st.sampled_from([(0.5, 1.5), (4.0, 7.0)]),
    st.sampled_from(
        [*ODD, (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (1.0, 1.0 + 1e-12), ("a", "b"), (0, 1e30)]
    ),
)
generator = st.integers(0, 5).map(lambda seed: torch.Generator().manual_seed(seed))

# --- one call for each name ---------------------------------------------------------------------------

CASES, SHARE = {}, {}


def case(*names, share=1.0):
    """A function draw → call, for the public names that it calls; `proportion` of the usual number of examples."""

    def keep(function):
        for name in names:
            CASES[name], SHARE[name] = partial(function, name), share
        return function

    return keep


@case("FamilyOracle", "FiniteOracle", share=0.5)
def family_oracle(name, d):
    cells, keep, resolution = d(check_number(64, 10)), d(check_number(8, 2)), d(check_number(1.2, 0.6))
    judge(lambda: FamilyOracle(FAMILY, HO, cells, keep, resolution))
    judge(lambda: FiniteOracle(d(signals), HO))


@case("fit_gaussian", "Gaussian", "Wiener")
def gaussian(name, d):
    x, mean, cov = (
        d(tensor(6, 1, 4)),
        d(tensor(1, 4)),
        d(st.sampled_from([torch.eye(4), normal((4, 4)), 0 * torch.eye(4)])),
    )
    judge(lambda: fit_gaussian(x))
    judge(lambda: Gaussian(*fit_gaussian(x), HO)(torch.ones(1, 1, 4), 5))
    odd = d(st.sampled_from(odd_tensors((4, 4))))
    for matrix in (cov, odd):
        judge(lambda matrix=matrix: Gaussian(mean, matrix, HO)(torch.ones(1, 1, 4), 5))


@case("elbo", "TableVariance", share=0.3)
def bound(name, d):
    denoiser, x, sigma, draws = (
        d(denoisers),
        d(signals),
        d(st.one_of(st.none(), check_number(0.1))),
        d(check_number(1, 2)),
    )
    every, g, variance = d(st.booleans()), d(generator), d(st.sampled_from([beta, beta_tilde]))
    judge(lambda: TableVariance(d(tables)))
    out = judge(lambda: elbo(denoiser, x, variance, sigma, draws, every, g))
    assert out is None or judge(out.bits_per_dim).shape == (len(x),)
    eps = d(tensor(2, *SHAPE))
    judge(lambda: elbo(denoiser, x, eps=eps))


@case("log_likelihood", share=0.2)
def flow(name, d):
    denoiser, x = d(denoisers), d(signals)
    steps, first = d(check_number(12, 16)), d(check_number(1.0, 0.1))
    if not (isinstance(steps, int) and steps > 100):  # right, and slow
        found = judge(lambda: log_likelihood(denoiser, x, steps, first))
        assert found is None or judge(found.bits_per_dim).shape == (len(x),)


def abs_or_self(x):
    return x.abs() if isinstance(x, torch.Tensor) and x.dtype != torch.bool else x


@case("even_steps", "even_log_snr", "karras")
def grids(name, d):
    schedule, steps, option = d(schedules), d(check_number(1, 2, 3, T)), d(check_number(0.3, 1.0, 7.0, 10.0, 100.0))
    args = () if name == "even_steps" else (option,)
    out = judge(lambda: globals()[name](schedule, steps, *args))
    if out is not None:
        assert len(out) == steps + 1 and out[0] == schedule.T and out[-1] == 0
        assert all(s > t for s, t in pairwise(out)), out


@case("sample")
def sampling(name, d):
    denoiser, shape, g = (
        d(denoisers),
        d(mostly(st.just(SHAPE), st.sampled_from([*ODD, (0, 1, 16), (2, 1), (2, 1, 5)]))),
        d(generator),
    )
    steps = d(
        mostly(
            st.sampled_from([1, 3, [T, 5, 0]]),
            st.sampled_from([*ODD, [], [T], [5, 0.5, 0], [T, math.nan, 0], ["a", 0]]),
        )
    )
    step, start = d(st.sampled_from(STEPS)), d(st.one_of(st.none(), signals))
    rows = d(mostly(st.just(slice(None)), st.sampled_from([*ODD, slice(1), slice(9, 99), slice(None, None, 2)])))
    out = judge(lambda: list(sample(denoiser, shape, steps, step, g, start=start, rows=rows)))
    assert out is None or all(x.shape == (len(range(shape[0])[rows]), *shape[1:]) for x in out)


@case("Schedule")
def schedule_class(name, d):
    table = d(
        st.one_of(
            tables,
            tables.map(lambda x: -x.cumsum(0) if isinstance(x, torch.Tensor) and x.ndim == 1 and not x.is_meta else x),
        )
    )
    make = d(st.sampled_from([Schedule, Schedule.from_betas, Schedule.from_alpha_bar]))
    schedule = judge(lambda: make(table)) or HO
    judge(lambda: schedule.shifted(d(check_number(2.5, -1.0))))


@case("linear", "quadratic", "cosine", "sigmoid", "log_linear", "straight")
def curves(name, d):
    steps, one, two = d(check_number(1, 2, 100)), d(check_number(0.008, 1.0, 9.0, -3.0)), d(check_number(3.0, -10.0))
    args = {"cosine": (one,), "sigmoid": (one, two), "log_linear": (one, two)}.get(name, ())
    make = globals()[name]
    schedule = judge(lambda: make(steps, *args))
    assert schedule is None or judge(lambda: schedule.log_alpha_bar(torch.arange(schedule.T + 1))) is not None


@case("Family", "Morlet", "BenchmarkMorlet")
def families(name, d):
    class Line(Family):
        def formula(self, x, a):
            return a * x

    box = d(mostly(st.just({"a": (0.0, 1.0)}), st.sampled_from(ODD) | pairs.map(lambda p: {"a": p})))
    length, domain = d(check_number(16, 2)), d(mostly(st.just((-1.0, 1.0)), pairs))
    one, two, three = (d(pairs) for _ in range(3))
    family = judge(
        {
            "Family": lambda: d(st.sampled_from([Line, Family]))(box, length, domain),
            "Morlet": lambda: Morlet(length, domain, one, two, three),
            "BenchmarkMorlet": lambda: BenchmarkMorlet(length, (-1.0, 1.0), one, two),
        }[name]
    )
    if family is not None:
        n, g, cells = d(check_number(1, 4)), d(generator), d(check_number(10, 50))
        judge(lambda: family.sample(n, g))
        judge(lambda: family.grid(cells))


@case("Finite", "check_signals")
def finite_sets(name, d):
    x, params, n = d(signals), d(st.one_of(st.none(), tensor(2, 1))), d(check_number(1, 4))
    judge(lambda: check_signals(x))
    judge(lambda: Finite(x, params).sample(n))


@case("Augmented", "Negate", "Reverse", "Scale", "Shift")
def changed_signals(name, d):
    n, g = d(check_number(1, 4)), d(generator)
    p, low, high, most = (
        d(check_number(0.5, 0.0, 1.0)),
        d(check_number(0.8)),
        d(check_number(1.2)),
        d(check_number(3, 0, 20)),
    )
    make = {"Negate": lambda: Negate(p), "Scale": lambda: Scale(low, high), "Shift": lambda: Shift(most)}
    change = judge(make.get(name, lambda: Reverse(p)))
    strange = [None, 3, "x", lambda x, g: None, lambda x, g: x[..., 1:], lambda x, g: math.nan * x]
    source = judge(lambda: Augmented(Finite(normal(SHAPE)), d(mostly(st.just(change), st.sampled_from(strange)))))
    if source is not None:
        judge(lambda: source.sample(n, g))


@case("report_grid", share=0.3)
def report(name, d):
    length = d(check_number(2, 64))
    judge(lambda: report_grid(length).signals)


@case("UNet1D", share=0.5)
def networks(name, d):
    sizes = {
        k: d(check_number(v))
        for k, v in dict(in_channels=1, width=4, levels=2, blocks=1, patch=2, kernel=3, dim=4).items()
    }
    judge(lambda: UNet1D(**sizes))


@case("batches")
def data(name, d):
    options = {k: d(check_number(v)) for k, v in dict(start=0, rank=0, ranks=1, workers=0).items()}
    steps = d(check_number(1, 3))
    judge(lambda: (batches(lambda k: (torch.ones(2),), steps, **options), None)[1])


@case("proportion", "ks_uniform")
def shares(name, d):
    x = d(
        st.one_of(
            tensor(5), tensor(5).map(lambda x: x > 0 if isinstance(x, torch.Tensor) and not x.is_complex() else x)
        )
    )
    judge(lambda: proportion(x))
    judge(lambda: ks_uniform(x))


@case("fit_family", "FittedSignals", share=0.4)
def fitting(name, d):
    x, starts, cells = d(signals), d(check_number(1, 3)), d(check_number(64))
    iterations, tolerance = (
        d(mostly(st.just(2), st.sampled_from([0, -1, None, "x", 2.5, True, math.nan]))),
        d(check_number(0.05)),
    )
    judge(lambda: fit_family(x, FAMILY, starts=starts, cells=cells, iterations=iterations, tolerance=tolerance))


@case("energy_distance", "memorised")
def distances(name, d):
    x, permutations, g = d(tensor(4, 1, 5)), d(check_number(10, 1)), d(generator)
    y = d(st.one_of(partner(x), tensor(3, 1, 5)))
    judge(lambda: energy_distance(x, y, permutations, g))
    judge(lambda: memorised(x, y))


@case("sample_quality", "Quality", "QualityTable", share=0.1)
def quality_of_samples(name, d):
    x, training = d(tensor(20, 1, 16)), d(st.one_of(st.none(), tensor(3, 1, 16)))
    judge(lambda: sample_quality(x, FAMILY, training=training, generator=torch.Generator().manual_seed(0)))


@case("Recipe", "linear_skip")
def recipes(name, d):
    numbers = dict(steps=5, batch=4, lr=1e-3, kernel_lr=0.02, warmup=1, weight_decay=0.01, clip=1.0, ema=0.9, seed=0)
    changes = {k: d(check_number(v)) for k, v in numbers.items()}
    heavy = [
        lambda schedule, t: -schedule.snr(t),
        lambda schedule, t: 1 / (t - 1),
        lambda schedule, t: "heavy",
        None,
        7,
    ]
    changes["weight"] = d(mostly(st.sampled_from([simple, vlb, min_snr]), st.sampled_from(heavy)))
    recipe = judge(lambda: small(family=FAMILY, **changes))
    if recipe is not None:
        judge(lambda: [recipe.rate(k, recipe) for k in (0, recipe.steps - 1)])
        if recipe.batch < 100:
            judge(lambda: recipe.draw(net(FAMILY, 0))(0))
    n, width = d(check_number(50, 2)), d(check_number(4))
    judge(lambda: linear_skip(FAMILY, 0, n, width=width, blocks=1, dim=4))


@case("distilled")
def distillation(name, d):
    teacher = Denoiser(net(FAMILY, 0), HO, Eps())
    steps = d(mostly(st.just([20.0, 7.5, 0.0]), st.lists(check_number(3.0, 0.0), max_size=5)))
    recipe = judge(lambda: distilled(teacher, steps, family=FAMILY, batch=2))
    if recipe is not None:
        judge(lambda: recipe.draw(None)(0))


@case("fit", share=0.15)
def training(name, d):
    recipe = small(family=FAMILY, steps=2, batch=2)
    until, workers = d(check_number(1, 2, None)), d(check_number(0))
    resume, content = d(st.booleans()), d(st.one_of(st.none(), st.binary(max_size=200)))
    if str(workers) not in ("1", "2"):
        with tempfile.TemporaryDirectory() as folder:
            if content is not None:
                (Path(folder) / "last.ckpt").write_bytes(content)
            judge(lambda: fit(recipe, folder, resume=resume, until=until, workers=workers).losses)


@pytest.fixture(scope="session")
def whole_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    recipe = small(family=FAMILY)
    save(Fit(recipe.build(), torch.ones(2)), path, **store.card(recipe))
    return path.read_bytes()


FILE = []


@case("load", "save", "train_or_load")
def files(name, d):
    """A file in which some bytes are others, or are missing, or are too many."""
    whole = bytearray(FILE[0])
    for _ in range(d(st.integers(1, 3))):
        at = d(st.one_of(st.integers(0, 600), st.integers(0, len(whole) - 1))) % len(whole)
        kind, data = d(st.sampled_from(["change", "cut", "insert", "remove"])), d(st.binary(min_size=1, max_size=4))
        whole[at : {"change": at + len(data), "cut": len(whole), "insert": at, "remove": at + len(data)}[kind]] = (
            data if kind in ("change", "insert") else b""
        )
        if not whole:
            break
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(whole)
        recipe = small(family=FAMILY)
        denoiser = recipe.build()
        judge(lambda: load(denoiser, path).losses)
        judge(lambda: store._fingerprint(path))
        odd = d(st.sampled_from([Path(folder), Path(folder) / "none", path]))
        judge(lambda: load(denoiser, odd).losses)


@case("cache_dir", "device")
def environment(name, d):
    asked = d(st.sampled_from(["", "cpu", "cuda:0", "mps", "quantum", "cuda:x", "0", "cpu:-1"]))
    before = os.environ.get("DDPM_DEVICE")
    try:
        os.environ["DDPM_DEVICE"] = asked
        out = judge(device)
        assert out is None or str(torch.device(out)) == out
    finally:
        os.environ["DDPM_DEVICE"] = before or "cpu"
    assert judge(cache_dir).name


@case("PseudoinverseGuidance", "LinearCovariance", "Measurement")
def guidance(name, d):
    matrix, sigma, y = d(tensor(3, 16)), d(check_number(0.1, 1.0)), d(tensor(2, 3))
    measured = judge(lambda: Measurement(matrix, sigma))
    if measured is not None:
        denoiser = d(denoisers)
        judge(lambda: [LinearCovariance(denoiser)])
        judge(lambda: [PseudoinverseGuidance(denoiser, measured, y)])


CONDITIONAL = Denoiser(UNet1D(width=4, levels=1, blocks=1, dim=4, conditions=[(0.0, 1.0), (2.0, 3.0)]), HO, Eps())


@case("ClassifierFreeGuidance", "conditions")
def asking(name, d):
    cond = d(mostly(tensor(2, 2), st.just(torch.tensor([[0.5, math.nan], [math.nan, math.nan]]))))
    weight = d(check_number(1.0, 0.0, 2.0))
    judge(lambda: [ClassifierFreeGuidance(CONDITIONAL, cond, weight)])
    values = {d(st.sampled_from(["b", "s", "w", "x"])): d(st.one_of(check_number(5.0, 0.5), tensor(2)))}
    n = d(check_number(2, 1))
    out = judge(lambda: conditions(FAMILY, n, **values).nan_to_num())
    assert out is None or out.shape == (n, 3)


@case("Noisy", "NoisyOracle", "Cleaned")
def noise_in_the_data(name, d):
    sigma, n = d(check_number(0.1, 0.0, 2.0)), d(check_number(3, 1))
    denoiser = d(denoisers)
    judge(lambda: Noisy(FAMILY, sigma).sample(n))
    ratio = d(check_number(1.1, 2.0))
    for kind in (NoisyOracle, partial(Cleaned, ratio=ratio)):
        judge(lambda kind=kind: [kind(denoiser, sigma)])


@case("Mixture", "MixtureOracle")
def several_families(name, d):
    odd = st.sampled_from([[], [FAMILY], [FAMILY, Ricker()], FAMILY, None, "x", [FAMILY, None], {FAMILY: SCALED}])
    families, n = d(mostly(st.just([FAMILY, SCALED]), odd)), d(check_number(3, 1))
    made = judge(lambda: [Mixture(families)])
    if made:
        judge(lambda: made[0].sample(n))
    cells = d(check_number(64))
    judge(lambda: [MixtureOracle(made[0] if made else families, HO, cells=cells, keep=8)])


@case("denoise", "noise_time", "posterior_draws")
def denoising(name, d):
    schedule, y, sigma, n, steps = (
        d(schedules),
        d(signals),
        d(check_number(0.1, 0.01, 5.0)),
        d(check_number(2, 1)),
        d(check_number(3, 1)),
    )
    denoiser, step, g = d(denoisers), d(st.sampled_from(STEPS)), d(generator)
    t = judge(lambda: noise_time(schedule, sigma))
    assert t is None or 1 <= t <= schedule.T
    out = judge(lambda: denoise(denoiser, y, sigma))
    assert out is None or out.x0.shape == y.shape
    out = judge(lambda: posterior_draws(denoiser, y, sigma, n, steps, step, g))
    assert out is None or out.shape == (len(y), n, *y.shape[1:])


@case("posterior_given", share=0.3)
def exact_repairs(name, d):
    y, n, sigma, g = d(tensor(2, 8)), d(check_number(3, 1)), d(check_number(0.1, 0.5)), d(generator)
    measured = judge(lambda: Measurement.samples(torch.arange(16) % 2 == 0, sigma))
    if measured is not None:
        judge(lambda: posterior_given(FAMILY, measured, y, linear(1000), n, g, moves=d(check_number(2, 0))))
    mask = d(st.one_of(tensor(16), st.just(torch.arange(16) > 3)))
    judge(lambda: Measurement.samples(mask, sigma))
    judge(lambda: Measurement.low_pass(n, sigma, sigma))


@case("shipped_recipe", "pretrained", share=0.1)
def what_ships(name, d):
    assert judge(shipped_recipe).p_conditional > 0 and judge(lambda: [pretrained()])


# --- the tests ----------------------------------------------------------------------------------------


def test_every_door_is_attacked():
    """Whatever is given a batch of signals, a size or a file by a reader; inside, the formula stands alone."""
    rooms = ("signals", "diffusion", "exact", "networks", "training", "sampling", "measures")
    offered = {name for room in rooms for name in import_module(f"ddpm_lib.{room}").__all__} | {"check_signals"}
    assert set(CASES) <= offered and len(CASES) > 50


@pytest.mark.parametrize("name", sorted(CASES))
def test_hostile_input(name, whole_file):
    FILE[:] = [whole_file]

    @settings(
        max_examples=max(2, int(SHARE[name] * (100 if LONG else 5))),
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(st.data())
    def run(data):
        CASES[name](data.draw)

    run()


@pytest.mark.parametrize("entry", corpus, ids=lambda entry: entry["call"][:60])
def test_what_once_broke_something(entry):
    """Each of these gave NaN, a wrong result or a traceback from inside torch."""
    names = {**globals(), "HO": HO, "FAMILY": FAMILY, "DENOISERS": DENOISERS}
    result = judge(lambda: eval(entry["call"], names))
    assert (result is None) == entry["refused"], result


def test_the_number_of_cases(capsys):
    """The last line of `make fuzz`."""
    with capsys.disabled():
        print(f"\nfuzz: {total[0]} calls on {len(CASES)} names, each with a finite answer or one of our sentences")
    assert total[0] > (2000 if LONG else 200)
