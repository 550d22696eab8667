"""What the long checks share: one line a case, kept at once, so that a check cut short goes on."""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from arzbench import __version__
from arzbench.measure.host import host_info

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "stable_baselines3", "gymnasium", "numpy", "numba")
GPU_PACKAGES = ("numba-cuda",)


def folder(check: str) -> Path:
    """Where the evidence of a check goes: reports/<check>-<host>-<date>."""
    return ROOT / "reports" / f"{check}-{host_info().name}-{time.strftime('%Y%m%d', time.gmtime())}"


def circumstances(device: str = "cpu", /, **settings: Any) -> dict[str, Any]:
    """Machine, versions and settings: cases made under others are not added to."""
    host = host_info(device)
    packages = PACKAGES if device == "cpu" else (*PACKAGES, *GPU_PACKAGES)
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "settings": settings,
        "code": _code(),
        "host": {
            "cpu": host.cpu,
            "cores": host.cores,
            "device": host.device,
            "system": host.system,
            "python": host.python,
        },
        "versions": {"arzbench": __version__, **versions},
    }


def _code() -> str:
    """The package's own files, so that cases of other code are told apart whatever was committed."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "arzbench").rglob("*.py")):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


class Cases:
    """cases.jsonl: first the circumstances, then a line a case; `done` holds those of an earlier call."""

    def __init__(self, out: Path, given: dict[str, Any]) -> None:
        self._path = out / "cases.jsonl"
        self.done: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            # a line that was cut off is a case that is done again
            first, *lines = [json.loads(t) for t in self._path.read_text().splitlines(True) if t[-1] == "\n"]
            if first != given:
                sys.exit(f"error: {out} holds cases of other settings or another code\nhint: --out FOLDER")
            self.done = {case["case"]: case for case in lines}
            self._write("w", first, *lines)
        else:
            out.mkdir(parents=True, exist_ok=True)
            self._write("w", given)

    def add(self, case: dict[str, Any]) -> None:
        self.done[case["case"]] = case
        self._write("a", case)

    def _write(self, mode: str, *lines: dict[str, Any]) -> None:
        with self._path.open(mode) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def conclude(out: Path, title: str, given: dict[str, Any], counts: dict[str, Any], good: bool) -> int:
    """summary.json and summary.md of a check, told; the exit code."""
    host = given["host"]
    body = {"check": title, "good": good, **counts, **given, "commit": _commit()}
    (out / "summary.json").write_text(json.dumps(body, indent=1) + "\n")
    lines = [
        f"# {title}: {'as promised' if good else 'NOT as promised'}",
        "",
        "| what | seen |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {value} |" for name, value in counts.items()]
    versions = ", ".join(f"{k} {v}" for k, v in {"Python": host["python"], **given["versions"]}.items())
    machine = f"{host['cpu']}, {host['cores']} cores, device {host['device']}, {host['system']}"
    lines += ["", f"On {machine}; {versions}."]
    lines += [f"Commit {body['commit']}, code {given['code']}, settings {json.dumps(given['settings'])}."]
    text = "\n".join([*lines, "Every case is in cases.jsonl.", ""])
    (out / "summary.md").write_text(text)
    print(text)
    return 0 if good else 1


def beside_a_busy_process(
    once: Callable[..., dict[str, Any]],
    todo: Iterable[tuple[Any, ...]],
    jobs: int,
    cases: Cases,
    line: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """Call `once` with each of `todo`, `jobs` at a time, while another process never rests; all cases."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as lanes:
            waiting = [lanes.submit(once, *what) for what in todo]
            for future in concurrent.futures.as_completed(waiting):
                cases.add(case := future.result())
                print(f"{len(cases.done):3d}  {line(case)}", flush=True)
    finally:
        busy.kill()
        busy.wait()
    return list(cases.done.values())
