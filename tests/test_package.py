"""What a wheel of arzbench holds."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_carries_code_types_and_profiles(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    profiles = [
        path.relative_to(ROOT)
        for kind in ("platforms", "studies", "imported")
        for path in (ROOT / "profiles" / kind).iterdir()
    ]
    assert {path.parts[1] for path in profiles} == {"platforms", "studies", "imported"}
    assert {f"arzbench/{path}" for path in profiles} <= names
    assert {"arzbench/py.typed", "arzbench/__main__.py", "arzbench_gymnasium.pth"} <= names
    assert not [name for name in names if name.startswith(("tests", "scripts", "docs", "profiles"))]
