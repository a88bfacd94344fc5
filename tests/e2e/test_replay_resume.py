"""`afterlive replay`, killed at moments that are hard to hit: brought about by hand, then the same command again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control.cli.replay import PRIVATE, _fingerprint, _hand_over
from control.errors import Cancelled
from control.ledger import replays, streams
from control.ledger.engine import Ledger
from control.settings import MediaSettings
from tests.e2e.commands import run
from tests.e2e.recordings import make


def cancel(session: Any) -> None:
    streams.cancel(session, "replay")


def fail(session: Any) -> None:
    replay = streams.end(session, "replay", recording=None)
    changes = {"problem_code": Cancelled.code, "problem_detail": "d"}
    assert replays.move(session, replay, replays.ACTIVE, "failed", **changes)


@pytest.mark.parametrize("ended", [cancel, fail])
def test_killed_before_it_could_clean_up_the_same_command_makes_it(
    tmp_path: Path, ended: Callable[[Any], None]
) -> None:
    recording = make(tmp_path / "live.mp4", seconds=4, size="320x180")
    private = tmp_path / "out" / PRIVATE
    ledger = Ledger(f"sqlite:///{private / 'ledger.sqlite'}")
    ledger.upgrade()
    (private / "work").write_text(_fingerprint(recording, MediaSettings(_env_file=None)))
    with ledger.write() as session:
        streams.create(session, title="live.mp4", stream_id="replay")
        streams.end(session, "replay", recording=str(recording))
    with ledger.write() as session:
        ended(session)
    ledger.close()
    done = run("replay", recording, "--out", tmp_path / "out", cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "master.m3u8").is_file()
    assert not private.exists()


def test_what_was_half_handed_over_is_replaced_and_the_master_comes_last(tmp_path: Path) -> None:
    finished, out = tmp_path / "finished", tmp_path / "out"
    for folder, content in ((finished, "new"), (out, "old")):
        (folder / "360p").mkdir(parents=True)
        (folder / "360p" / f"{content}.m4s").write_text(content)
        (folder / "replay.json").write_text(content)
    (finished / "master.m3u8").write_text("new")
    _hand_over(finished, out)
    assert [path.name for path in (out / "360p").iterdir()] == ["new.m4s"]
    assert (out / "replay.json").read_text() == (out / "master.m3u8").read_text() == "new"
