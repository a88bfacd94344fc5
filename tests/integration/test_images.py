"""Images: each step of the Dockerfile in a clean root, what is in each image, a replay made by nothing but them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.storage import open_store
from tests import brokers, compose, services
from tests.images import ROOT, TARGETS, Images, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]
EXTRAS = {
    "control": ["control"],
    "notify": ["notify"],
    "flower": ["base", "flower"],
}
_INSTALLED = """
import importlib.metadata, json
print(json.dumps(sorted({each.metadata["Name"] for each in importlib.metadata.distributions()})))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    made = Images(tmp_path_factory.mktemp("images"))
    try:
        made.make_base()
        for target in TARGETS:
            made.build(target)
        yield made
    finally:
        made.clean()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_its_tier_and_runs_as_nobody_special(images: Images, target: str) -> None:
    container = images.container(target)
    told = images.run(container, "/opt/afterlive/bin/python", "-c", _INSTALLED)
    assert told.returncode == 0, told.stderr
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in json.loads(told.stdout)}
    script = [sys.executable, "-IS", str(ROOT / "docker" / "requirements.py"), *EXTRAS.get(target, ["media"])]
    wanted = set(re.findall(r"^([a-z0-9-]+)", subprocess.check_output(script, text=True), re.MULTILINE))
    # Nothing else, pip neither; and all of it but what other Pythons need.
    assert installed - wanted == {"afterlive"}
    assert wanted - installed <= {"async-timeout", "tzdata"}
    assert images.run(container, "id", "--user").stdout.strip() == "10001"
    facts = images.facts(target)
    assert facts["User"] == "10001:10001"
    assert facts["Healthcheck"]["Test"][:2] == ["CMD", "afterlive-health"]
    print(f"{target}: {facts['size']}")


@pytest.mark.parametrize("target", ["media-cpu", "media-nvidia", "media-vaapi"])
def test_a_media_image_encodes(images: Images, target: str) -> None:
    told = images.run(images.container(target), "afterlive", "doctor")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "encoder libx264: made two GOPs" in told.stdout
    assert "database: the control plane is not installed here" in told.stdout


def test_the_vaapi_image_has_drivers_and_what_ffmpeg_loads(images: Images) -> None:
    container = images.container("media-vaapi")
    listed = images.run(container, "sh", "-c", "ls /usr/lib/*/dri /usr/lib/*/lib*.so.*").stdout
    assert "radeonsi_drv_video.so" in listed
    assert "iHD_drv_video.so" in listed
    for library in ("libva.so.2", "libva-drm.so.2", "libdrm.so.2"):
        assert library in listed
    # There is no GPU: libva is found and says so, rather than the loader that there is no libva.
    ffmpeg = "/opt/afterlive/lib/python3*/site-packages/imageio_ffmpeg/binaries/ffmpeg-*"
    tried = images.run(
        container,
        "sh",
        "-c",
        f"{ffmpeg} -loglevel debug -init_hw_device vaapi=va:/dev/dri/renderD128 -f lavfi -i nullsrc",
    )
    assert "No VA display found" in tried.stderr
    assert "cannot open shared object" not in tried.stderr


def test_the_flower_image_has_flower(images: Images) -> None:
    told = images.run(images.container("flower"), "celery", "--app", "control.bus.flower", "flower", "--help")
    assert told.returncode == 0, told.stderr
    assert "Web based tool for monitoring" in told.stdout


def test_compose_itself_reads_the_files_as_the_tests_do(images: Images, tmp_path: Path) -> None:
    """Debian's Docker Compose, asked what it understands. It needs no engine for that."""
    container = images.container("localhost/debian:base")
    for step in (("update", "-qq"), ("install", "-qq", "--no-install-recommends", "docker-compose")):
        images.buildah("run", "--network=host", container, "apt-get", *step)
    cases: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (("compose.yaml",), {}),
        (("compose.yaml", "tls.yaml"), {"CERTIFICATES": "/certificates"}),
        (("gpu-host.yaml",), {"S3_ENDPOINT": "https://control.example:9000"}),
    )
    for files, env in cases:
        named = [f"--file=/project/docker/{name}" for name in files]
        profiles = [f"--profile={name}" for name in ("cpu", "nvidia", "vaapi", "monitoring", "dev")]
        told = images.run(
            container, "docker-compose", *named, *profiles, "config", "--format=json", "--no-path-resolution",
            env=env, mounts={ROOT: "/project"},
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        # It writes what Compose could read again, so with each $ doubled.
        theirs = json.loads(told.stdout.replace("$$", "$"))["services"]
        ours = compose.load(*files, env=env)["services"]
        assert set(theirs) == set(ours)
        for name, service in ours.items():
            assert _essence(theirs[name]) == _essence(service), name


def _essence(service: dict[str, Any]) -> dict[str, Any]:
    """What both ways of writing have in common."""
    command = service.get("command") or []
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    return {
        "image": service["image"],
        "command": command if isinstance(command, list) else [command],
        "profiles": sorted(service.get("profiles", [])),
        "environment": {key: str(value) for key, value in service.get("environment", {}).items()},
        "secrets": sorted(each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])),
        "waits": sorted(service.get("depends_on", {})),
        "ports": len(service.get("ports", [])),
        "cpus": float(limits.get("cpus", 0)),
        "read_only": service.get("read_only", False),
        "gpus": len(service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])),
    }


def test_the_images_make_a_replay(
    images: Images,
    tmp_path: Path,
    rabbitmq: brokers.RabbitMQ,
    redis_server: brokers.RedisServer,
    postgresql_server: services.PostgresqlServer,
    s3_server: services.S3Server,
    clip: Callable[[str], Path],
) -> None:
    """Each process from its image, with the secrets compose.yaml gives it, as files; servers are private ones."""
    users = rabbitmq.users(rabbitmq.vhost(topology=False))
    bucket = s3_server.settings(f"images{services.free_port()}")
    assert bucket.s3_secret_key is not None
    values = {
        "database_url": postgresql_server.database(),
        "redis_url": redis_server.url,
        "otp_secret": "a-secret-for-tests",
        "signing_secret": "another-secret-for-tests",
        "api_keys": '["key-for-tests"]',
        "s3_access_key": s3_server.access_key,
        "s3_secret_key": s3_server.secret_key,
        **{f"broker_url_{tier}": url for tier, url in users.items()},
    }
    port = {name: services.free_port() for name in ("api", "worker-fast", "worker-notify", "media-cpu")}
    env = {
        "AFTERLIVE_STORAGE_URL": bucket.url,
        "AFTERLIVE_STORAGE_S3_ENDPOINT": str(bucket.s3_endpoint),
        "AFTERLIVE_API_PUBLIC_URL": f"http://127.0.0.1:{port['api']}",
    }
    project = compose.load("compose.yaml")["services"]
    target = {"api": "control", "beat": "control", "topology": "control", "migrate": "control"}
    target |= {"worker-fast": "notify", "worker-notify": "notify", "media-cpu": "media-cpu"}

    def prepared(name: str) -> tuple[str, dict[str, Any]]:
        folder = tmp_path / f"secrets-{name}"
        folder.mkdir()
        folder.chmod(0o755)
        for secret in project[name]["secrets"]:
            (folder / secret["target"]).write_text(values[secret["source"]])
        ports = {"AFTERLIVE_API_PORT": str(port["api"]), "AFTERLIVE_WORKER_PORT": str(port.get(name, 0))}
        return images.container(target[name]), {"env": env | ports, "mounts": {folder: "/run/secrets"}}

    for name in ("topology", "migrate"):
        container, options = prepared(name)
        done = images.run(container, "afterlive", *project[name]["command"], **options)
        assert done.returncode == 0, done.stdout + done.stderr
    logs = {name: tmp_path / f"{name}.log" for name in ("api", "beat", "worker-fast", "worker-notify", "media-cpu")}
    with ExitStack() as stack:
        containers = {}
        for name, log in logs.items():
            container, options = prepared(name)
            containers[name] = container
            command = ["afterlive", *project[name]["command"]]
            stack.enter_context(images.running(container, *command, log=log, **options))

        def said() -> str:
            return "\n".join(f"--- {name}\n{log.read_text(errors='replace')[-2000:]}" for name, log in logs.items())

        for name, number in port.items():
            give_up = time.monotonic() + 90
            while (asked := images.run(containers[name], "afterlive-health", str(number))).returncode:
                assert time.monotonic() < give_up, f"{name}: {asked.stdout}{said()}"
                time.sleep(0.5)
        client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port['api']}", headers={"X-API-Key": "key-for-tests"}, timeout=20)
        )
        open_store(bucket).put_file("recordings/show.mp4", clip("mp4"))
        stream = client.post("/streams", json={"title": "Made by images"}).raise_for_status().json()
        ended = client.post(f"/streams/{stream['id']}/end", json={"recording": "store:recordings/show.mp4"})
        assert ended.status_code == 202, ended.text
        give_up = time.monotonic() + 180
        while (state := client.get(f"/streams/{stream['id']}").json()["replay"]["state"]) != "completed":
            assert state not in ("failed", "cancelled"), said()
            assert time.monotonic() < give_up, said()
            time.sleep(0.5)
        page = httpx.get(client.get(f"/streams/{stream['id']}").json()["player_url"])
        # With the library that npm's lock names: it was made in the image of the API.
        assert (page.status_code, "hls.min" in page.text) == (200, True)
