"""The shape of the code: short files, short functions, no cycles, one reader of time."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
MAX_STATEMENTS = 40

SOURCES = {
    str(path.relative_to(ROOT)): path
    for folder in ("arzbench", "scripts", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PACKAGE = [name for name in SOURCES if name.startswith("arzbench/")]

TIME_MODULES = {"time", "timeit"}
TIME_CALLS = {"now", "utcnow", "today"}


def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text(encoding="utf-8"), name)


def statements(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The statements of a function, nested ones included, its docstring not."""
    inside = sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1
    return inside - (ast.get_docstring(function, clean=False) is not None)


def readings_of_time(module: ast.Module) -> list[str]:
    """Where a module gets at a clock: `import time`, `from time import ...`, `datetime.now()`."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: import {a.name}" for a in node.names if a.name in TIME_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in TIME_MODULES:
            found.append(f"{node.lineno}: from {node.module} import ...")
        elif isinstance(node, ast.Attribute) and node.attr in TIME_CALLS:
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in {"datetime", "date"}:
                found.append(f"{node.lineno}: {owner}.{node.attr}")
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_fits_in_one_reading(name: str) -> None:
    lines = SOURCES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{name} has {lines} lines, at most {MAX_LINES}: split it by subject"


@pytest.mark.parametrize("name", SOURCES)
def test_a_function_does_one_thing(name: str) -> None:
    long = {
        f"{name}:{node.lineno} {node.name}": count
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (count := statements(node)) > MAX_STATEMENTS
    }
    assert not long, f"more than {MAX_STATEMENTS} statements"


@pytest.mark.parametrize("name", [name for name in PACKAGE if name != "arzbench/clock.py"])
def test_only_the_clock_reads_time(name: str) -> None:
    assert not readings_of_time(tree(name)), f"{name}: take an arzbench.clock clock as an argument"


def test_the_search_for_time_finds_it() -> None:
    module = ast.parse(
        "import time\nfrom time import perf_counter\nimport datetime\n"
        "datetime.datetime.now()\nfrom datetime import date\ndate.today()\nclock.now()\n"
    )
    assert [found.split(":")[0] for found in readings_of_time(module)] == ["1", "2", "4", "6"]


def test_no_import_cycles() -> None:
    graph = grimp.build_graph("arzbench", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
