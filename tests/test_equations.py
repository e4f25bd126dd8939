"""The list of 52 equations: complete, every check passes, every control fails, the pinned numbers are reached."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from ddpm_lib import equations
from ddpm_lib.equations import ALL, CHAPTERS, STEPS, VERDICTS, equation
from ddpm_lib.equations.__main__ import main
from ddpm_lib.equations.core import Finding
from ddpm_lib.equations.eight_steps import Chain
from ddpm_lib.equations.likelihood import CHAIN, NLL, PATHS, RATIO
from ddpm_lib.equations.toys import from_betas, gauss_bound, gauss_entropy, gauss_sampler, right_step, tables

each = pytest.mark.parametrize("eq", ALL, ids=lambda eq: f"eq-{eq.number}")
NOTEBOOKS = Path(__file__).resolve().parents[1] / "chapters"


def test_the_list_has_every_number_once_and_the_verdicts_of_the_audit():
    assert [eq.number for eq in ALL] == list(range(1, 53))
    counts = Counter(eq.verdict for eq in ALL)
    assert tuple(counts[v] for v in VERDICTS) == (29, 6, 11, 4, 2)
    assert equation(45).number == 45


@each
def test_an_entry_says_what_is_right_and_why(eq):
    assert eq.step in STEPS and eq.chapter in CHAPTERS
    assert eq.controls, "a check that nothing fails may check nothing"
    if eq.verdict != "correct":
        assert eq.right and eq.why
    if eq.verdict.startswith("wrong"):
        assert any(name.startswith("as printed") for name in eq.controls)
    for tex in (eq.printed, eq.right):
        assert tex.count("{") == tex.count("}") and tex.count(r"\big\lVert") == tex.count(r"\big\rVert")


@each
def test_the_right_form_passes(eq):
    finding = eq.run()
    assert finding.ok, str(finding)


@each
def test_every_control_fails(eq):
    for name, finding in eq.run_controls().items():
        assert not finding.ok, f"({eq.number}) {name}: {finding}"


@each
def test_the_book_carries_the_equation_and_its_derivation_under_their_numbers(eq):
    for link, tag in ((eq.link, str(eq.number)), (eq.derivation, eq.step)):
        name, anchor = link.split("#")
        cells = json.loads((NOTEBOOKS / name).read_text("utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        assert text.count(f'<a id="{anchor}"></a>') == 1, link
        after = text.split(f'<a id="{anchor}"></a>')[1]
        assert re.search(r"\$\$.*?\$\$", after, re.S).group().count(f"\\tag{{{tag}}}") == 1, link


def test_the_twenty_steps_are_in_the_chapters():
    assert sorted(STEPS, key=lambda s: int(s[1:])) == [f"D{k}" for k in range(1, 21)]
    for step, chapter in STEPS.items():
        assert f'<a id=\\"eq-{step.lower()}\\"></a>' in (NOTEBOOKS / f"{chapter}.ipynb").read_text("utf-8")


def test_a_finding_of_nan_does_not_pass():
    assert not Finding("x", float("nan"), 1.0).ok and Finding("x", 1.0, 1.0).ok


@pytest.mark.slow
def test_the_command_prints_52_rows_and_its_last_line(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 53
    assert re.fullmatch(r"52 of 52 checked, 0 failed, \d+ controls fail as they must", lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["form", "control"])
def test_the_command_fails_when_a_check_fails_or_a_control_passes(monkeypatch, capsys, broken):
    from dataclasses import replace

    old = equation(44)
    new = replace(old, form=old.controls["as printed"]) if broken == "form" else replace(old, controls={"x": old.form})
    monkeypatch.setattr("ddpm_lib.equations.__main__.ALL", (*ALL[:43], new, *ALL[44:]))
    assert main([]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_the_eight_step_model_has_the_audit_s_numbers():
    assert CHAIN.gap() == pytest.approx(0.215066846187, abs=1e-12)
    assert CHAIN.bound() == pytest.approx(0.69845, abs=1e-5)
    assert (RATIO < NLL).mean() == pytest.approx(0.337, abs=0.006)  # (24) path by path
    assert (Chain().log_ratio(Chain().paths(100_000)) < Chain().nll()).mean() == pytest.approx(0.381, abs=0.006)
    assert (equations.divergences.line_38(CHAIN, PATHS) < NLL).mean() == pytest.approx(0.567, abs=0.006)


def test_a_bound_with_the_exact_reverse_chain_and_prior_has_no_gap():
    exact = Chain(exact_prior=True)
    assert exact.model() == pytest.approx((0.4, 0.3), abs=1e-12)
    assert exact.bound(0.3) == pytest.approx(exact.nll(0.3), abs=1e-12)


def test_the_gaussian_toy_has_the_audit_s_numbers():
    assert [gauss_bound(p) for p in (1, 0.0769363232, 0.0025)] == pytest.approx(
        [1.418939, 0.140880, -1.531759], abs=1e-6
    )
    assert gauss_bound(0.0769363232, variance="best") - gauss_entropy(0.0769363232) < 1e-9
    mean, std = gauss_sampler(right_step)
    assert (mean, std) == pytest.approx((0.5, 0.2509), abs=1e-4)
    assert gauss_sampler(right_step, variance="beta_tilde")[1] == pytest.approx(0.2463, abs=1e-4)
    assert gauss_sampler(lambda a, b, *_: (a**-0.5, -(b**0.5)))[1] == pytest.approx(0.101, abs=1e-3)  # (45)
    assert gauss_sampler(right_step, sign=-1)[1] == pytest.approx(6.0e7, rel=0.01)  # (49)


def test_tables_pin_the_schedule():
    alpha, beta, ab, abp, bt = tables()
    assert (ab[1000], bt[2], bt[1], abp[1]) == pytest.approx((4.035829765e-5, 5.4531876613e-5, 0, 1), rel=1e-9)
    assert alpha[7] == 1 - beta[7]
    assert from_betas(1e-4, 0.02, 50).alpha_bar(50).item() == pytest.approx(0.602952, abs=1e-6)
