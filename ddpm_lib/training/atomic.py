"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["atomic_write", "prepare"]


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at ``path`` only when the block ends without an error.

    Missing folders are created. A kill, a full disk or a loss of power leaves what was there before.

    Raises:
        OSError: one sentence that says why the file could not be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "below", "file")
    ...     with atomic_write(path) as file:
    ...         size = file.write(b"new")
    ...         before = path.exists()
    ...     print(before, path.read_bytes())
    False b'new'
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # renaming is atomic within a file system only
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise type(error)(f"{path} cannot be written ({error.strerror}); what was there is untouched.") from error
    finally:
        with suppress(OSError):  # a folder that cannot be written holds no part
            part.unlink(missing_ok=True)


def prepare(path: Path) -> None:
    """Create the folder of a file and remove the parts that killed processes left there.

    No other process may be writing the file: it would lose its part.

    Raises:
        OSError: one sentence that says why the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in path.parent.glob(f"{path.name}.*.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(f"Nothing can be written to the folder {path.parent} ({error.strerror}).") from error
