"""The shape of the code: short chains of imports, one reader of time, tests that stand alone.

`make lint` keeps the other limits: statements of a function (ruff), cycles and layers (import-linter).
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_CHAIN = 14


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Who imports whom, also within functions."""
    return grimp.build_graph(
        "arzbench", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def test_only_the_clock_reads_time(imports: grimp.ImportGraph) -> None:
    assert imports.find_modules_that_directly_import("time") == {"arzbench.clock"}
    reading = re.compile(r"\b(datetime|date)\.(now|utcnow|today)\b")
    files = sorted((ROOT / "arzbench").rglob("*.py"))
    assert [path.name for path in files if reading.search(path.read_text(encoding="utf-8"))] == ["clock.py"]


def test_no_chain_of_imports_is_long(imports: grimp.ImportGraph) -> None:
    @functools.cache
    def chain(module: str) -> tuple[str, ...]:
        below = (chain(m) for m in imports.find_modules_directly_imported_by(module) if "arzbench" in m)
        return (module, *max(below, key=len, default=()))

    longest = max((chain(module) for module in imports.modules if "arzbench" in module), key=len)
    assert len(longest) <= LONGEST_CHAIN, " -> ".join(longest)


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_test_module_imports_another() -> None:
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    among = re.compile(r"tests\.(\w+\.)*test_\w+")
    assert [
        f"{path.name} imports {name}" for path in tests for name in imported(path) if among.match(name)
    ] == []
