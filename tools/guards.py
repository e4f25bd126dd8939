"""How much of the library's code refuses something: ``python tools/guards.py`` prints a line per room and the total.

A guard is a ``raise``, an ``assert`` or a call of `ddpm_lib.checks`. Lines of code are neither blank nor comments nor
docstrings; imports count. The aim is 5 guards in 100 lines: what comes in is checked once, at the door, and inside the
formula stands alone.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "ddpm_lib"
CHECKS = {
    node.name
    for node in ast.parse((LIBRARY / "checks.py").read_text("utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name not in ("describe", "at_least_float32")  # these refuse nothing
}


def code_lines(text: str) -> set[int]:
    """The numbers of the lines that hold code."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def guards(text: str) -> int:
    """The number of places that refuse something, or see to it that something is refused."""
    nodes = list(ast.walk(ast.parse(text)))
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    refusals = sum(isinstance(node, ast.Raise | ast.Assert) for node in nodes)
    return refusals + sum(isinstance(node.func, ast.Name) and node.func.id in CHECKS for node in calls)


def count(files: list[Path]) -> tuple[int, int, int]:
    """All lines, lines of code, guards."""
    texts = [file.read_text("utf-8") for file in files]
    return (
        sum(len(text.splitlines()) for text in texts),
        sum(len(code_lines(text)) for text in texts),
        sum(map(guards, texts)),
    )


def main() -> None:
    rooms = [LIBRARY, *sorted(path for path in LIBRARY.iterdir() if path.is_dir() and path.name != "equations")]
    every: list[Path] = []
    print(f"{'':12} lines   code  guards")
    for room in rooms:
        files = sorted(room.glob("*.py"))
        every += files
        if files:
            lines, code, refused = count(files)
            print(f"{room.name:12} {lines:5} {code:6} {refused:7}   {refused / code:.1%}")
    lines, code, refused = count(every)
    print(f"{'all':12} {lines:5} {code:6} {refused:7}   {refused / code:.1%}")


if __name__ == "__main__":
    main()
