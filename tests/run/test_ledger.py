"""The ledger: what counts as progress, what as time, and what a kill leaves."""

from pathlib import Path
from typing import Any

import pytest

from arzbench.errors import StateError, UsageError
from arzbench.facts import Phase
from arzbench.records import LedgerEntry
from arzbench.run import ledger
from arzbench.run.ledger import Ledger


def entry(kind: str, at_s: float = 0.0, training: int = 0, steps: int = 0, **data: Any) -> LedgerEntry:
    phases = {"env step": (2.0 * steps, steps)} if steps else {}
    return LedgerEntry(
        kind=kind, at="2026-01-01", session=1, elapsed_s=at_s, training=training, step=0,
        phases=phases, data=data,
    )  # fmt: skip


def write(path: Path, *entries: LedgerEntry) -> None:
    book = Ledger(path)
    for item in entries:
        book.append(item)


def test_totals_run_over_all_sessions(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, entry("session", rewound_to=0), entry("phases", steps=3), entry("stop"))
    write(path, entry("session", rewound_to=3), entry("phases", 9.0, steps=4, training=1))
    total = ledger.read(path).phases[Phase.ENV_STEP]
    assert (total.seconds, total.units, total.lost_seconds, total.mean_s) == (14.0, 7, 0.0, 2.0)
    told = ledger.read(path)
    assert told.training_phases(0) == {Phase.ENV_STEP: (6.0, 3)}
    assert told.elapsed_s == 9.0
    assert len(told.sessions) == 2
    assert told.stop is None


def test_work_behind_a_resume_is_time_but_not_progress(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, entry("session", rewound_to=0), entry("phases", steps=3), entry("checkpoint", name="a"))
    write(path, entry("phases", steps=5), entry("episodes", returns=[1.0]), entry("stop"))
    write(path, entry("session", rewound_to=2), entry("phases", steps=5), entry("episodes", returns=[2.0]))
    told = ledger.read(path)
    total = told.phases[Phase.ENV_STEP]
    assert (total.units, total.lost_seconds) == (13, 10.0)
    assert told.lost_s == 10.0
    assert [e.data["returns"] for e in told.of_kind("episodes")] == [[2.0]]
    assert [e.data["name"] for e in told.of_kind("checkpoint")] == ["a"]
    assert len(told.of_kind("stop")) == 1


def test_a_session_about_to_begin_can_ask_what_it_goes_back_behind() -> None:
    entries = [entry("session", rewound_to=0), entry("phases", steps=3), entry("phases", steps=4)]
    assert ledger.summarise(entries, 2).training_phases(0) == {Phase.ENV_STEP: (6.0, 3)}
    assert ledger.summarise(entries, 0).training_phases(0) == {}


@pytest.mark.parametrize("torn", [b'{"kind":"pha', b"\x00\x00\x00", b'{"kind":"phases","at":"x","sess'])
def test_a_torn_last_line_is_passed_over_and_mended(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, entry("session"), entry("phases", steps=3))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(ledger.read(path).entries) == 2
    book = Ledger(path)
    assert book.count == 2
    book.append(entry("phases", steps=4))
    assert path.read_bytes().startswith(whole + b'{"kind":"phases"')
    assert [e.kind for e in Ledger(path).entries] == ["session", "phases", "phases"]


def test_a_last_line_that_lost_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, entry("session"), entry("phases", steps=3))
    path.write_bytes(path.read_bytes()[:-1])
    book = Ledger(path)
    assert book.count == 2
    book.append(entry("stop"))
    assert [e.kind for e in Ledger(path).entries] == ["session", "phases", "stop"]


def test_a_broken_line_elsewhere_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, entry("session"))
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(UsageError, match="line 1"):
        Ledger(path)


def test_no_ledger_yet_is_an_empty_one(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").count == 0
    with pytest.raises(UsageError, match="no ledger"):
        ledger.read(tmp_path / "ledger.jsonl")


def test_what_cannot_be_written_is_an_error_of_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="cannot append"):
        Ledger(tmp_path / "file" / "ledger.jsonl").append(entry("stop"))
