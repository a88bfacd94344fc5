"""Certificates are checked, by everything that connects: who signed them, and whose name is on them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from kombu import Connection
from pydantic import SecretStr

from control.bus import live, tls
from control.bus.app import make_app
from control.bus.declare import declare, missing
from control.bus.names import HANDLE_FACT
from control.bus.publish import publisher_of, send
from control.errors import BrokerUnavailable
from control.settings import BusSettings
from tests import brokers, services
from tests.integration.rabbitmq.wire import depth


@dataclass(frozen=True)
class Certificates:
    """PEM files: of an authority of our own and of a stranger, a server's (for `localhost` alone) and a client's."""

    ours: Path
    strangers: Path
    server: Path
    server_key: Path
    client: Path
    client_both: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        ours, stranger = trustme.CA(), trustme.CA()
        made = cls(*(folder / f"{name}.pem" for name in ("ca", "stranger", "server", "server-key", "client", "both")))
        ours.cert_pem.write_to_path(made.ours)
        stranger.cert_pem.write_to_path(made.strangers)
        server, client = ours.issue_cert("localhost"), ours.issue_cert("media-1.example", common_name="media-1")
        server.private_key_pem.write_to_path(made.server_key)
        for path, leaf in ((made.server, server), (made.client, client)):
            for blob in leaf.cert_chain_pems:
                blob.write_to_path(path, append=True)
        client.private_key_and_cert_chain_pem.write_to_path(made.client_both)
        client.private_key_pem.write_to_path(made.client_key)
        return made

    @property
    def client_key(self) -> Path:
        return self.client.with_name("client-key.pem")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.RabbitMQ]:
    files = {"cacertfile": certificates.ours, "certfile": certificates.server, "keyfile": certificates.server_key}
    with brokers.rabbitmq(tmp_path_factory.mktemp("tls"), tls=files) as made:
        with Connection(made.url("/")) as connection:
            declare(connection)
        yield made


def on_broker(broker: brokers.RabbitMQ, host: str, **files: Any) -> BusSettings:
    url = f"amqps://guest:guest@{host}:{broker.tls_port}//"
    return BusSettings(_env_file=None, broker_url=SecretStr(url), publish_seconds=5, **files)


def by_publisher(settings: BusSettings) -> None:
    app = make_app(settings)
    try:
        send(app, HANDLE_FACT, {})
    finally:
        publisher_of(app).close()


def by_celery(settings: BusSettings) -> None:
    """As a worker connects."""
    with make_app(settings).connection_for_read() as connection:
        connection.connect()
        assert isinstance(connection.connection.transport.sock, ssl.SSLSocket)
        assert missing(connection) == []


# OpenSSL says the one or the other of an authority it has no reason to trust.
UNKNOWN = r"unable to get local issuer|self-signed"
EITHER = pytest.mark.parametrize("connect", [by_publisher, by_celery])


def test_with_the_right_authority(broker: brokers.RabbitMQ, certificates: Certificates) -> None:
    before = depth(broker.url("/"), HANDLE_FACT.queue) or 0
    settings = on_broker(broker, "localhost", ca_file=certificates.ours)
    by_publisher(settings)
    by_celery(settings)
    assert depth(broker.url("/"), HANDLE_FACT.queue) == before + 1


@EITHER
def test_an_authority_nobody_knows(broker: brokers.RabbitMQ, certificates: Certificates, connect: Any) -> None:
    with pytest.raises((BrokerUnavailable, ssl.SSLCertVerificationError), match=UNKNOWN):
        connect(on_broker(broker, "localhost", ca_file=certificates.strangers))


@EITHER
def test_without_a_list_the_systems_counts(broker: brokers.RabbitMQ, connect: Any) -> None:
    """And ours is not on it."""
    with pytest.raises((BrokerUnavailable, ssl.SSLCertVerificationError), match=UNKNOWN):
        connect(on_broker(broker, "localhost"))


@EITHER
def test_another_ones_certificate(broker: brokers.RabbitMQ, certificates: Certificates, connect: Any) -> None:
    """Signed by whom we trust, but for another name than the one we asked for."""
    with pytest.raises((BrokerUnavailable, ssl.SSLCertVerificationError), match=r"not valid for '127\.0\.0\.1'"):
        connect(on_broker(broker, "127.0.0.1", ca_file=certificates.ours))


@pytest.mark.parametrize("files", ["two files", "one file"])
def test_a_certificate_of_its_own(broker: brokers.RabbitMQ, certificates: Certificates, files: str) -> None:
    """Both show it."""
    two = {"cert_file": certificates.client, "key_file": certificates.client_key}
    own = two if files == "two files" else {"cert_file": certificates.client_both}
    settings = on_broker(broker, "localhost", ca_file=certificates.ours, **own)
    app = make_app(settings)
    with app.connection_for_read() as connection:
        connection.connect()
        send(app, HANDLE_FACT, {})
        shown = broker.ctl("list_connections", "--quiet", "peer_cert_subject").splitlines()
        publisher_of(app).close()
    assert sum("media-1" in line for line in shown) == 2


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_port(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a Redis that talks to nobody without a certificate of ours."""
    port = services.free_port()
    arguments = ["--tls-port", str(port), "--tls-auth-clients", "yes", "--tls-ca-cert-file", str(certificates.ours)]
    arguments += ["--tls-cert-file", str(certificates.server), "--tls-key-file", str(certificates.server_key)]
    server = brokers.RedisServer(tmp_path_factory.mktemp("redis-tls"), arguments=arguments)
    server.start()
    assert server.process is not None
    yield port
    services.stop(server.process)


@pytest.fixture(autouse=True)
def _board(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every application made here has another one."""
    monkeypatch.setattr(live, "_board", live.InProcess())


def on_redis(port: int, host: str, certificates: Certificates, **changes: Path | None) -> BusSettings:
    files: dict[str, Any] = {"ca_file": certificates.ours, "cert_file": certificates.client_both} | changes
    return BusSettings(_env_file=None, result_backend=SecretStr(f"rediss://{host}:{port}/0"), **files)


def test_redis_with_the_right_authority(redis_port: int, certificates: Certificates) -> None:
    settings = on_redis(redis_port, "localhost", certificates)
    board = live.use(settings)
    board.put("t1", {"state": "STARTED"})
    board.flush()
    assert board.get("t1") == {"state": "STARTED"}
    backend = make_app(settings).backend
    backend.store_result("t2", {"made": 1}, "SUCCESS")
    assert backend.get_result("t2") == {"made": 1}


WRONG = {
    "an authority nobody knows": ("localhost", "strangers", True),
    "another one's certificate": ("127.0.0.1", "ours", True),
    "no certificate of its own": ("localhost", "ours", False),
}


@pytest.mark.parametrize("what", WRONG)
def test_redis_otherwise_is_refused(
    redis_port: int, certificates: Certificates, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    host, authority, shows = WRONG[what]
    changes = {"ca_file": getattr(certificates, authority)} | ({} if shows else {"cert_file": None})
    settings = on_redis(redis_port, host, certificates, **changes)
    board = live.use(settings)
    board.put("t3", {"state": "STARTED"})
    board.flush()  # a courtesy: it says so, and goes on
    assert "what runs is not shown" in caplog.text
    assert board.get("t3") == {}
    with pytest.raises(redis.ConnectionError):
        make_app(settings).backend.get_result("t3")


# --- and without ------------------------------------------------------------------------------------------------------


def test_urls_without_tls_have_no_options(certificates: Certificates) -> None:
    """Though there are files: the embedded bus, and a broker on this machine."""
    files: dict[str, Any] = {"ca_file": certificates.ours, "cert_file": certificates.client_both}
    for broker, backend in (("memory://", "cache+memory://"), ("amqp://localhost//", "redis://localhost/0")):
        settings = BusSettings(
            _env_file=None, broker_url=SecretStr(broker), result_backend=SecretStr(backend), **files
        )  # fmt: skip
        assert tls.context(settings) is None
        assert tls.celery_options(settings) == {}
