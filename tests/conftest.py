"""What the tests of the pages share: the built pages and where they are, a browser, a tab that counts what leaves."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from book import parts
from filelock import FileLock
from pages import FLAGS, NO_BROWSER, find_browser, served, set_mathematics

ROOT = Path(__file__).resolve().parents[1]

OUT = ROOT / "_build" / "test"
PAGES = [f"{name}.html" for _, names in parts() for name in names]  # in the order of the book
VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]'


@pytest.fixture(scope="session")
def html():
    """The folder of pages, built from stored outputs, warnings as errors; once, if several processes share a run."""
    run, done_in = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), OUT / "run"
    OUT.mkdir(parents=True, exist_ok=True)
    with FileLock(OUT / "lock"):
        if not run or not done_in.exists() or done_in.read_text("utf-8") != run:
            build()
            done_in.write_text(run, "utf-8")
    return OUT / "_build" / "html"


def build():
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [tool, "build", "-W", "-n", "--keep-going", "-q", "--all", "--path-output", OUT, "."]
    environment = os.environ | {"BOOK_EXECUTE": "off"}
    shutil.rmtree(OUT / "_build", ignore_errors=True)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def bases(html):
    """Where the pages are: origin -> address of the folder."""
    with served(html) as address:
        yield {"http": address, "file": f"{html.as_uri()}/"}


@pytest.fixture(scope="session")
def chromium():
    path = find_browser()
    if path is None:
        if os.environ.get("CI") or os.environ.get("DDPM_REQUIRE_BROWSER"):
            pytest.fail(NO_BROWSER)
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """One tab, of a browser or of a context; `asked` are its requests, `errors` what scripts threw."""

    def __init__(self, opener, base, page, **options):
        self.asked, self.errors = [], []
        self.tab = opener.new_page(**options)
        self.tab.set_default_timeout(20_000)
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.base = base
        self.go(page)

    def go(self, page):
        self.asked.clear(), self.errors.clear()
        self.tab.goto(self.base + page)
        self.tab.wait_for_load_state("load")

    @property
    def outside(self):
        """The requests that left the book; the browser knows no other host, so none arrived."""
        return [url for url in self.asked if not url.startswith((self.base, "data:", "blob:"))]

    def math_is_set(self):
        set_mathematics(self.tab)

    def players_are_ready(self):
        self.tab.wait_for_function(
            f"""[...document.querySelectorAll('{VIEW}')].every(
                  (view) => view.nextElementSibling?.matches('[data-ready], :has(.widget-note)'))"""
        )

    def shows_everything(self):
        """Nothing is fetched elsewhere, no script fails, all mathematics is set, every picture is there and told."""
        self.math_is_set()
        self.players_are_ready()
        assert self.outside == []
        assert self.errors == []
        counts = self.tab.evaluate(
            """() => ({
                 math: document.querySelectorAll('article .math').length,
                 set: document.querySelectorAll('article .math mjx-container').length,
                 wrong: document.querySelectorAll('mjx-merror, [data-mjx-error]').length,
               })"""
        )
        assert counts["set"] >= counts["math"]
        assert counts["wrong"] == 0
        text = self.tab.evaluate(
            """() => { const page = document.querySelector('article').cloneNode(true);
                 page.querySelectorAll('pre, code, script, style, mjx-container').forEach((e) => e.remove());
                 return page.textContent; }"""
        )
        assert not re.search(r"\$\$|\\\(|\\\[|\{[a-z]+\}`", text), "raw TeX or a raw role"
        pictures = self.tab.evaluate(
            "[...document.querySelectorAll('article img')].map((i) => [i.alt, i.complete && i.naturalWidth])"
        )
        assert all(len(alt) > 20 and width for alt, width in pictures), pictures

    def players_answer(self):
        """Each interactive figure that is a player obeys the keyboard and its button, and moves."""
        players = self.tab.locator(".path-player").all()
        assert len(players) + self.tab.locator(".stage").count() == self.tab.locator(VIEW).count()
        assert self.tab.locator(".widget-note").count() == 0
        for player in players:
            slider, label, button = player.locator("input"), player.locator("output"), player.locator("button")

            def state(player=player, slider=slider, label=label):
                lines = player.locator("polyline").evaluate_all("all => all.map(l => l.getAttribute('points'))")
                return slider.get_attribute("aria-valuetext"), label.text_content(), lines

            assert slider.get_attribute("aria-label")
            assert len(player.locator("svg").get_attribute("aria-label")) > 20
            slider.focus()
            slider.press("Home")
            first = state()
            slider.press("ArrowRight")
            second = state()
            assert first[0] == first[1] != second[1] == second[0]
            assert first[2] != second[2]
            assert all("NaN" not in points for points in second[2])
            slider.press("Home")
            assert button.text_content() == "Play"
            button.click()
            self.tab.wait_for_function("([e, old]) => e.textContent !== old", arg=[label.element_handle(), first[1]])
            button.click()
            assert button.text_content() == "Play"
        assert self.errors == []


@pytest.fixture
def visit(chromium, bases):
    opened = []

    def open_page(origin, page, opener=None, **options):
        opened.append(Visit(opener or chromium, bases[origin], page, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.tab.close()
