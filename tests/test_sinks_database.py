"""The database of runs: read while written, added to, and never somebody else's."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, List

import pytest

from deepfake_fpga.errors import FormatError, WorkError
from deepfake_fpga.inference.sinks import DatabaseSink, database

from .sink_cases import fill, results


def ask(path: Path, question: str) -> List[Any]:
    base = sqlite3.connect(str(path))
    try:
        return base.execute(question).fetchall()
    finally:
        base.close()


def test_a_run_says_what_it_is_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    about = {"model": "YNET.xmodel", "device": "sim", "threshold": 0.25}
    with DatabaseSink(path, about) as sink:
        fill(sink, results(9))
        assert ask(path, "SELECT model, device, threshold, ended, complete FROM runs") == [
            ("YNET.xmodel", "sim", 0.25, None, None)
        ]
    ((started, ended, complete),) = ask(path, "SELECT started, ended, complete FROM runs")
    assert complete == 1
    assert started.endswith("Z")
    assert started <= ended
    sink = DatabaseSink(path, about)
    sink.open()
    sink.close(complete=False)
    assert ask(path, "SELECT id, complete FROM runs") == [(1, 1), (2, 0)]


def test_it_is_read_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ROWS", 10)
    monkeypatch.setattr(database, "SECONDS", 1e9)
    path = tmp_path / "records.sqlite"
    given = results(25)
    with DatabaseSink(path) as sink:
        assert ask(path, "PRAGMA journal_mode") == [("wal",)]
        reader = sqlite3.connect(str(path))
        seen = []
        for result in given:
            sink.write(result, None)
            seen.append(reader.execute("SELECT count(*) FROM frames").fetchone()[0])
        # A transaction that is open for reading does not hold the writer up.
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM frames").fetchone() == (20,)
        fill(sink, given)
        assert reader.execute("SELECT count(*) FROM frames").fetchone() == (20,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM frames").fetchone() == (50,)
        reader.close()
    assert seen == [0] * 9 + [10] * 10 + [20] * 6


def test_rows_wait_no_longer_than_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(database.time, "monotonic", lambda: clock[0])
    path = tmp_path / "records.sqlite"
    with DatabaseSink(path) as sink:
        fill(sink, results(3))
        assert ask(path, "SELECT count(*) FROM frames") == [(0,)]
        clock[0] += database.SECONDS + 0.1
        fill(sink, results(1))
        assert ask(path, "SELECT count(*) FROM frames") == [(4,)]


def test_runs_stand_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    for count in (9, 4):
        with DatabaseSink(path) as sink:
            fill(sink, results(count))
    assert ask(path, "SELECT run, count(*), max(number) FROM frames GROUP BY run") == [
        (1, 9, 8),
        (2, 4, 3),
    ]


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("WHERE source = 'x' AND frame = 3", "frames_by_source"),
        ("WHERE verdict = 'FAKE' AND fake_probability > 0.9", "frames_by_verdict"),
        ("WHERE run = 2 AND number = 7", "PRIMARY KEY"),
    ],
)
def test_the_usual_questions_have_an_index(question: str, index: str, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with DatabaseSink(path):
        pass
    plan = ask(path, f"EXPLAIN QUERY PLAN SELECT * FROM frames {question}")
    assert index in plan[0][-1]
    assert plan[0][-1].startswith("SEARCH")


def test_columns_that_an_earlier_version_lacked_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.sqlite"
    fields = database.FIELDS
    monkeypatch.setattr(database, "FIELDS", fields[:6])
    with DatabaseSink(path) as sink:
        fill(sink, results(2))
    monkeypatch.setattr(database, "FIELDS", fields)
    with DatabaseSink(path, {"device": "sim"}) as sink:
        fill(sink, results(2))
    assert ask(path, "SELECT run, number, frame, status FROM frames") == [
        (1, 0, 0, None),
        (1, 1, 1, None),
        (2, 0, 0, "ok"),
        (2, 1, 1, "ok"),
    ]
    assert ask(path, "SELECT device FROM runs") == [(None,), ("sim",)]


def test_a_database_of_others_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    base = sqlite3.connect(str(path))
    base.execute("CREATE TABLE frames (picture TEXT)")
    base.commit()
    base.close()
    before = path.read_bytes()
    sink = DatabaseSink(path)
    with pytest.raises(FormatError, match="not one of a run"):
        sink.open()
    sink.close(complete=False)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["records.sqlite"]
    assert sink.outputs() == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    path.write_text("run,frame\r\n" * 100)
    before = path.read_bytes()
    with pytest.raises(FormatError, match="no SQLite database"):
        DatabaseSink(path).open()
    assert path.read_bytes() == before


def test_one_that_is_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    path = tmp_path / "records.sqlite"
    with DatabaseSink(path) as sink:
        fill(sink, results(2))
        other = sqlite3.connect(str(path), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WorkError, match=r"locked.*Next: make room, end the program"):
            DatabaseSink(path).open()
        other.execute("ROLLBACK")
        other.close()
    # The rows that waited meanwhile are there.
    assert ask(path, "SELECT count(*) FROM frames") == [(2,)]
