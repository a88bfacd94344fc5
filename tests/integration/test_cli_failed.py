"""`afterlive failed` and `afterlive task`: the real command, on a ledger others work on too."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from control.bus import names
from control.ledger import failures
from control.ledger.engine import Ledger
from tests.e2e.commands import AFTERLIVE, environment
from tests.failed import failed, part, waiting

ACTOR = f"cli:{getpass.getuser()}@{socket.gethostname()}"


class Command:
    """The command on one database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self._folder = url, folder

    def __call__(self, *arguments: str, says: str = "", url: str | None = None) -> subprocess.CompletedProcess[str]:
        env = environment(AFTERLIVE_DATABASE_URL=url or self.url)
        return subprocess.run(
            [AFTERLIVE, *arguments], cwd=self._folder, env=env, input=says, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def json(self, *arguments: str, status: int = 0) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def afterlive(ledger: Ledger, tmp_path: Path) -> Command:
    return Command(ledger.url, tmp_path)


def audit(ledger: Ledger, failed_id: str) -> list[tuple[str, str, str | None]]:
    with ledger.read() as session:
        return [(action.action, action.actor, action.note) for action in failures.actions(session, failed_id)]


def test_they_are_listed_for_people_and_for_programs(afterlive: Command, ledger: Ledger) -> None:
    assert afterlive("failed", "list").stdout == "There are none.\n"
    row = failed(ledger, detail="[bold]It said:\nno.")
    poison = failed(ledger, names.PART_DONE, {"replay_id": "rep_1"}, reason="poison")
    shown = afterlive("failed", "list").stdout
    assert row.id in shown
    assert "[bold]It said: no." in shown  # neither markup nor a second line, and not cut off
    assert len(shown.splitlines()) == 3
    found = afterlive.json("failed", "list", "--reason", "poison")
    assert [item["id"] for item in found["items"]] == [poison.id]
    assert afterlive.json("failed", "list", "--task", row.task)["items"][0]["id"] == row.id
    assert afterlive.json("failed", "list", "--limit", "1")["next"]
    assert "There are more" in afterlive("failed", "list", "--limit", "1").stdout


def test_one_is_shown_with_all_that_is_known_of_it(afterlive: Command, ledger: Ledger) -> None:
    row = failed(ledger, traceback="Traceback:\n  line 1")
    shown = afterlive("failed", "show", row.id).stdout
    assert row.task_id in shown
    assert "  line 1" in shown
    assert '"fact": "stream.ended"' in shown
    assert afterlive.json("failed", "show", row.id)["payload"] == row.payload


def test_one_is_replayed_and_one_that_is_refused_is_named(afterlive: Command, ledger: Ledger) -> None:
    row, gone = failed(ledger), failed(ledger)
    done = afterlive("failed", "discard", gone.id, "--note", "of no use")
    assert (done.returncode, done.stdout) == (0, "1 discarded\n")
    assert audit(ledger, gone.id) == [("discarded", ACTOR, "of no use")]
    done = afterlive("failed", "replay", row.id, gone.id, "fail_none", row.id)
    assert done.returncode == 1
    assert done.stdout == "1 replayed, 2 refused\n"
    assert done.stderr.splitlines() == [
        f"{gone.id}: conflict: The failed task {gone.id} was discarded.",
        "fail_none: not-found: There is no failed task fail_none.",
    ]
    assert audit(ledger, row.id) == [("replayed", ACTOR, None)]
    assert [message.task_id for message in waiting(ledger)] == [row.task_id]
    assert [one["id"] for one in afterlive.json("failed", "replay", gone.id, status=1)["refused"]] == [gone.id]


def test_many_are_replayed_once_somebody_agrees(afterlive: Command, ledger: Ledger) -> None:
    rows = [failed(ledger) for _ in range(3)]
    other = failed(ledger, names.PART_DONE, {"replay_id": "r"})
    chosen = ("failed", "replay", "--task", rows[0].task, "--all")
    for answer in ("n\n", ""):
        asked = afterlive(*chosen, says=answer)
        assert asked.returncode == 1
        assert "Replay 3 failed tasks?" in asked.stderr
        assert waiting(ledger) == []
    assert afterlive(*chosen, says="y\n").stdout == "3 replayed\n"
    assert {message.task_id for message in waiting(ledger)} == {row.task_id for row in rows}
    assert audit(ledger, other.id) == []
    assert afterlive.json("failed", "discard", "--all", "--yes")["done"] == [other.id]
    assert afterlive("failed", "replay", "--all").stdout == "0 replayed\n"


def test_those_refused_keep_no_other_back(afterlive: Command, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(failures, "new_id", lambda kind: f"{kind}_{next(numbers):04}")
    made = part(ledger, "s", "pictures", state="done")
    rows = [failed(ledger) for _ in range(3)]
    found = afterlive.json("failed", "replay", "--all", "--limit", "3", "--yes", status=1)
    assert found["done"] == [row.id for row in rows[:2]]
    assert [one["id"] for one in found["refused"]] == [made.id]


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["replay", "fail_1", "--all"], ["discard", "fail_1", "--task", "t"], ["list", "--reason", "x"]],
)
def test_what_is_meant_has_to_be_clear(afterlive: Command, ledger: Ledger, arguments: list[str]) -> None:
    failed(ledger)
    done = afterlive("failed", *arguments)
    assert done.returncode == 2
    assert "Error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_task_is_shown(afterlive: Command, ledger: Ledger) -> None:
    row = failed(ledger)
    assert afterlive.json("task", row.task_id)["failure"]["failed_task_id"] == row.id
    shown = afterlive("task", row.task_id).stdout
    assert "FAILURE" in shown
    assert row.id in shown
    unknown = afterlive("task", "t-1")
    assert (unknown.returncode, unknown.stderr) == (1, "afterlive: not-found: There is no task t-1.\n")


@pytest.mark.parametrize("command", [("failed", "list"), ("failed", "replay", "x"), ("task", "x")])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///nowhere.sqlite", "there is no database nowhere.sqlite"),
        ("sqlite:///empty.sqlite", "no such table"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "the database cannot be used"),
        ("nonsense", "it is not a database's URL"),
    ],
)
def test_a_database_that_cannot_be_used(
    tmp_path: Path, afterlive: Command, command: tuple[str, ...], url: str, words: str
) -> None:
    (tmp_path / "empty.sqlite").touch()
    done = afterlive(*command, url=url)
    assert done.returncode == 1
    assert done.stderr.startswith("afterlive: configuration-error: The setting AFTERLIVE_DATABASE_URL is wrong: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "nowhere.sqlite").exists()
