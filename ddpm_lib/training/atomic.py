"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["prepare", "write_whole", "written"]


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """An open file, in a folder that is made where there is none, that appears under its name when all is written.

    A kill, a full disk or a loss of power leaves what was there before.

    Raises:
        OSError: in one sentence, why it could not be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # in the same folder: only there is renaming atomic
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
        with suppress(OSError):  # where the folder cannot be written there is no part
            part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write these bytes as `written` does."""
    with written(path) as file:
        file.write(data)


def prepare(path: Path) -> None:
    """Make a file's folder, and remove what killed writers of it left there: a living one would lose its work.

    Raises:
        OSError: in one sentence, why nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in path.parent.glob(f"{path.name}.*.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(f"Nothing can be written to the folder {path.parent} ({error.strerror}).") from error
