"""Measures `arzbench bench` and writes its tables into docs/guides/bench.md, on an idle machine.

python scripts/bench.py                  measure, write profiles/bench/HOST.json, write the page
python scripts/bench.py --device cuda    the same on a GPU
python scripts/bench.py --page           write the page from those records
"""

import re
import subprocess
import sys
from pathlib import Path

from arzbench import store
from arzbench.measure.host import host_info
from arzbench.report.console import to_markdown
from arzbench.report.sheets import host_line
from arzbench.traffic.bench.record import EngineBench, bench_sheets

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "profiles" / "bench"
PAGE = ROOT / "docs" / "guides" / "bench.md"
#: a host's tables, by its name
BLOCK = re.compile(r"(<!-- measured (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(match: re.Match[str]) -> str:
    """The block with the tables of its host's record."""
    file = RECORDS / f"{match[2]}.json"
    bench = store.load(file, "arzbench/bench", EngineBench, "bench")
    tables = "\n".join(to_markdown(sheet) for sheet in bench_sheets(bench))
    head = f"{host_line(bench.host)}; {bench.created[:10]}; `{file.relative_to(ROOT)}`.\n"
    return f"{match[1]}{head}\n{tables}{match[3]}"


def main() -> None:
    if "--page" not in sys.argv:
        RECORDS.mkdir(parents=True, exist_ok=True)
        output = ["--output", str(RECORDS / f"{host_info().key}.json")]
        subprocess.run([sys.executable, "-m", "arzbench", "bench", *sys.argv[1:], *output], check=True)
    text = PAGE.read_text(encoding="utf-8")
    new, count = BLOCK.subn(block, text)
    assert count, "the page lacks its markers"
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
