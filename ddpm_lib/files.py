"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["prepare", "write_whole"]


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file, and its folder where there is none.

    A kill, a full disk or a loss of power leaves what was there before.

    Raises:
        OSError: in one sentence, why it could not be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # in the same folder: only there is renaming atomic
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):  # where the folder cannot be written there is no part
            part.unlink(missing_ok=True)
        raise type(error)(f"{path} cannot be written ({error.strerror}); what was there is untouched.") from error


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
