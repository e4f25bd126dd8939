"""What every built page owes its readers: it can be used by everybody, it is light, and nothing in it is dead.

`make test-browser` shows the line that each page prints.
"""

import gzip
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [file for kind in ("ipynb", "md") for file in (ROOT / "chapters").rglob(f"*.{kind}")]
PAGES = sorted(file.relative_to(ROOT).with_suffix(".html").as_posix() for file in FILES)
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]'
RULES = {  # in the dark only colours differ
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "dark": ["color-contrast"],
}
MAX_BYTES = 1_500_000  # gzipped, before anything is pressed
MAX_SECONDS = 3.0  # until the text can be read: below 1 on a quiet machine, and a busy one must not fail for it
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

pytestmark = pytest.mark.browser


def findings(tab, scheme):
    """What axe-core calls serious or critical: rule, how often, the first element."""
    tab.evaluate(f"() => {{ {AXE}; window.axe ??= axe; }}")
    found = tab.evaluate("rules => axe.run(document, { runOnly: rules, resultTypes: ['violations'] })", RULES[scheme])
    bad = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    return [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:120]) for v in bad]


def weight(html, addresses):
    """Bytes on their way to the reader, gzipped, of what a page asked for."""
    files = {html / unquote(urlsplit(a).path.lstrip("/")) for a in addresses if a.startswith("http")}
    return sum(len(gzip.compress(file.read_bytes(), 6)) for file in files if file.is_file())


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_used_by_everybody_and_is_light(visit, html, page):
    """One visit: everything is there; light, then dark; then as narrow as a phone."""
    seen, bad = visit("http", page, color_scheme="light"), {}
    seen.shows_everything()
    size = weight(html, seen.asked)
    painted = first_text(seen)
    if painted > MAX_SECONDS:  # the machine may have been busy
        painted = first_text(visit("http", page))
    seen.tab.add_style_tag(content="* { transition: none !important; }")  # axe would see a colour on its way
    for scheme in ("light", "dark"):
        seen.tab.emulate_media(color_scheme=scheme)
        seen.tab.evaluate(
            "scheme => { document.documentElement.dataset.theme = scheme; }", scheme
        )  # as its button does
        bad[scheme] = findings(seen.tab, scheme)
    dead = seen.tab.locator(".widget-note").count() + seen.tab.evaluate(
        f"[...document.querySelectorAll('{VIEW}')].filter(v => !v.nextElementSibling?.childElementCount).length"
    )
    sticks_out = []
    for width in (390, 360):
        seen.tab.set_viewport_size({"width": width, "height": 800})
        if seen.tab.evaluate("document.documentElement.scrollWidth") > width:
            sticks_out.append(width)
    print(
        f"\n{page}: {len(seen.outside)} requests to other hosts, {sum(map(len, bad.values()))} findings of axe, "
        f"{size / 1e6:.2f} MB gzipped, {dead} dead controls, first text after {painted:.2f} s"
    )
    assert bad == {"light": [], "dark": []}
    assert size <= MAX_BYTES
    assert dead == 0 and seen.outside == []
    assert painted <= MAX_SECONDS
    assert sticks_out == []


def first_text(seen):
    """Seconds from the request to the first text."""
    seen.tab.wait_for_function(f"{PAINTED} > 0")
    return seen.tab.evaluate(PAINTED) / 1e3


def test_axe_sees_what_is_wrong(visit):
    """A control for the test above: a picture without a text, a button without a name and grey on grey are found."""
    tab = visit("http", PAGES[0]).tab
    bad = '<main><img src="x.png"><button></button><p style="color: #777; background: #888">hardly readable</p></main>'
    tab.evaluate("bad => document.body.insertAdjacentHTML('beforeend', bad)", bad)
    assert {"image-alt", "button-name", "color-contrast"} <= {rule for rule, *_ in findings(tab, "light")}
    assert {rule for rule, *_ in findings(tab, "dark")} == {"color-contrast"}
