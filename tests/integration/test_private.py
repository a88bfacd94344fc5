"""Keys and secrets kept in files, and the lock that lets one process at a time use a folder."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from control.cli.private import complete, kept_secret, only_one
from control.errors import ConfigurationError, Conflict
from control.settings import ApiSettings, Settings

HOLD = """
import sys
from pathlib import Path
from control.cli.private import only_one
with only_one(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "key"
    before = os.umask(0)  # the most open-handed of all shells
    try:
        first = kept_secret(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert kept_secret(path) == first
    assert len(first.get_secret_value()) >= 43  # 256 bits
    assert path.read_text() == first.get_secret_value() + "\n"
    assert [found.name for found in path.parent.iterdir()] == ["key"]  # nothing of the making is left


def test_each_secret_is_another(tmp_path: Path) -> None:
    assert len({kept_secret(tmp_path / str(number)).get_secret_value() for number in range(20)}) == 20


def test_who_comes_at_the_same_moment_gets_the_same_secret(tmp_path: Path) -> None:
    for round_ in range(10):
        seen: list[str] = []
        start = threading.Barrier(4)
        path = tmp_path / f"key-{round_}"

        def ask(path: Path = path, start: threading.Barrier = start, seen: list[str] = seen) -> None:
            start.wait()
            seen.append(kept_secret(path).get_secret_value())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 4
        assert len(set(seen)) == 1
        assert seen[0]


def test_a_secret_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  chosen-by-hand \n")
    assert kept_secret(tmp_path / "key").get_secret_value() == "chosen-by-hand"


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_secret_is_refused(tmp_path: Path, content: str) -> None:
    """As an API key it would let everybody in."""
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigurationError, match="empty"):
        kept_secret(tmp_path / "key")


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    chosen = ApiSettings(_env_file=None, keys=[SecretStr("mine")])
    made = complete(Settings(_env_file=None, api=chosen), tmp_path)
    assert made.api.keys == [SecretStr("mine")]
    assert made.api.signing_secret == kept_secret(tmp_path / "signing-secret")
    assert not (tmp_path / "api-key").exists()
    assert chosen.signing_secret is None  # the settings that came in are as they were
    again = complete(Settings(_env_file=None, api=ApiSettings(_env_file=None)), tmp_path)
    assert again.api.keys == [kept_secret(tmp_path / "api-key")]
    assert again.api.signing_secret == made.api.signing_secret
    assert {mode(path) for path in tmp_path.iterdir()} == {0o600}


def test_a_folder_is_one_process_s_until_it_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    with only_one(folder, "afterlive up"):
        with pytest.raises(Conflict, match=r"afterlive up already works in .*var"), only_one(folder, "afterlive up"):
            raise AssertionError("two hold it")
        with only_one(tmp_path / "other", "afterlive up"):
            pass
    with only_one(folder, "afterlive up"):
        pass


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict), only_one(tmp_path, "it"):
            raise AssertionError("two processes hold it")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with only_one(tmp_path, "it"):
            pass
