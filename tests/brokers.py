"""A private RabbitMQ and a private Redis, on ports and in folders of their own, that can be killed and restarted."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from amqp.exceptions import AccessRefused
from kombu import Connection

from control.bus.declare import declare
from control.bus.rights import RIGHTS, commands
from tests import services
from tests.house import system

_START_SECONDS = 60
_VHOSTS = 8
PASSWORD = "only-for-tests"


@dataclass
class RabbitMQ:
    """A running broker. Each test takes a virtual host of its own."""

    folder: Path
    port: int = field(default_factory=services.free_port)
    _dist_port: int = field(default_factory=services.free_port)
    _epmd_port: int = field(default_factory=services.free_port)
    process: subprocess.Popen[bytes] | None = None
    tls: dict[str, Path] | None = None
    tls_port: int = field(default_factory=services.free_port)
    settings: Sequence[str] = ()
    """Lines of rabbitmq.conf besides."""
    plugins: str = "[]."
    metrics_port: int = 0
    """Of its own metrics, where they are wanted (a plugin)."""
    prefix: Sequence[str] = ()
    """What it is started by."""
    _spare: list[str] = field(default_factory=list)
    _done: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Returns once it takes connections. Its data is what it was when it ended."""
        self._configure()
        log = (self.folder / "out.log").open("ab")
        command = [*self.prefix, str(self._tool("rabbitmq-server"))]
        self.process = subprocess.Popen(
            command, env=self._environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        log.close()
        give_up = time.monotonic() + _START_SECONDS
        while True:
            assert self.process.poll() is None, self._said()
            assert time.monotonic() < give_up, f"RabbitMQ did not start:\n{self._said()}"
            try:
                Connection(self.url("/"), connect_timeout=1).ensure_connection(max_retries=1).release()
            except AccessRefused:
                return  # it has users of its own, and told us so
            except Exception:  # noqa: BLE001  (kombu's own errors and the socket's alike: not yet)
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """kill -9 of the server and all it started."""
        assert self.process is not None
        os.killpg(self.process.pid, 9)
        self.process.wait()

    def stop(self) -> None:
        """However it can be ended. Its data is not needed again."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        # epmd is everybody's, and stays behind: this one is ours alone. It refuses until it has seen the server end.
        epmd = shutil.which("epmd")
        give_up = time.monotonic() + _START_SECONDS
        while epmd and time.monotonic() < give_up:
            done = subprocess.run([epmd, "-kill"], env=self._environment(), capture_output=True, check=False)
            if b"living nodes" not in done.stdout:
                break
            time.sleep(0.05)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl; what it printed."""
        done = subprocess.run(
            [str(self._tool("rabbitmqctl")), *arguments],
            env=self._environment(), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"rabbitmqctl {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def vhost(self, *, topology: bool = True) -> str:
        """The URL of a new virtual host, with all exchanges and queues where `topology`."""
        if not self._spare:
            # The eval speaks to the broker in its own words, at once: each of rabbitmqctl's commands starts a virtual
            # machine, which takes a second and more. So it makes several, and takes away those that are done with.
            self._spare = [f"v{uuid.uuid4().hex[:12]}" for _ in range(_VHOSTS)]
            said = [f'catch rabbit_vhost:delete(<<"{name}">>, <<"test">>)' for name in self._done]
            for name in self._spare:
                said.append(f'rabbit_vhost:add(<<"{name}">>, <<"test">>)')
                said.append(
                    f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
                    f'<<".*">>, <<".*">>, <<".*">>, <<"test">>)'
                )
            self._done = []
            self._eval(", ".join(said) + ".")
        name = self._spare.pop()
        if topology:
            with Connection(self.url(name)) as connection:
                declare(connection)
        return self.url(name)

    def forget(self, vhost_url: str) -> None:
        """Remove a virtual host with all its queues, soon."""
        self._done.append(vhost_url.rpartition("/")[2])

    def users(self, vhost_url: str) -> dict[str, str]:
        """The URL of each tier's user in a virtual host, with the rights the product gives it."""
        vhost = vhost_url.rpartition("/")[2]
        auth = "rabbit_auth_backend_internal:"
        # One that is there already is no matter: users are of the broker, their rights of the virtual host.
        said = [f'catch {auth}add_user(<<"afterlive-{tier}">>, <<"{PASSWORD}">>, <<"test">>)' for tier in RIGHTS]
        for command, _, _, user, *patterns in commands(vhost):
            words = ", ".join(_erlang(word) for word in (user, vhost, *patterns, "test"))
            said.append(f"{auth}{command}({words})")
        self._eval(", ".join(said) + ".")
        return {tier: self.url(vhost, f"afterlive-{tier}", PASSWORD) for tier in RIGHTS}

    def url(self, vhost: str, user: str = "guest", password: str = PASSWORD) -> str:
        if user == "guest":  # RabbitMQ makes that one itself
            password = user
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/{'' if vhost == '/' else vhost}"

    def depth(self, vhost_url: str, queue: str) -> int:
        """Messages that are ready in a queue."""
        with Connection(vhost_url) as connection:
            channel: Any = connection.channel()
            return int(channel.queue_declare(queue, passive=True).message_count)

    def _eval(self, expression: str) -> None:
        self.ctl("eval", expression)

    def _configure(self) -> None:
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "log.console = false",
            # A test machine's disk is nobody's business here, and its memory is not this broker's.
            "disk_free_limit.absolute = 50MB",
            "consumer_timeout = 3600000",
        ]
        if self.tls:
            lines += [
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                *(f"ssl_options.{name} = {path}" for name, path in self.tls.items()),
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        plugins = self.plugins
        if self.metrics_port:
            plugins = "[rabbitmq_prometheus]."
            lines += ["prometheus.tcp.ip = 127.0.0.1", f"prometheus.tcp.port = {self.metrics_port}"]
        (self.folder / "rabbitmq.conf").write_text("\n".join([*lines, *self.settings]) + "\n")
        (self.folder / "enabled_plugins").write_text(f"{plugins}\n")

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return os.environ | {
            "HOME": folder,
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            # Few schedulers that sleep at once: the tests need the cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_CTL_ERL_ARGS": "+S 1:1",
            "LANG": "C.UTF-8",
        }

    def _tool(self, name: str) -> Path:
        found = system.find(system.NEEDS["rabbitmq"])
        assert found, "no RabbitMQ on this machine: run python -m tests.house.system rabbitmq"
        # Not the wrapper in sbin, which changes to a user of its own.
        folder = Path("/usr/lib/rabbitmq/bin")
        return (folder if folder.exists() else Path(found).parent) / name

    def _said(self) -> str:
        logs = [self.folder / "out.log", *(self.folder / "log").glob("*.log")]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in logs if path.is_file())


def _erlang(text: str) -> str:
    return '<<"' + text.replace("\\", "\\\\") + '">>'


@contextmanager
def rabbitmq(
    folder: Path, tls: dict[str, Path] | None = None, *, metrics_port: int = 0, prefix: Sequence[str] = ()
) -> Iterator[RabbitMQ]:
    """A broker until the block ends."""
    made = RabbitMQ(folder, tls=tls, metrics_port=metrics_port, prefix=prefix)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@dataclass
class RedisServer:
    """A running Redis."""

    folder: Path
    port: int = field(default_factory=services.free_port)
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = system.find(system.NEEDS["redis"])
        assert program, "no Redis on this machine: run python -m tests.house.system redis"
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", *self.arguments]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        give_up = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < give_up, "Redis does not answer"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A Redis until the block ends."""
    made = RedisServer(folder)
    try:
        made.start()
        yield made
    finally:
        if made.process is not None:
            services.stop(made.process)
