"""Measures `arzbench bench` and writes its tables into docs/guides/bench.md, on an idle machine.

python scripts/bench.py            measure, keep profiles/bench/HOST.json, write the page
python scripts/bench.py --page     write the page from what is kept
"""

import re
import subprocess
import sys
from pathlib import Path

from arzbench import store
from arzbench.bench.record import Bench
from arzbench.measure.host import host_info
from arzbench.report.benchsheets import bench_sheets
from arzbench.report.render import to_markdown
from arzbench.report.sheets import host_line

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guides" / "bench.md"
BLOCK = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    kept = ROOT / "profiles" / "bench" / f"{host_info().key}.json"
    if "--page" not in sys.argv:
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "arzbench", "bench", "--output", str(kept)]
        subprocess.run(command, check=True)
    bench = store.load(kept, "arzbench/bench", Bench, "bench")
    tables = "\n".join(to_markdown(sheet) for sheet in bench_sheets(bench))
    head = f"{host_line(bench.host)}; {bench.created[:10]}; `{kept.relative_to(ROOT)}`.\n"
    text = PAGE.read_text(encoding="utf-8")
    new, count = BLOCK.subn(lambda found: f"{found[1]}{head}\n{tables}{found[2]}", text)
    assert count == 1, "the page lacks its markers"
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
