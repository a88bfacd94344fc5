"""`afterlive secrets`: made once, kept, each where its user finds it; and the broker's definitions of this version."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.bus.definitions import definitions
from control.bus.rights import RIGHTS, commands
from control.cli import cli
from control.cli.secrets import broker_url


def secrets(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["secrets", str(folder), *arguments])


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_they_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "secrets"
    assert secrets(folder).exit_code == 0
    first = files(folder)
    assert len(set(first.values())) == len(first)
    again = secrets(folder)
    assert (again.exit_code, again.output.strip()) == (0, f"{folder}: all there")
    assert files(folder) == first


def test_what_somebody_put_there_stays_and_the_rest_follows_it(tmp_path: Path) -> None:
    (tmp_path / "postgres_password").write_text("mine\n")
    (tmp_path / "redis_url").write_text("rediss://:elsewhere@redis.example/0")
    assert secrets(tmp_path).exit_code == 0
    made = files(tmp_path)
    assert made["postgres_password"] == "mine\n"
    assert made["database_url"] == "postgresql+psycopg://afterlive:mine@postgres:5432/afterlive"
    assert made["redis_url"] == "rediss://:elsewhere@redis.example/0"


def test_nobody_else_gets_into_the_folder_and_containers_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secrets(folder, "--address", "amqps://control.example:5671")
    for each in (folder, folder / "gpu-host"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o444}
    assert not list(folder.rglob(".*"))


def test_a_gpu_host_gets_three_and_the_newest_address(tmp_path: Path) -> None:
    secrets(tmp_path, "--address", "amqps://old.example:5671")
    moved = secrets(tmp_path, "--address", "amqps://new.example:5671/")
    assert moved.output.strip() == f"{tmp_path}: made gpu-host/broker_url"
    made = files(tmp_path)
    theirs = {name.partition("/")[2]: text for name, text in made.items() if name.startswith("gpu-host/")}
    assert set(theirs) == {"broker_url", "s3_access_key", "s3_secret_key"}
    assert theirs["s3_secret_key"] == made["s3_secret_key"]
    password = made["rabbitmq_password_media"]
    assert theirs["broker_url"] == f"amqps://afterlive-media:{password}@new.example:5671/afterlive"


@pytest.mark.parametrize("address", ["control.example", "https://control.example", "amqps://user:password@host"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    refused = secrets(tmp_path / "secrets", "--address", address)
    assert refused.exit_code == 2
    assert "scheme, host and port" in refused.output
    assert not (tmp_path / "secrets").exists()


def test_the_definitions_follow_the_version(tmp_path: Path) -> None:
    secrets(tmp_path)
    path = tmp_path / "rabbitmq_definitions.json"
    newest = path.read_text()
    old = json.loads(newest)
    old["permissions"] = old["permissions"][1:]
    path.chmod(0o600)
    path.write_text(json.dumps(old))
    renewed = secrets(tmp_path)
    assert renewed.output.strip() == f"{tmp_path}: made rabbitmq_definitions.json"
    assert path.read_text() == newest


def test_the_definitions_say_what_the_rights_say() -> None:
    """`afterlive topology --rights` prints the same for a broker that runs already."""
    made = definitions("afterlive", dict.fromkeys((*RIGHTS, "admin"), "a-password"))
    said = [
        ["set_permissions", "-p", each["vhost"], each["user"], each["configure"], each["write"], each["read"]]
        for each in made["permissions"]
        if each["user"] != "admin"
    ]
    said += [
        ["set_topic_permissions", "-p", each["vhost"], each["user"], each["exchange"], each["write"], each["read"]]
        for each in made["topic_permissions"]
    ]
    assert sorted(said) == sorted(commands("afterlive"))
    assert {user["name"] for user in made["users"]} == {f"afterlive-{tier}" for tier in RIGHTS} | {"admin"}
    assert [user["name"] for user in made["users"] if user["tags"]] == ["admin"]


def test_a_password_is_kept_as_its_hash() -> None:
    made = definitions("v", {tier: f"password of {tier}" for tier in (*RIGHTS, "admin")})
    assert "password of" not in json.dumps(made).replace("password_hash", "")
    for user in made["users"]:
        kept = base64.b64decode(user["password_hash"])
        password = f"password of {user['name'].removeprefix('afterlive-')}"
        assert kept[4:] == hashlib.sha256(kept[:4] + password.encode()).digest()
    with pytest.raises(KeyError):
        definitions("v", {"media": "alone"})


def test_a_password_may_have_any_letter() -> None:
    assert broker_url("amqp://h:1", "media", "a/b@c:d%") == "amqp://afterlive-media:a%2Fb%40c%3Ad%25@h:1/afterlive"
