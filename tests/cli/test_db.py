"""`trainvitals db`, `export`, `import` and the shelves of `runs`, in this process."""

import csv
import io
import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from trainvitals.app.store import Store, upkeep
from trainvitals.app.store.migrations import MIGRATIONS
from trainvitals.hooks.wire.records import Batch, Start, Step

OLD = Path(__file__).parent.parent / "store" / "data" / "schema-1.db"


def batch(run, first=0, count=20):
    records = [
        Start(seq=0, time=1e9, project="digits", name=run)
        if seq == 0
        else Step(seq=seq, time=1e9, step=seq - 1, scalars={"loss": 1 / seq})
        for seq in range(first, first + count)
    ]
    return Batch(version=1, run=run, attempt="a1", rank=0, first=first, records=records)


@pytest.fixture
def database(tmp_path):
    """Two runs: one of now, one that was silent for a hundred days."""
    with Store.open(tmp_path / "trainvitals.db") as store:
        store.append(batch("new"), time.time())
        store.append(batch("old"), time.time() - 100 * 86_400)
    return tmp_path / "trainvitals.db"


def ids(cli, shelf="active"):
    return {run["id"] for run in json.loads(cli("runs", "ls", "--json", "--shelf", shelf).output)}


def test_a_sound_database_is_sound(cli, database):
    result = cli("db", "check")
    assert (result.exit_code, result.stdout) == (0, f"{database} is sound.\n")
    assert json.loads(cli("db", "check", "--json").stdout) == {"ok": True, "problems": []}


def test_a_stray_row_and_a_wrong_summary_are_found(cli, database):
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO names (run, name) VALUES (999, 'stray')")
    connection.execute("UPDATE groups SET count = count + 1")
    connection.commit()
    connection.close()
    result = cli("db", "check", "--json")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert any("names" in line and "refers to no row of runs" in line for line in problems)
    assert any(line.startswith("run new:") for line in problems)


def test_a_damaged_file_is_found(cli, database):
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(database.read_bytes())
    data[8192:20480] = b"\x55" * 12288
    database.write_bytes(data)
    result = cli("db", "check")
    assert result.exit_code == 1
    assert result.stderr.startswith(("problem: ", "Error: "))


def test_a_backup_is_whole_and_of_one_moment_while_others_write(database, tmp_path, cli):
    stop = threading.Event()
    written = []

    def write():
        with Store.open(database) as store:
            while not stop.is_set():
                store.append(batch("new", 20 + len(written), 1), time.time())
                written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    while len(written) < 20:
        time.sleep(0.01)
    seen = []
    upkeep.backup(database, tmp_path / "copy.db", lambda done, total: seen.append((done, total)))
    stop.set()
    writer.join()
    assert upkeep.check(tmp_path / "copy.db") == []
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1  # it never began anew
    with Store.open(tmp_path / "copy.db") as store:
        kept = store.next_seq("new", "a1", 0)
        assert 40 <= kept <= 20 + len(written)
        assert len(store.series("new", ["loss"], points=9999)["loss"].steps) == kept - 1


def test_a_backup_overwrites_nothing(cli, database):
    assert cli("db", "backup", "copy.db").exit_code == 0
    before = Path("copy.db").read_bytes()
    result = cli("db", "backup", "copy.db")
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert Path("copy.db").read_bytes() == before
    assert cli("db", "backup", "no/such/folder/copy.db").exit_code == 1


def test_an_old_database_is_upgraded_after_a_copy(cli, tmp_path):
    shutil.copy(OLD, tmp_path / "trainvitals.db")
    assert cli("db", "check").exit_code == 1
    result = cli("db", "upgrade", "--backup", "before.db")
    assert f"schema version {len(MIGRATIONS)}, upgraded from 1" in result.stdout
    assert upkeep.version(Path("before.db")) == 1
    assert "nothing to do" in cli("db", "upgrade").stdout
    assert cli("db", "check").exit_code == 0
    assert "vacuum" in cli("db", "info").stdout
    assert cli("db", "vacuum").exit_code == 0
    assert "vacuum" not in cli("db", "info").stdout


def test_prune_shows_first_and_removes_then(cli, database):
    words = ("db", "prune", "--retention", "days=30")
    shown = cli(*words, "--dry-run")
    assert "old" in shown.stdout
    assert "new" not in shown.stdout.replace("now", "")
    assert ids(cli) == {"new", "old"}
    assert cli(*words, input="n\n").exit_code == 1
    assert ids(cli) == {"new", "old"}
    assert cli(*words, "--yes").exit_code == 0
    assert (ids(cli), ids(cli, "deleted")) == ({"new"}, {"old"})
    assert cli("runs", "restore", "old").exit_code == 0
    assert ids(cli) == {"new", "old"}
    assert "Nothing is due." in cli("db", "prune").stdout


def test_a_policy_that_cannot_be_read_is_an_error(cli, database):
    result = cli("db", "prune", "--retention", "weeks=3")
    assert result.exit_code == 1
    assert "weeks=3" in result.stderr


def test_runs_are_put_away_and_brought_back(cli, database):
    assert cli("runs", "archive", "old").exit_code == 0
    assert (ids(cli), ids(cli, "archived")) == ({"new"}, {"old"})
    assert cli("runs", "unarchive", "old").exit_code == 0
    assert cli("runs", "rm", "old", "--yes").exit_code == 0
    assert ids(cli, "deleted") == {"old"}
    assert cli("runs", "restore", "old", "nope").exit_code == 1
    assert ids(cli) == {"new", "old"}


def test_sql_is_read(cli, database):
    query = "SELECT run, COUNT(*) AS n FROM scalar_values GROUP BY run ORDER BY run"
    assert json.loads(cli("db", "sql", query, "--json").stdout) == [
        {"run": "new", "n": 19},
        {"run": "old", "n": 19},
    ]
    assert "nonsense" in cli("db", "sql", "SELECT nonsense").stderr
    assert cli("db", "sql", "DELETE FROM runs").exit_code == 1
    assert ids(cli) == {"new", "old"}


def test_a_run_is_exported_to_a_file_and_to_the_output(cli, database):
    shown = cli("export", "new")
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert [float(row["value"]) for row in rows] == [1 / n for n in range(1, 20)]
    assert cli("export", "new", "-o", "out.csv").exit_code == 0
    assert Path("out.csv").read_text() == shown.stdout
    assert cli("export", "nope").exit_code == 1
    assert cli("export", "new", "-o", "no/such/out.csv").exit_code == 1
