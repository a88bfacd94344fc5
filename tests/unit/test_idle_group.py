"""Where encoders get a control group of their own. Its files are the kernel's; here they are in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from media_worker.idle_group import NAME, IdleGroup, OwnGroup, own_group

ME = str(os.getpid())
FIRST = (
    "31 23 0:28 / {at} rw,relatime - tmpfs tmpfs rw\n"
    "32 31 0:29 {root} {at}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)
SECOND = "31 23 0:28 {root} {at} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def proc(folder: Path, mountinfo: str, cgroup: str, root: str = "/") -> Path:
    """What /proc/self says, the hierarchy being mounted in `folder`."""
    found = folder / "proc"
    found.mkdir()
    (found / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + mountinfo.format(at=folder, root=root))
    (found / "cgroup").write_text(cgroup)
    return found


def group(folder: Path, **files: str) -> Path:
    """A control group with the kernel's files; the one of the encoders has its own."""
    for made, its in ((folder, files), (folder / NAME, {"cpu.idle": "0", "cgroup.procs": ""})):
        made.mkdir(parents=True, exist_ok=True)
        for name, text in its.items():
            (made / name).write_text(text)
    return folder


def second(folder: Path, *, procs: str = ME, shares: str = "", root: bool = False) -> OwnGroup:
    files = {"cgroup.procs": procs, "cgroup.subtree_control": shares} | ({} if root else {"cgroup.type": "domain"})
    group(folder, **files)
    (folder / "afterlive-worker").mkdir()
    (folder / "afterlive-worker/cgroup.procs").write_text("")
    return OwnGroup(folder, 2)


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "root", "found"),
    [
        (FIRST, "4:memory:/m\n1:cpu,cpuacct:/\n0::/\n", "/", ("cpu", 1)),
        (FIRST, "1:cpuacct,cpu:/tier/media\n", "/", ("cpu/tier/media", 1)),
        (FIRST, "1:cpu:/docker/abc/x\n", "/docker/abc", ("cpu/x", 1)),
        (SECOND, "0::/system.slice/media.service\n", "/", ("system.slice/media.service", 2)),
        (SECOND, "0::/\n", "/", ("", 2)),
        (FIRST + SECOND, "1:cpu:/a\n0::/b\n", "/", ("cpu/a", 1)),
    ],
)
def test_the_group_a_process_is_in(
    tmp_path: Path, mountinfo: str, cgroup: str, root: str, found: tuple[str, int]
) -> None:
    folder, version = found
    assert own_group(proc(tmp_path, mountinfo, cgroup, root)) == OwnGroup(tmp_path / folder, version)


def test_a_system_without_control_groups_has_none(tmp_path: Path) -> None:
    assert own_group(tmp_path / "nowhere") is None
    assert own_group(proc(tmp_path, "", "0::/\n")) is None
    encoders = IdleGroup()
    encoders.open(None)
    encoders.join(1)
    encoders.leave(1)
    encoders.close()


def test_version_1(tmp_path: Path) -> None:
    encoders = IdleGroup()
    encoders.open(OwnGroup(group(tmp_path, **{"cgroup.procs": ""}), 1))
    encoders.join(4711)
    assert (tmp_path / NAME / "cpu.idle").read_text() == "1"
    assert (tmp_path / NAME / "cgroup.procs").read_text() == "4711"
    encoders.leave(4711)
    assert (tmp_path / "cgroup.procs").read_text() == "4711"


def test_version_2_alone_in_a_service(tmp_path: Path) -> None:
    """A group has processes or groups: the worker leaves its own to them."""
    own = second(tmp_path)
    assert own.may_have_others
    encoders = IdleGroup()
    encoders.open(own)
    assert encoders.folder == tmp_path / NAME
    assert (tmp_path / "afterlive-worker/cgroup.procs").read_text() == ME
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / NAME / "cpu.idle").read_text() == "1"
    (tmp_path / "afterlive-worker/cgroup.procs").write_text("")  # reading it back is the kernel's, not what was written
    encoders.leave(4711)
    assert (tmp_path / "afterlive-worker/cgroup.procs").read_text() == "4711"


@pytest.mark.parametrize("root", [True, False])
def test_version_2_where_groups_share_already_nobody_moves(tmp_path: Path, root: bool) -> None:
    encoders = IdleGroup()
    encoders.open(second(tmp_path, procs="1\n2\n", shares="cpuset cpu io", root=root))
    assert encoders.folder
    assert (tmp_path / "afterlive-worker/cgroup.procs").read_text() == ""
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpuset cpu io"


def test_version_2_others_are_not_moved(tmp_path: Path) -> None:
    """As in a shell's session."""
    own = second(tmp_path, procs=f"1\n{ME}\n")
    encoders = IdleGroup()
    encoders.open(own)
    assert not own.may_have_others
    assert encoders.folder is None
    assert (tmp_path / "afterlive-worker/cgroup.procs").read_text() == ""


def test_version_2_without_leave_to_share_the_worker_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = second(tmp_path)
    written: list[tuple[str, str]] = []

    def write(path: Path, text: str) -> None:
        written.append((str(path.relative_to(tmp_path)), text))
        if text == "+cpu":
            raise PermissionError("not delegated")
        if path.parent == tmp_path:
            (tmp_path / "afterlive-worker/cgroup.procs").unlink()

    monkeypatch.setattr("media_worker.idle_group._write", write)
    encoders = IdleGroup()
    encoders.open(own)
    assert encoders.folder is None
    moved = ("afterlive-worker/cgroup.procs", ME), ("cgroup.subtree_control", "+cpu"), ("cgroup.procs", ME)
    assert written == [*moved]
    assert not (tmp_path / "afterlive-worker").exists()


def test_an_old_kernel_has_no_idle_groups(tmp_path: Path) -> None:
    (group(tmp_path) / NAME / "cpu.idle").unlink()
    encoders = IdleGroup()
    encoders.open(OwnGroup(tmp_path, 1))
    assert encoders.folder is None


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's are read-only."""
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    assert not OwnGroup(group(tmp_path), 1).may_have_others
    assert not OwnGroup(tmp_path / "gone", 1).may_have_others


def test_a_group_without_the_kernel_s_files(tmp_path: Path) -> None:
    assert not OwnGroup(tmp_path, 2).may_have_others
