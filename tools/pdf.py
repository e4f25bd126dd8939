"""The built book as one PDF: `make pdf`.

Chromium prints page after page in the order of _toc.yml, pypdf joins them. Figures that one can play with show the
last frame of their film, folded derivations and solutions are open, code that only draws is left out. Links between
pages lead within the file; the outline, the table of contents and the numbers at the foot are made here.
"""

from __future__ import annotations

import html
import io
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urldefrag, urljoin

import yaml
from book import parts
from pages import FLAGS, NO_BROWSER, find_browser, served, set_mathematics
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Destination, Fit, IndirectObject, NameObject

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
OUT = ROOT / "_build" / "diffusion-on-wavelets.pdf"
PAPER: dict[str, Any] = {
    "format": "A4",
    "scale": 0.8,
    "print_background": True,
    "margin": {"top": "16mm", "bottom": "20mm", "left": "20mm", "right": "20mm"},
}
HREF = re.compile(r'href="([^"]+)"')
# What is done to a page before it is printed. Chromium gives a place in the file to what a link of the same page leads
# to, so each place that is wanted gets a link, too small to be seen, which is dropped again.
PREPARE = """(wanted) => {
  document.querySelectorAll('#jb-print-toc, .viewcode-link').forEach((element) => element.remove());
  for (const slider of document.querySelectorAll('.path-player input[type=range]')) {
    slider.value = slider.max;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
  }
  for (const table of document.querySelectorAll('.cell_output pre')) {  // as small as its longest line asks for
    const columns = Math.max(...table.textContent.split('\\n').map((line) => line.length));
    table.style.fontSize = `${Math.min(11.8, 680 / (0.602 * columns))}px`;
  }
  const links = document.createElement('div');
  links.style = 'font-size: 1px; line-height: 1px';
  for (const id of wanted.filter((id) => document.getElementById(id))) {
    const link = document.createElement('a');
    link.href = '#' + id;
    link.style = 'color: transparent; text-decoration: none';
    link.textContent = '.';
    links.append(link);
  }
  document.querySelector('article').append(links);
  return [...document.querySelectorAll('article :is(h1, h2)')].map((heading) => {
    const copy = heading.cloneNode(true);
    copy.querySelectorAll('.headerlink, mjx-container > svg').forEach((element) => element.remove());
    return [heading.tagName, copy.textContent.trim(), heading.closest('section')?.id ?? ''];
  });
}"""
STYLE = """body { font: 14px/1.45 sans-serif; margin: 0 } a { color: inherit; text-decoration: none }
h1 { font-size: 44px; margin: 260px 0 12px } h2 { font-size: 15px; margin: 12px 0 2px }
.cover { break-after: page } li { display: flex; gap: 1ex } ul { list-style: none; margin: 0; padding: 0 }
li::after { content: attr(data-page); order: 3 } li span { flex: 1; border-bottom: 1px dotted #999; height: 1em }"""


class Printed(NamedTuple):
    """A page of the book as sheets, and its headings (tag, text, id)."""

    name: str
    sheets: PdfReader
    headings: list[tuple[str, str, str]]

    @property
    def title(self) -> str:
        return self.headings[0][1]


def contents() -> list[tuple[str, list[str]]]:
    """The parts of the book: caption and pages, as paths of HTML files."""
    return [(caption, [f"{name}.html" for name in names]) for caption, names in parts()]


def wanted_places(folder: Path, pages: Sequence[str]) -> dict[str, set[str]]:
    """Page → the ids on it that any of the pages links to."""
    wanted = defaultdict[str, set[str]](set)
    for page in pages:
        for href in HREF.findall((folder / page).read_text("utf-8")):
            address, place = urldefrag(urljoin(page, html.unescape(href)))
            wanted[address or page].add(unquote(place))
    return wanted


def print_page(tab: Page, base: str, name: str, wanted: set[str]) -> Printed:
    tab.goto(base + name)
    tab.wait_for_load_state("load")
    set_mathematics(tab)
    sections = tab.evaluate("[...document.querySelectorAll('article section[id]')].map((section) => section.id)")
    headings = [tuple(h) for h in tab.evaluate(PREPARE, sorted(wanted.union(sections) - {""}))]
    if not headings:
        raise ValueError(f"{name} has no heading: is it a page of the book?")
    return Printed(name, PdfReader(io.BytesIO(tab.pdf(**PAPER))), headings)


def sheets_of(tab: Page, body: str, **options: Any) -> PdfReader:
    tab.set_content(f"<!doctype html><html lang=en><meta charset=utf-8><style>{STYLE}</style>{body}")
    return PdfReader(io.BytesIO(tab.pdf(**PAPER | options)))


def front_matter(tab: Page, parts: Sequence[tuple[str, list[Printed]]], base: str) -> PdfReader:
    """Cover and table of contents. Their length moves all numbers, so they are printed until that is right.

    The tab is on a page of the book: the cover ends with the foot of that.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    foot, length = tab.locator(".extra_footer").first.inner_html(), 2
    while True:
        number, rows = length + 1, []
        for caption, printed in parts:
            rows.append(f"<h2>{html.escape(caption)}</h2><ul>")
            for one in printed:
                rows.append(
                    f"<li data-page={number}><a href={base}{one.name}>{html.escape(one.title)}</a><span></span></li>"
                )
                number += len(one.sheets.pages)
            rows.append("</ul>")
        front = sheets_of(
            tab,
            f"<div class=cover><h1>{config['title']}</h1><p>A DDPM you can check line by line</p>{foot}</div>"
            f"{''.join(rows)}",
        )
        if len(front.pages) == length:
            return front
        length = len(front.pages)


def join(front: PdfReader, parts: Sequence[tuple[str, list[Printed]]], base: str) -> PdfWriter:
    """All sheets, with an outline, and with links that lead from page to page."""
    book = PdfWriter()
    for sheet in front.pages:
        book.add_page(sheet)
    first: dict[str, int] = {}
    owners = [base] * len(front.pages)  # the address that a sheet belongs to
    places: dict[str, tuple[int, float]] = {}  # address → sheet, height
    for one in (one for _, printed in parts for one in printed):
        first[one.name] = len(book.pages)
        places[base + one.name] = first[one.name], float(one.sheets.pages[0].mediabox.top)
        for name, place in one.sheets.named_destinations.items():
            at = one.sheets.get_destination_page_number(place)
            if at is not None:
                address = f"{base}{one.name}#{unquote(name.removeprefix('/'))}"
                places[address] = first[one.name] + at, float(place.get("/Top", 0))
        for sheet in one.sheets.pages:
            book.add_page(sheet)
            owners.append(base + one.name)
    for caption, printed in parts:
        parent = book.add_outline_item(title=caption, page_number=first[printed[0].name]) if caption else None
        for one in printed:
            chapter = book.add_outline_item(title=one.title, page_number=first[one.name], parent=parent)
            for tag, text, section in one.headings:
                if tag == "H2" and (there := places.get(f"{base}{one.name}#{section}")):
                    book.add_outline_item(title=text, page_number=there[0], parent=chapter, fit=Fit.xyz(top=there[1]))
    for here, sheet in zip(owners, book.pages, strict=True):
        links = ArrayObject(link for link in sheet.get("/Annots", []) if lead(link.get_object(), here, places, book))
        if "/Annots" in sheet:
            sheet[NameObject("/Annots")] = links
    book.add_metadata({"/Title": "Diffusion on Wavelets"})
    return book


def lead(link: Any, here: str, places: dict[str, tuple[int, float]], book: PdfWriter) -> bool:
    """Let a link lead to its place in the file; whether it is to be kept."""
    _, low, _, high = (float(v) for v in link["/Rect"])
    if high - low < 2:  # one of those that were added
        return False
    if "/Dest" in link:
        address = f"{here}#{unquote(str(link['/Dest']).removeprefix('/'))}"
    else:
        address = unquote(str(link.get("/A", {}).get("/URI", "")))
    there = places.get(address) or places.get(urldefrag(address)[0])
    if there is None:
        return address.startswith(("http://", "https://")) and not address.startswith("http://127.0.0.1")
    link.pop("/A", None)
    sheet = cast(IndirectObject, book.pages[there[0]].indirect_reference)
    link[NameObject("/Dest")] = Destination("", sheet, Fit.xyz(top=there[1])).dest_array
    return True


def number(tab: Page, book: PdfWriter, titles: Sequence[str]) -> None:
    """A foot under each sheet but the first: what is read here, and the number of the sheet."""
    sheets = "".join(
        "<div style='height: 100vh; break-after: page; position: relative'><p style='position: absolute; bottom: 8mm; "
        f"margin: 0; left: 20mm; right: 20mm; color: #555; font-size: 11px'>{html.escape(title)}"
        f"<b style='float: right; font-weight: 400'>{i}</b></p></div>"
        for i, title in enumerate(titles, 1)
    )
    margin = dict.fromkeys(("top", "bottom", "left", "right"), "0")
    feet = sheets_of(tab, sheets, scale=1, margin=margin, print_background=False)
    for sheet, foot in list(zip(book.pages, feet.pages, strict=False))[1:]:
        sheet.merge_page(foot)
    for sheet in book.pages:
        sheet.compress_content_streams()
    book.compress_identical_objects()


def make(folder: Path, parts: Sequence[tuple[str, list[str]]], out: Path, chromium: Browser) -> None:
    """Print the pages in `folder` and write them to `out` as one file."""
    pages = [page for _, group in parts for page in group]
    wanted = wanted_places(folder, pages)
    tab = chromium.new_page(color_scheme="light")
    tab.set_default_timeout(120_000)
    with served(folder) as base:
        printed = [(caption, [print_page(tab, base, page, wanted[page]) for page in group]) for caption, group in parts]
        front = front_matter(tab, printed, base)
    book = join(front, printed, base)
    titles = ["Contents"] * len(front.pages)
    titles += [one.title for _, group in printed for one in group for _ in one.sheets.pages]
    number(tab, book, titles)
    tab.close()
    part = out.with_suffix(".part")
    book.write(part)
    part.replace(out)


def main() -> None:
    browser = find_browser()
    if browser is None:
        sys.exit(NO_BROWSER)
    if not (HTML / "index.html").exists():
        sys.exit("There are no pages in _build/html yet: run make book first.")
    with sync_playwright() as playwright:
        make(HTML, contents(), OUT, playwright.chromium.launch(executable_path=browser, args=FLAGS))
    print(f"{OUT.relative_to(ROOT)}: {len(PdfReader(OUT).pages)} pages, {OUT.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
