"""The built pages in Chromium, from a server and from disk: nothing fetched elsewhere, nothing dead, nothing raw.

The pages are built here from the outputs stored in the chapters; nothing is executed.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

import ddpm_lib
from conftest import PAGES, Visit

API = [page for page in PAGES if page.startswith("chapters/api/")]
ENTRY = r'<dt class="sig[^"]*" id="(ddpm_lib\.[\w.]+)">(.*?)</dt>'
STATE = '<script type="application/vnd.jupyter.widget-state+json">'

pytestmark = pytest.mark.browser
origins = pytest.mark.parametrize("origin", ["http", "file"])
pages = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="module")
def reader(chromium, bases):
    """One tab for page after page, as a reader has: what it has compiled once it need not compile again."""
    one = Visit(chromium, bases["file"], PAGES[0])
    yield one
    one.tab.close()


@pages
def test_a_page_from_disk_needs_no_host_and_shows_everything(reader, page):
    """From a server, each in a fresh tab: tests/book/test_pages.py."""
    reader.go(page)
    reader.shows_everything()
    reader.players_answer()


@origins
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(visit, origin, scheme):
    seen = visit(origin, PAGES[0], color_scheme=scheme)
    theme = "document.documentElement.dataset.theme"
    ground = "getComputedStyle(document.body).backgroundColor"
    bright = sum(map(int, re.findall(r"\d+", seen.tab.evaluate(ground))[:3])) > 3 * 128
    assert (seen.tab.evaluate(theme), bright) == (scheme, scheme == "light")
    themes = set()
    for _ in range(3):  # auto, light, dark
        seen.tab.locator("button.theme-switch-button:visible").first.click()
        themes.add((seen.tab.evaluate(theme), seen.tab.evaluate(ground)))
    assert len(themes) == 2


def test_every_page_ends_with_edition_citation_and_licences(html):
    for page in PAGES:
        foot = (html / page).read_text("utf-8").split('class="extra_footer"')[1].split("</footer>")[0]
        assert f"Edition {ddpm_lib.__version__}." in foot and "To cite it: The authors" in foot
        assert "CC BY 4.0" in foot and "MIT licence" in foot and "{" not in foot


@origins
def test_search_finds_a_word(visit, origin):
    seen = visit(origin, "search.html?q=wavelet")
    seen.tab.wait_for_selector("#search-results li a")
    assert seen.outside == []
    seen.tab.locator("#search-results li a").first.click()
    seen.tab.wait_for_selector("article h1")
    field = visit(origin, PAGES[0]).tab.locator("button.search-button-field:visible, .search-button__button:visible")
    assert field.count() >= 1


@origins
def test_a_link_into_a_folded_derivation_unfolds_it(visit, origin):
    """Also where the browser does not do so by itself: it is told by hand here, after folding all again."""
    seen = visit(origin, "chapters/the_bound.html#eq-17")
    shown = "document.getElementById('eq-17').closest('details').open"
    assert seen.tab.evaluate(shown)
    seen.tab.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = false; })")
    assert not seen.tab.evaluate(shown)
    seen.tab.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    assert seen.tab.evaluate(shown)


def test_no_link_inside_the_book_is_dead(html):
    class Links(HTMLParser):
        def __init__(self):
            super().__init__()
            self.hrefs, self.ids = [], set()

        def handle_starttag(self, tag, attrs):
            attrs = dict(attrs)
            self.ids |= {attrs.get("id"), attrs.get("name")}
            self.hrefs += [attrs[key] for key in ("href", "src") if attrs.get(key)]

    parsed = {}
    for path in html.rglob("*.html"):
        if "_static" not in path.parts:
            parsed[path] = Links()
            parsed[path].feed(path.read_text("utf-8"))
    assert len(parsed) > len(PAGES)
    dead = []
    for path, links in parsed.items():
        for href in links.hrefs:
            if re.match(r"(https?|mailto|data|javascript):", href):
                continue
            address, fragment = urldefrag(urljoin(path.as_uri(), href))
            target = Path(unquote(address.removeprefix("file://").split("?")[0]))
            if not target.exists() or (fragment and target in parsed and fragment not in parsed[target].ids):
                dead.append(f"{path.relative_to(html)}: {href}")
    assert dead == []


def test_every_public_name_has_one_entry_a_link_to_it_and_its_source(html):
    entries = [(page, *found) for page in API for found in re.findall(ENTRY, (html / page).read_text("utf-8"), re.S)]
    overview = (html / "chapters/api.html").read_text("utf-8")
    for name in ddpm_lib.__all__:
        mine = [entry for entry in entries if entry[1].split(".")[-1] == name and entry[1].count(".") == 3]
        assert len(mine) == 1, f"{name} has {len(mine)} entries in the reference"
        ((page, full, rest),) = mine
        assert f'href="{page.removeprefix("chapters/")}#{full}"' in overview
        assert name == "LEFTOVER" or f'_modules/{full.rpartition(".")[0].replace(".", "/")}.html#{name}"' in rest


def with_players(html):
    found = [page for page in PAGES if STATE in (html / page).read_text("utf-8")]
    assert found, "no chapter has an interactive figure: this test looks at nothing"
    return found


def test_players_stand_still_for_who_prefers_that(visit, html):
    seen = visit("http", with_players(html)[0], reduced_motion="reduce")
    seen.players_are_ready()
    player = seen.tab.locator(".path-player").first
    player.locator("input").press("Home")
    player.locator("button", has_text="Next").click()
    assert player.locator("input").input_value() == "1"
    seen.tab.wait_for_timeout(300)
    assert player.locator("input").input_value() == "1"


def test_a_player_without_its_state_says_so(visit, html):
    page = with_players(html)[0]
    text = re.sub(rf"{re.escape(STATE)}.*?</script>", "", (html / page).read_text("utf-8"), flags=re.S)
    broken = html / page.replace(".html", "-without-state.htm")  # not .html: another process may be reading the links
    broken.write_text(text, "utf-8")
    try:
        seen = visit("http", str(broken.relative_to(html)))
        seen.tab.wait_for_selector(".widget-note")
        assert "running notebook" in seen.tab.locator(".widget-note").first.text_content()
    finally:
        broken.unlink()


@pytest.mark.parametrize(("origin", "motion"), [("http", "no-preference"), ("file", "reduce")])
def test_the_network_in_the_page_makes_a_wavelet_that_was_asked_for(visit, origin, motion):
    """Press, wait, read the verdict: by the keyboard, with what is asked for, and for a signal with a hole."""
    seen = visit(origin, "chapters/sampling.html", reduced_motion=motion)
    seen.players_are_ready()
    stage = seen.tab.locator(".stage")
    verdict, go = stage.get_by_role("status"), stage.locator("button.main")

    def press():
        go.focus()
        go.press("Enter")
        verdict.get_by_text("residual").wait_for()
        return verdict.text_content()

    free = press()
    assert ": valid" in free
    seen.tab.emulate_media(reduced_motion="reduce")  # one film is enough
    wish = stage.get_by_label("w not asked")
    wish.focus()
    wish.press("Home")
    asked = press()
    assert ": valid" in asked and abs(float(re.search(r"w = ([\d.]+)", asked)[1]) - 4) < 0.2
    stage.get_by_label("fill the holes of a signal").check()
    assert "In the holes" in press()
    assert len(stage.locator("svg[role=img]").get_attribute("aria-label")) > 20
    assert not seen.outside and not seen.errors
