"""Files are whole or not there: older ones are migrated, newer ones refused, torn ones survived."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arzbench import store
from arzbench.digest import digest
from arzbench.errors import StateError, UsageError


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str
    count: int = 0


SCHEMA = "arzbench/report"  # any schema does: the file's kind is its record


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "note.json"
    store.save(path, SCHEMA, Note(text="é", count=3))
    assert store.load(path, SCHEMA, Note, "note") == Note(text="é", count=3)
    assert json.loads(path.read_text(encoding="utf-8"))["schema"] == SCHEMA
    assert names(path.parent) == ["note.json"]


@pytest.mark.parametrize("broken", ["replace", "fsync", "write"])
def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "note.json"
    store.write_atomic(path, b"old")
    if broken == "write":
        monkeypatch.setattr("builtins.open", no_space)
    else:
        monkeypatch.setattr(os, broken, no_space)
    with pytest.raises(StateError, match="No space left") as caught:
        store.write_atomic(path, b"new")
    assert str(path) in caught.value.message
    assert caught.value.hint
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["note.json"]


def test_content_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after the rename must find the content: file synced, then renamed, then the folder synced."""
    order: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def spy(*arguments: Any, name: str = name, real: Any = real) -> Any:
            order.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, spy)
    store.write_atomic(tmp_path / "note.json", b"new")
    assert order == ["fsync", "replace", "fsync"]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A file where the folder should be: permission bits do not stop root."""
    (tmp_path / "folder").write_text("a file")
    inside = tmp_path / "folder" / "note.json"
    with pytest.raises(StateError, match="cannot write"):
        store.save(inside, SCHEMA, Note(text="x"))
    with pytest.raises(StateError, match="cannot append"):
        store.append_line(inside, Note(text="x"))
    for folder in (tmp_path / "folder", tmp_path / "folder" / "below"):
        with pytest.raises(UsageError, match="cannot write in") as caught:
            store.ensure_writable(folder, "--out")
        assert "--out" in caught.value.hint
    assert names(tmp_path) == ["folder"]
    store.ensure_writable(tmp_path / "new")
    assert names(tmp_path / "new") == []


def test_a_newer_version_is_refused_with_the_fix() -> None:
    newer = store.VERSIONS[SCHEMA] + 1
    with pytest.raises(UsageError, match=f"version {newer}, this arzbench reads up to") as caught:
        store.check_schema({"schema": SCHEMA, "version": newer}, SCHEMA, "a.json")
    assert "pip install --upgrade arzbench" in caught.value.hint
    assert "a.json" in caught.value.message


def test_an_older_version_goes_through_every_migration_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store.VERSIONS, SCHEMA, 3)
    monkeypatch.setitem(store.MIGRATIONS, (SCHEMA, 1), lambda old: {"text": old["words"], "n": 1})
    monkeypatch.setitem(
        store.MIGRATIONS, (SCHEMA, 2), lambda old: {"text": old["text"] + "!", "count": old["n"] + 1}
    )

    def read(version: int, **body: Any) -> Note:
        text = json.dumps({"schema": SCHEMA, "version": version, **body}).encode()
        return store.decode(text, SCHEMA, Note, "note.json")

    assert read(1, words="hello") == Note(text="hello!", count=2)
    assert read(2, text="hello", n=4) == Note(text="hello!", count=5)
    assert read(3, text="hello", count=6) == Note(text="hello", count=6)


def test_every_released_version_has_its_migration() -> None:
    for schema, newest in store.VERSIONS.items():
        assert [v for v in range(1, newest) if (schema, v) not in store.MIGRATIONS] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"schema": "arzbench/report", "version": 1, "text": NaN}', "NaN is not a number"),
        (b"[1, 2]", "its schema is 'list'"),
        (b"{}", "its schema is None"),
        (b'{"schema": "arzbench/plan", "version": 1}', "its schema is 'arzbench/plan'"),
        (b'{"schema": "arzbench/report"}', "version None"),
        (b'{"schema": "arzbench/report", "version": 0}', "version 0"),
        (b'{"schema": "arzbench/report", "version": "1"}', "version '1'"),
        (b'{"schema": "arzbench/report", "version": 1}', "required field `text`"),
        (b'{"schema": "arzbench/report", "version": 1, "text": 3}', "Expected `str`"),
        (b'{"schema": "arzbench/report", "version": 1, "text": "a", "txt": 1}', "unknown field `txt`"),
    ],
    ids=lambda value: value[:30].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_a_file_of_another_shape_is_one_error_that_names_the_file(text: bytes, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        store.decode(text, SCHEMA, Note, "some/note.json")
    assert "some/note.json" in caught.value.message
    assert said in caught.value.message


def test_a_missing_file_and_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no note at") as caught:
        store.load(tmp_path / "none.json", SCHEMA, Note, "note", "make one")
    assert caught.value.hint == "make one"
    with pytest.raises(UsageError, match="cannot read the note"):
        store.load(tmp_path, SCHEMA, Note, "note")


TORN = [whole[:kept] for whole in (msgspec.json.encode(Note(text="b\nreak", count=2)),) for kept in range(29)]


@pytest.mark.parametrize("torn", [*TORN, b'{"text":"' + b"x" * 200_000], ids=len)
def test_a_last_line_cut_anywhere_loses_nothing_but_itself(torn: bytes, tmp_path: Path) -> None:
    """Killed within the second line; the next session appends a third."""
    path = tmp_path / "ledger.jsonl"
    first, second, third = Note(text="a\n", count=1), Note(text="b\nreak", count=2), Note(text="c")
    store.append_line(path, first)
    with path.open("ab") as file:
        file.write(torn)
    survived = [second] if torn == msgspec.json.encode(second) else []
    assert list(store.read_lines(path, Note)) == [first, *survived]
    store.append_line(path, third)
    assert list(store.read_lines(path, Note)) == [first, *survived, third]


def test_a_disk_that_fills_while_appending_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    store.append_line(path, Note(text="a"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: len(data) // 2]))
    with pytest.raises(StateError, match="No space left"):
        store.append_line(path, Note(text="b"))
    monkeypatch.undo()
    store.append_line(path, Note(text="c"))
    assert [n.text for n in store.read_lines(path, Note)] == ["a", "c"]


def test_a_broken_line_in_the_middle_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"text":"a"}\n{"text":\n{"text":"c"}\n')
    with pytest.raises(UsageError, match="line 2"):
        list(store.read_lines(path, Note))


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.text())))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert digest(value) == digest(turned)
    assert len(digest(value)) == 16
    assert digest({**value, "\0new": 1}) != digest(value)


def test_a_digest_is_the_same_in_every_release() -> None:
    """Digests stand in files: a change of the canonical form would orphan every calibration."""
    assert digest({"b": [1, 2.5, None], "a": "x"}) == "ce74053d7a9997b7"
