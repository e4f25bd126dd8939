"""What every built page owes its readers: it can be used by everybody, it is light, and nothing in it is dead.

`make test-browser` shows the line that each page prints.
"""

import gzip
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

from conftest import PAGES, VIEW

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}  # all that is another in the dark
THE_REST = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {rule: {"enabled": False} for rule in COLOURS["runOnly"]},
}
STILL = "* { transition: none !important; }"  # axe would see a colour on its way
# axe looks at every element, and a formula has hundreds: of a page's formulas the first stays whole, the others keep
# what carries their name.
ONE_FORMULA = """() => {
  [...document.querySelectorAll('mjx-container')].slice(1).forEach((formula) => {
    const text = document.createElement('span');
    text.textContent = 'x = y';
    formula.replaceChildren(text);
  });
}"""
# Contrast is a matter of colours and sizes, of an element and of those it stands in, and whether a link is seen to be
# one is a matter of these, of its line and of the text around it. Of all that are alike in this, light and dark, only
# the first is left.
ONE_OF_A_KIND = """() => {
  const all = [...document.body.querySelectorAll('*')], looks = all.map(() => '');
  const numbers = new Map(), kinds = new Map(), again = new Set();
  for (const scheme of ['dark', 'light']) {
    document.documentElement.dataset.theme = scheme;
    all.forEach((element, i) => {
      const style = getComputedStyle(element);
      for (const name of ['color', 'backgroundColor', 'backgroundImage', 'fontSize', 'fontWeight', 'opacity',
                          'display', 'visibility', 'textShadow', 'textDecorationLine', 'borderBottomStyle'])
        looks[i] += style[name] + ';';
    });
  }
  all.forEach((element, i) => {
    const speaks = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const look = [kinds.get(element.parentElement), looks[i], element.matches('a'), speaks].join('/');
    if (numbers.has(look)) again.add(element);
    else numbers.set(look, numbers.size);
    kinds.set(element, numbers.get(look));
  });
  const kept = new Set(all.filter((e) => e.matches('a') && !again.has(e)).map((link) => link.parentElement));
  const removed = [...again].reverse().filter((element) => !kept.has(element.parentElement));
  removed.forEach((element) => element.childElementCount || element.remove());  // from the inside out
}"""
MAX_BYTES = 1_500_000  # gzipped, before anything is pressed
MAX_SECONDS = 3.0  # until the text can be read: below 1 on a quiet machine, and a busy one must not fail for it
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

pytestmark = pytest.mark.browser


def findings(tab, rules):
    """What axe-core calls serious or critical: rule, how often, the first element."""
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(f"() => {{ {AXE}; window.axe ??= axe; }}")
    found = tab.evaluate("rules => axe.run(document, { ...rules, resultTypes: ['violations'] })", rules)
    bad = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    return [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:120]) for v in bad]


def weight(html, addresses):
    """Bytes on their way to the reader, gzipped, of what a page asked for."""
    files = {html / unquote(urlsplit(a).path.lstrip("/")) for a in addresses if a.startswith("http")}
    return sum(zipped(file) for file in files if file.is_file())


@cache
def zipped(file):
    return len(gzip.compress(file.read_bytes(), 6))


@pytest.fixture(scope="module")
def reader(chromium):
    """Who reads page after page, each in a tab of its own: a style sheet that all have is fetched once."""
    context = chromium.new_context(color_scheme="light")
    yield context
    context.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_used_by_everybody_and_is_light(visit, reader, html, page):
    """One visit: everything is there; as narrow as a phone; then light, then dark."""
    seen, bad = visit("http", page, reader), {}
    seen.shows_everything()
    size = weight(html, seen.asked)
    seen.players_answer()
    painted = first_text(seen)
    if painted > MAX_SECONDS:  # the machine may have been busy
        painted = first_text(visit("http", page))
    dead = seen.tab.locator(".widget-note").count() + seen.tab.evaluate(
        f"[...document.querySelectorAll('{VIEW}')].filter(v => !v.nextElementSibling?.childElementCount).length"
    )
    sticks_out, wide = [], seen.tab.viewport_size
    for width in (390, 360):
        seen.tab.set_viewport_size({"width": width, "height": 800})
        if seen.tab.evaluate("document.documentElement.scrollWidth") > width:
            sticks_out.append(width)
    seen.tab.set_viewport_size(wide)
    seen.tab.add_style_tag(content=STILL)
    seen.tab.evaluate(ONE_FORMULA)
    bad["any"] = findings(seen.tab, THE_REST)
    seen.tab.evaluate(ONE_OF_A_KIND)
    for theme in ("light", "dark"):
        in_theme(seen.tab, theme)
        bad[theme] = findings(seen.tab, COLOURS)
    print(
        f"\n{page}: {len(seen.outside)} requests to other hosts, {sum(map(len, bad.values()))} findings of axe, "
        f"{size / 1e6:.2f} MB gzipped, {dead} dead controls, first text after {painted:.2f} s"
    )
    assert bad == {"any": [], "light": [], "dark": []}
    assert size <= MAX_BYTES
    assert dead == 0 and seen.outside == []
    assert painted <= MAX_SECONDS
    assert sticks_out == []


def in_theme(tab, theme):
    tab.emulate_media(color_scheme=theme)
    tab.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)  # as its button does


def first_text(seen):
    """Seconds from the request to the first text."""
    seen.tab.wait_for_function(f"{PAINTED} > 0")
    return seen.tab.evaluate(PAINTED) / 1e3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_sees_what_is_wrong(visit, scheme):
    """A control for the test above: a picture without a text, a button without a name; in one theme, grey on grey and a
    link that looks like the text around it."""
    tab = visit("http", "chapters/bibliography.html").tab
    tab.add_style_tag(
        content=f"""{STILL} html[data-theme='{scheme}'] {{
          p.grey {{ color: #777; background: #888 }}
          a.plain {{ color: color-mix(in srgb, currentColor 90%, gray); text-decoration: none; border: none }} }}"""
    )
    bad = """<img src="x.png"><button></button><p>readable</p><p class="grey">hardly</p><p class="grey">readable</p>
      <p>text around a <a class="plain" href="#a">link</a></p>
      <p>text around a <a class="plain" href="#b">link</a></p>"""
    tab.evaluate("bad => document.querySelector('article').insertAdjacentHTML('beforeend', bad)", bad)
    tab.evaluate(ONE_FORMULA)
    assert {"image-alt", "button-name"} <= {rule for rule, *_ in findings(tab, THE_REST)}
    for left in (2, 1):
        for theme in ("light", "dark"):
            in_theme(tab, theme)
            found = [(rule, n) for rule, n, _ in findings(tab, COLOURS)]
            assert found == ([(rule, left) for rule in COLOURS["runOnly"]] if theme == scheme else [])
        tab.evaluate(ONE_OF_A_KIND)
