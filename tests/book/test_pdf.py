"""The book as one PDF: tools/pdf.py, with two of its pages."""

import json
import re

import pdf
import pytest
from pypdf import PdfReader

pytestmark = pytest.mark.browser
PAGES = ["chapters/reverse_process.html", "chapters/sampling.html"]


def heading(page):
    """As it stands in the chapter: its number may change."""
    cells = json.loads((pdf.ROOT / page).with_suffix(".ipynb").read_text("utf-8"))["cells"]
    return cells[0]["source"][0].strip("# \n")


REVERSE, SAMPLING = TITLES = [heading(page) for page in PAGES]


@pytest.fixture(scope="module")
def book(html, chromium, tmp_path_factory):
    out = tmp_path_factory.mktemp("pdf") / "book.pdf"
    pdf.make(html, [("Mathematics", PAGES[:1]), ("Model", PAGES[1:])], out, chromium)
    assert [file.name for file in out.parent.iterdir()] == ["book.pdf"]
    return PdfReader(out)


@pytest.fixture(scope="module")
def texts(book):
    return [re.sub(r"\s+", " ", sheet.extract_text()).strip() for sheet in book.pages]


def test_every_page_of_the_book_is_in_it():
    toc = (pdf.ROOT / "_toc.yml").read_text("utf-8")
    assert [page for _, group in pdf.contents() for page in group] == [
        f"{name}.html" for name in re.findall(r"(?:root|file): (\S+)", toc)
    ]


def test_the_table_of_contents_the_outline_and_the_feet_agree(book, texts):
    places = {}

    def walk(items):
        for item in items:
            if isinstance(item, list):
                walk(item)
            else:
                places.setdefault(item.title, book.get_destination_page_number(item) + 1)

    walk(book.outline)
    assert places["Mathematics"] == places[REVERSE] == 3
    assert places["Model"] == places[SAMPLING] > 5
    assert places[SAMPLING] <= places["How many steps?"] <= len(book.pages)
    for title in TITLES:
        assert re.search(rf"{title}\W*{places[title]}\b", texts[1])
        assert title in texts[places[title] - 1]
    for i, text in enumerate(texts, 1):
        title = "Contents" if i == 2 else REVERSE if i < places[SAMPLING] else SAMPLING
        assert text.endswith(f"{i}{title}") == (i > 1)


def test_links_lead_within_the_file_or_to_the_net(book, texts):
    """From one chapter to equation (42) in another, from the contents to both, none to the disk or the server."""
    inside = []
    for i, sheet in enumerate(book.pages):
        for link in (entry.get_object() for entry in sheet.get("/Annots", [])):
            if "/Dest" in link:
                inside.append((i, link["/Dest"][0].idnum, float(link["/Dest"][3])))
            else:
                assert re.match(r"https?://(?!127\.0\.0\.1)", link["/A"]["/URI"])
    sheets = {sheet.indirect_reference.idnum: i for i, sheet in enumerate(book.pages)}
    start = next(i for i, text in enumerate(texts) if i > 2 and text.endswith(SAMPLING))
    assert {sheets[to] for i, to, _ in inside if i == 1} == {2, start}
    back = {(sheets[to], top) for i, to, top in inside if i >= start and sheets[to] < start}
    assert len(back) >= 2 and all(i > 3 or (i == 3 and top < 800) for i, top in back)  # to equations, not to its head


def test_what_paper_cannot_unfold_is_open_or_left_out(texts):
    text = " ".join(texts)
    assert "Show code cell" not in text and "Hide code cell" not in text
    assert "The same, line by line" in text and "Collect the squares" in text  # a derivation that is folded on the page
    assert "eta=1" in text.replace(" ", "")  # the solution of an exercise
