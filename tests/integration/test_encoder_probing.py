"""What a node finds out of its devices: by encoding, on the real ffmpeg behind a stand-in that fails as drivers do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from control import settings as settings_module
from control.bus.messages import NodeReport
from control.checks import Check, Status
from control.errors import ConfigurationError
from control.settings import MediaSettings, Settings
from media_worker.cli import gpu_check
from media_worker.encoders import breaker, devices, probing, sessions, shared
from media_worker.encoders.checks import encoder_checks
from media_worker.encoders.report import report
from media_worker.ffmpeg import ffmpeg_path
from tests.gpu_stand_in import StandIn

FIRST, SECOND, NODE = "nvenc:0", "nvenc:1", "vaapi:/dev/dri/renderD128"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What probes encode, made once for all nodes of this file."""
    settings = MediaSettings(_env_file=None, scratch=tmp_path_factory.mktemp("probes"))
    return [probing._clip(settings, depth) for depth in (8, 10)]


@pytest.fixture
def gpu(settings: Settings, tmp_path: Path, recordings: list[Path]) -> StandIn:
    """Of a node with two cards of NVENC and one of VAAPI."""
    settings.media.preset = "ultrafast"
    for recording in recordings:
        shutil.copy(recording, shared.folder(settings.media))
    stand_in = StandIn(tmp_path / "gpu", ffmpeg_path(MediaSettings(_env_file=None)))
    settings.media.ffmpeg = str(stand_in.path)
    settings.media.devices = [FIRST, SECOND, NODE]
    return stand_in


def usable(made: NodeReport) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(each.device, each.tier): each.bit_depths for each in made.capabilities if each.usable}


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_the_report_says_what_really_encoded(settings: Settings, gpu: StandIn) -> None:
    gpu.fail("no driver", device=SECOND)
    gpu.fail("no entrypoint", tier="vaapi")
    made = report(settings)
    assert usable(made) == {
        (FIRST, "cuda"): (8, 10),
        (FIRST, "cuda-upload"): (8, 10),
        (NODE, "vaapi-upload"): (8, 10),
        ("cpu", "cpu"): (8, 10),
    }
    reasons = {(each.device, each.tier): each.reason for each in made.capabilities if not each.usable}
    assert "libcuda" in (reasons[SECOND, "cuda"] or "")
    assert "No usable encoding entrypoint" in (reasons[NODE, "vaapi"] or "")
    assert made.can("h264_nvenc", width=1280, height=720, bit_depth=10)
    assert not made.can("h264_nvenc", width=132, height=234)
    assert {each.sessions for each in made.capabilities if each.device != "cpu"} == {8}
    assert NodeReport.model_validate_json(made.model_dump_json()) == made
    assert sample("afterlive_encoder_usable", device=FIRST, encoder="h264_nvenc") == 1
    assert sample("afterlive_encoder_usable", device=SECOND, encoder="h264_nvenc") == 0
    assert sample("afterlive_encoder_session_limit", device=FIRST) == 8
    assert sample("afterlive_encoder_sessions", device=FIRST) == 0
    assert sample("afterlive_encoder_breaker_open", device=FIRST) == 0


def test_what_was_found_is_remembered_until_something_changes(settings: Settings, gpu: StandIn) -> None:
    settings.media.devices, settings.media.encoders = [FIRST], ["h264_nvenc"]
    report(settings)
    started = len(gpu.calls())
    again = report(settings)
    assert len(gpu.calls()) == started + 1, "its version alone is asked for"
    report(settings, fresh=True)
    assert len(gpu.calls()) > started + 2
    # Another ffmpeg is another answer.
    started = len(gpu.calls())
    gpu.path.write_text(gpu.path.read_text() + "\n# newer\n")
    assert usable(report(settings)) == usable(again)
    assert len(gpu.calls()) > started + 2


def test_a_card_that_was_dead_is_tried_again_soon(
    settings: Settings, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.media.devices = [FIRST]
    gpu.fail("no driver")
    assert (FIRST, "cuda") not in usable(report(settings))
    gpu.work()
    assert (FIRST, "cuda") not in usable(report(settings)), "what failed a moment ago is not tried each time"
    monkeypatch.setattr(probing, "_BAD_SECONDS", 0.0)
    assert (FIRST, "cuda") in usable(report(settings))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"), [("wrong grid", "GOP 0 has 17 frames"), ("crash", "signal 11"), ("hang", "not done within 3 s")]
)
def test_what_encodes_wrongly_does_not_count(
    settings: Settings, gpu: StandIn, how: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LIMIT_SECONDS", 3.0)
    settings.media.devices = [FIRST]
    gpu.fail(how, tier="cuda")
    made = report(settings)
    assert (FIRST, "cuda") not in usable(made)
    assert reason in next(each.reason or "" for each in made.capabilities if each.tier == "cuda")


def test_a_full_card_is_waited_for(settings: Settings, gpu: StandIn) -> None:
    settings.media.devices = [FIRST]
    gpu.fail("no session", times=1)
    assert (FIRST, "cuda") in usable(report(settings))


def test_a_card_at_work_is_not_a_broken_one(settings: Settings, gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.media.devices, settings.media.encoders = [FIRST], ["h264_nvenc"]
    monkeypatch.setattr(probing, "_BUSY_TRIES", 1)
    with sessions.take(settings.media, FIRST, 8):
        assert "all its sessions are in use" in (report(settings).capabilities[0].reason or "")
    monkeypatch.setattr(probing, "_BUSY_SECONDS", 0.0)
    assert usable(report(settings)).keys() == {(FIRST, "cuda"), (FIRST, "cuda-upload")}
    # What was found a day ago is looked at anew, and stands while nothing can be found out.
    monkeypatch.setattr(probing, "_GOOD_SECONDS", 0.0)
    gpu.fail("no session")
    assert usable(report(settings)).keys() == {(FIRST, "cuda"), (FIRST, "cuda-upload")}
    gpu.work()
    gpu.fail("no driver")
    assert usable(report(settings)) == {}


def test_a_tier_of_eight_bits_alone(settings: Settings, gpu: StandIn) -> None:
    settings.media.devices = [FIRST]
    gpu.fail("no decoder", tier="cuda", naming="probe-10-bits")
    made = report(settings)
    assert usable(made)[FIRST, "cuda"] == (8,)
    assert usable(made)[FIRST, "cuda-upload"] == (8, 10)
    assert made.can("h264_nvenc", width=256, height=256, bit_depth=10), "by the other tier"


def test_a_card_that_is_left_alone_is_not_usable(settings: Settings, gpu: StandIn) -> None:
    settings.media.devices = [FIRST]
    report(settings)
    for _ in range(breaker.THRESHOLD):
        breaker.failed(settings.media, FIRST, "it hung")
    made = report(settings)
    assert usable(made).keys() == {("cpu", "cpu")}
    assert "it hung" in next(each.reason or "" for each in made.capabilities)
    assert sample("afterlive_encoder_breaker_open", device=FIRST) == 1


def test_a_dead_card_is_told_of_loudly_once(settings: Settings, gpu: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    settings.media.devices = [FIRST]
    gpu.fail("no driver")
    report(settings)
    report(settings)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "has a GPU that does not work" in errors[0]
    assert "libcuda" in errors[0]


def test_control_finds_the_report_by_its_entry_point(settings: Settings) -> None:
    points = entry_points(group="afterlive.capabilities")
    made = points["media"].load()(settings)
    assert isinstance(made, NodeReport)
    assert usable(made) == {("cpu", "cpu"): (8, 10)}
    assert made.ffmpeg.startswith(("n", "9", "8", "7", "6", "5"))


# --- which devices there are ------------------------------------------------------------------------------------------


def test_devices_are_found_by_their_files(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "dri/renderD128", "dri/card0"):
        (tmp_path / "dev" / name).touch()
    monkeypatch.setattr(devices, "DEV", tmp_path / "dev")
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = [device.name for device in devices.gpus(settings.media)]
    assert found == ["nvenc:0", "nvenc:1", f"vaapi:{tmp_path}/dev/dri/renderD128"]


def test_nvidia_smi_names_the_cards(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia3").touch()
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, NVIDIA L4'\necho '1, NVIDIA T4'\n")
    smi.chmod(0o755)
    monkeypatch.setattr(devices, "DEV", tmp_path / "dev")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = devices.gpus(settings.media)
    assert [(device.name, device.label) for device in found] == [("nvenc:0", "NVIDIA L4"), ("nvenc:1", "NVIDIA T4")]


@pytest.mark.parametrize("name", ["gpu0", "nvenc:first", "vaapi:renderD128", "cuda:0"])
def test_a_device_that_is_misspelt(settings: Settings, name: str) -> None:
    settings.media.devices = [name]
    with pytest.raises(ConfigurationError, match="AFTERLIVE_MEDIA_DEVICES"):
        devices.gpus(settings.media)
    assert [check.status for check in encoder_checks(settings.media)] == [Status.FAIL]


def test_an_encoder_that_is_misspelt(settings: Settings) -> None:
    settings.media.encoders = ["h264_nvnec"]
    assert [check.status for check in encoder_checks(settings.media)] == [Status.FAIL]


# --- doctor and gpu-check ---------------------------------------------------------------------------------------------


def checks(settings: Settings) -> dict[str, Check]:
    found = {check.name: check for check in encoder_checks(settings.media)}
    assert all(check.remedy for check in found.values() if check.status in (Status.WARN, Status.FAIL))
    return found


def test_the_doctor_tries_every_gpu(settings: Settings, gpu: StandIn) -> None:
    gpu.fail("no driver", device=SECOND)
    gpu.fail("no decoder", device=FIRST, tier="cuda")
    found = checks(settings)
    assert found[f"encoder h264_nvenc on {FIRST}"].status is Status.WARN
    assert "cuda-upload (sources of 8 and 10 bits); not cuda" in found[f"encoder h264_nvenc on {FIRST}"].detail
    assert found[f"encoder h264_nvenc on {SECOND}"].status is Status.WARN
    assert "libcuda" in found[f"encoder h264_nvenc on {SECOND}"].detail
    assert found[f"encoder h264_vaapi on {NODE}"].status is Status.OK
    settings.media.refuse_cpu = True
    assert checks(settings)[f"encoder h264_nvenc on {SECOND}"].status is Status.FAIL


def test_the_doctor_of_a_node_without_a_gpu(settings: Settings) -> None:
    """Of encoders beside the usual one it tries those that are asked for."""
    settings.media.encoders = ["libx264", "libx265"]
    found = {name: check.status for name, check in checks(settings).items()}
    assert found == {"GPU": Status.INFO, "encoder libx265": Status.OK}


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.setattr("media_worker.encoders.gpu_check._SECONDS", 1)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(gpu_check, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    return run


@pytest.mark.slow
def test_gpu_check_is_a_report_to_paste(settings: Settings, gpu: StandIn, ask: Callable[..., tuple[int, str]]) -> None:
    settings.media.devices = [FIRST]
    settings.media.encoders = ["h264_nvenc", "libx264"]
    settings.media.sessions_per_device = 2
    status, text = ask()
    assert status == 0, text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[:5] for row in rows[1:]] == [
        ["h264_nvenc", FIRST, "cuda", "yes", "yes"],
        ["h264_nvenc", FIRST, "cuda-upload", "yes", "yes"],
        ["libx264", "cpu", "cpu", "yes", "yes"],
    ]
    assert all(float(row[6]) > 0 for row in rows[1:])
    assert [row[7] for row in rows[1:]] == ["yes", "yes", ""]
    assert f"sessions: {FIRST}: 2 at a time" in text
    assert "all is well" in text


def test_gpu_check_of_a_dead_card(settings: Settings, gpu: StandIn, ask: Callable[..., tuple[int, str]]) -> None:
    settings.media.devices = [FIRST]
    settings.media.encoders = ["h264_nvenc"]
    gpu.fail("no driver")
    status, text = ask("--json")
    assert status == 1
    told = json.loads(text)
    assert told["gpus"] == 1
    assert "libcuda" in told["wrong"][0]
    assert [row["bit_depths"] for row in told["rows"]] == [[], []]


def test_gpu_check_without_a_gpu(settings: Settings, ask: Callable[..., tuple[int, str]]) -> None:
    settings.media.encoders = ["h264_nvenc"]
    status, text = ask()
    assert status == 2
    assert "there is no GPU here" in text
    assert settings_module.current() is settings
