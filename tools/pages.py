"""A browser, and the built pages as a server has them: for the PDF and for the tests of the pages."""

from __future__ import annotations

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# A browser that looks up nothing by itself and finds no other host, also inside a container.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
NO_BROWSER = "no Chromium found (Debian: apt install chromium-headless-shell; or name one in DDPM_BROWSER)"


def find_browser() -> str | None:
    """The first that is there; one without windows needs a quarter less time for all pages."""
    shells = ("chromium-headless-shell", "chrome-headless-shell")
    names = (os.environ.get("DDPM_BROWSER"), *shells, "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder can be read."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def set_mathematics(tab: Any) -> None:
    """Wait until all formulas of a page are set."""
    tab.wait_for_function("window.MathJax?.startup?.promise || !document.querySelector('.math')")
    tab.evaluate("window.MathJax?.startup?.promise?.then(() => true)")
