"""docker/'s servers, as far as they run without containers: RabbitMQ, Redis and the store, with the very files,
commands and secrets compose.yaml gives them."""

from __future__ import annotations

import json
import os
import re
import shlex
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import trustme
from click.testing import CliRunner
from kombu import Connection
from pydantic import SecretStr

from control.bus.declare import missing
from control.cli import cli
from control.settings import StorageSettings
from control.storage import open_store
from tests import brokers, compose, services


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment") / "secrets"
    done = CliRunner().invoke(cli, ["secrets", str(folder), "--address", "amqps://localhost:5671"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return compose.load("compose.yaml")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as tls.yaml wants it, for the name other machines would use; and who signed it, which they are given."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    leaf = authority.issue_cert("localhost")
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(folder / "server.pem", append=True)
    leaf.private_key_pem.write_to_path(folder / "server-key.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return folder


@dataclass
class Deployed(brokers.RabbitMQ):
    """A broker that also tells of itself."""

    metrics_url: str = ""


@pytest.fixture(scope="module")
def deployed(secrets: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A broker with docker/rabbitmq's configuration; only paths and ports are this machine's."""
    folder = compose.DOCKER / "rabbitmq"
    conf = (folder / "afterlive.conf").read_text() + (folder / "tls.conf").read_text()
    conf = conf.replace("/run/secrets/rabbitmq_definitions", str(secrets / "rabbitmq_definitions.json"))
    tls_port = services.free_port()
    conf = conf.replace("/certificates", str(certificates)).replace("= 5671", f"= {tls_port}")
    lines = [line for line in conf.splitlines() if line and not line.startswith(("#", "disk_free_limit"))]
    management, metrics = services.free_port(), services.free_port()
    lines += [f"management.tcp.port = {management}", "management.tcp.ip = 127.0.0.1"]
    lines += [f"prometheus.tcp.port = {metrics}", "prometheus.tcp.ip = 127.0.0.1"]
    plugins = (compose.DOCKER / "rabbitmq" / "enabled_plugins").read_text().strip()
    made = Deployed(tmp_path_factory.mktemp("broker"), settings=lines, plugins=plugins, tls_port=tls_port)
    made.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
    try:
        made.start()
        yield made
    finally:
        made.stop()


def url(broker: brokers.RabbitMQ, secrets: Path, tier: str) -> str:
    """The tier's URL as `afterlive secrets` made it, at this broker."""
    return (secrets / f"broker_url_{tier}").read_text().replace("@rabbitmq:5672/", f"@127.0.0.1:{broker.port}/")


def afterlive(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AFTERLIVE_")}
    command = [str(services.tool("afterlive")), *arguments]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, check=False, timeout=60)


def test_the_broker_starts_with_a_user_a_tier(deployed: Deployed, secrets: Path, tmp_path: Path) -> None:
    # By way of a file of its own, as in the container.
    (tmp_path / "afterlive_bus_broker_url").write_text(url(deployed, secrets, "topology"))
    declared = afterlive("topology", AFTERLIVE_SECRETS_DIR=str(tmp_path))
    assert declared.returncode == 0, declared.stderr
    assert "low_priority" in declared.stdout
    for tier in ("api", "beat", "fast", "notify", "media", "monitor"):
        with Connection(url(deployed, secrets, tier)) as connection:
            connection.ensure_connection(max_retries=1)
            if tier in ("fast", "notify", "media"):
                assert missing(connection) == []
    refused = afterlive("topology", AFTERLIVE_BUS_BROKER_URL=url(deployed, secrets, "media"))
    assert refused.returncode == 1
    assert "ACCESS_REFUSED" in refused.stderr
    # The user everybody knows is not there.
    with pytest.raises(Exception, match=r"ACCESS_REFUSED"):
        Connection(deployed.url("/")).ensure_connection(max_retries=1)


def test_a_gpu_host_reaches_the_broker_by_its_three_secrets(
    deployed: Deployed, secrets: Path, certificates: Path, tmp_path: Path
) -> None:
    declared = afterlive("topology", AFTERLIVE_BUS_BROKER_URL=url(deployed, secrets, "topology"))
    assert declared.returncode == 0, declared.stderr
    given = (secrets / "gpu-host" / "broker_url").read_text()
    assert given.startswith("amqps://afterlive-media:")
    (tmp_path / "afterlive_bus_broker_url").write_text(given.replace(":5671/", f":{deployed.tls_port}/"))

    def broker_of(**env: str) -> str:
        told = afterlive("doctor", "--json", AFTERLIVE_SECRETS_DIR=str(tmp_path), **env)
        [check] = [each for each in json.loads(told.stdout)["checks"] if each["name"] == "broker"]
        return f"{check['status']}: {check['detail']}"

    found = broker_of(AFTERLIVE_BUS_CA_FILE=str(certificates / "authority.pem"))
    assert found.startswith("ok: amqps://afterlive-media:**@127.0.0.1:")
    # Whom it does not trust it gives no password.
    assert "CERTIFICATE_VERIFY_FAILED" in broker_of()


def test_the_broker_tells_prometheus_of_each_queue(deployed: Deployed, secrets: Path) -> None:
    declared = afterlive("topology", AFTERLIVE_BUS_BROKER_URL=url(deployed, secrets, "topology"))
    assert declared.returncode == 0, declared.stderr
    give_up = time.monotonic() + 30  # it counts every five seconds
    while not re.search(r'rabbitmq_detailed_queue_messages_ready\{[^}]*queue="low_priority"', _told(deployed)):
        assert time.monotonic() < give_up, _told(deployed)[:2000]
        time.sleep(0.2)


def _told(broker: Deployed) -> str:
    family = {"family": "queue_coarse_metrics"}
    return httpx.get(f"{broker.metrics_url}/detailed", params=family, timeout=10).text


def test_redis_lets_nobody_in_without_the_password(secrets: Path, project: dict[str, Any], tmp_path: Path) -> None:
    program, *flags = project["services"]["redis"]["command"]
    assert program == "redis-server"
    made = brokers.RedisServer(tmp_path, arguments=shlex.split(" ".join(flags).replace("/run/secrets", str(secrets))))
    try:
        made.start()
        with pytest.raises(redis.AuthenticationError):
            made.client().ping()
        known = redis.Redis.from_url(
            (secrets / "redis_url").read_text().replace("redis:6379", f"127.0.0.1:{made.port}")
        )
        assert known.ping() is True
        assert known.config_get("appendonly")["appendonly"] == "yes"
        assert known.config_get("maxmemory-policy")["maxmemory-policy"] == "volatile-ttl"
        known.set("kept", "1")
        made.kill()
        made.start()
        assert known.get("kept") == b"1"
    finally:
        if made.process is not None:
            services.stop(made.process)


@pytest.fixture(params=["compose.yaml", "tls.yaml"])
def store(request: pytest.FixtureRequest, secrets: Path, certificates: Path, tmp_path: Path) -> Iterator[str]:
    """The store's own command, in its own shell, without and with certificates; its address."""
    port, tls = services.free_port(), request.param == "tls.yaml"
    files = ("compose.yaml", "tls.yaml") if tls else ("compose.yaml",)
    service = compose.load(*files, env={"CERTIFICATES": str(certificates)})["services"]["store"]
    [script] = service["command"]
    for theirs, ours in (("/run/secrets", secrets), ("/data", tmp_path), ("/certificates", certificates)):
        script = script.replace(theirs, str(ours))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [*service["entrypoint"], script.replace(":9000", f":{port}")]
    log = tmp_path / "rclone.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        services.await_port(process, port, log)
        yield f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    finally:
        services.stop(process)


def test_the_store_takes_the_keys_of_the_secrets(
    store: str, secrets: Path, certificates: Path, project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # How boto3 is told of an authority of one's own.
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates / "authority.pem"))
    settings = StorageSettings(
        _env_file=None,
        url=project["services"]["api"]["environment"]["AFTERLIVE_STORAGE_URL"],
        s3_endpoint=store,
        s3_access_key=SecretStr((secrets / "s3_access_key").read_text()),
        s3_secret_key=SecretStr((secrets / "s3_secret_key").read_text()),
    )
    held = open_store(settings)
    held.put_bytes("a/key.txt", b"something")
    assert held.get_bytes("a/key.txt") == b"something"
    link = held.read_url("a/key.txt", 60)
    assert link is not None
    # A browser that was sent here from another origin may read it.
    trusts = ssl.create_default_context(cafile=certificates / "authority.pem")
    answer = httpx.get(link, headers={"Origin": "http://127.0.0.1:8000"}, verify=trusts)
    assert (answer.status_code, answer.text) == (200, "something")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert httpx.get(link.replace("Signature=", "Signature=0"), verify=trusts).status_code == 403
