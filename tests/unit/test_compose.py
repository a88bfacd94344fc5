"""docker/: what it names is there, and fits. No engine is asked; `test_images.py` builds and runs."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic_settings import BaseSettings

from control.bus.rights import RIGHTS
from control.cli import cli
from control.settings import Settings
from tests import compose, services

ROOT = Path(__file__).parents[2]
PROFILES = ("cpu", "nvidia", "vaapi", "monitoring", "dev")
ONES_OWN = ("control", "notify", "media-cpu", "media-nvidia", "media-vaapi", "flower")
GPU_HOST = {"S3_ENDPOINT": "https://control.example:9000"}
TLS = {"CERTIFICATES": "./certificates"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return compose.load("compose.yaml")


@pytest.fixture(scope="module")
def gpu_host() -> dict[str, Any]:
    return compose.load("gpu-host.yaml", env=GPU_HOST)


@pytest.fixture(scope="module")
def both(project: dict[str, Any], gpu_host: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each service of both files, with its project."""
    return [
        (name, service, each)
        for each in (project, gpu_host, compose.load("compose.yaml", "tls.yaml", env=TLS))
        for name, service in each["services"].items()
    ]


def is_ours(service: dict[str, Any]) -> bool:
    return bool(service["image"].startswith("afterlive/"))


def settings_in(service: dict[str, Any]) -> dict[str, str]:
    """The settings a service has by name: of its environment, and of its secrets."""
    secrets = [each for each in service.get("secrets", ()) if isinstance(each, dict)]
    return {
        **{name: value for name, value in service.get("environment", {}).items() if name.startswith("AFTERLIVE_")},
        **{each["target"].upper(): each["source"] for each in secrets},
    }


def known_settings() -> dict[str, type[BaseSettings]]:
    groups = [field.annotation for field in Settings.model_fields.values()]
    return {
        f"{group.model_config['env_prefix']}{name}".upper(): group
        for group in groups
        if isinstance(group, type) and issubclass(group, BaseSettings)
        for name in group.model_fields
    }


def test_the_files_are_compose_files() -> None:
    """By the Compose specification's own schema."""
    paths = [str(compose.DOCKER / name) for name in compose.FILES]
    command = [str(services.tool("check-jsonschema")), "--builtin-schema", "vendor.compose-spec", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {api: {image: x, replicas: 2}}")
    command = [str(services.tool("check-jsonschema")), "--builtin-schema", "vendor.compose-spec", str(wrong)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_profile_starts_finds_all_it_waits_for(project: dict[str, Any], profile: str) -> None:
    started = compose.services_of(project, profile)
    assert {"rabbitmq", "redis", "postgres", "store", "api", "beat", "worker-fast", "worker-notify"} <= set(started)
    assert len(started) > len(compose.services_of(project))
    for name, service in started.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in started, f"{name} waits for {needed}"
            once = how["condition"] == "service_completed_successfully"
            assert once == (needed in ("topology", "migrate"))
            if how["condition"] == "service_healthy":
                assert "test" in started[needed]["healthcheck"], f"{name} waits for {needed}'s health"


def test_every_profile_is_one_of_the_documented(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    assert {profile for _, service, _ in both for profile in service.get("profiles", ())} == set(PROFILES)


def test_every_file_is_there(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (compose.DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    assert set(ONES_OWN) <= targets
    for name, service, project in both:
        if build := service.get("build"):
            assert (compose.DOCKER / build["context"] / build["dockerfile"]).is_file()
            assert build["target"] in targets
            assert service["image"].startswith(f"afterlive/{build['target']}:")
        for volume in service.get("volumes", ()):
            source = "" if isinstance(volume, dict) else volume.partition(":")[0]
            if source.startswith("./") and source != TLS["CERTIFICATES"]:
                assert (compose.DOCKER / source).exists(), f"{name}: {source}"
            elif source and not source.startswith("./"):
                assert source in project["volumes"], f"{name}: {source}"
        for secret in service.get("secrets", ()):
            named = secret["source"] if isinstance(secret, dict) else secret
            assert named in project["secrets"], f"{name}: {named}"
    used = {
        secret["source"] if isinstance(secret, dict) else secret
        for _, service, _ in both
        for secret in service.get("secrets", ())
    }
    assert used == {name for _, _, project in both for name in project["secrets"]}


def test_what_reads_a_secret_has_it(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    read = 0
    for name, service, _ in both:
        had = {each["target"] if isinstance(each, dict) else each for each in service.get("secrets", ())}
        said = json.dumps([service.get("command"), service.get("environment")])
        named = set(re.findall(r"/run/secrets/(\w+)", said))
        assert named <= had, name
        read += len(named)
    assert read >= 6
    conf = (compose.DOCKER / "rabbitmq" / "afterlive.conf").read_text()
    assert re.findall(r"/run/secrets/(\w+)", conf) == ["rabbitmq_definitions"]


def test_prometheus_scrapes_services_that_are_there_and_has_the_key(project: dict[str, Any]) -> None:
    configuration = compose.DOCKER / "prometheus" / "prometheus.yml"
    jobs = yaml.safe_load(configuration.read_text())["scrape_configs"]
    found = {name for job in jobs for each in job.get("dns_sd_configs", ()) for name in each["names"]}
    found |= {
        target.partition(":")[0]
        for job in jobs
        for each in job.get("static_configs", ())
        for target in each["targets"]
        if not target.startswith("localhost:")
    }
    assert {"api", "worker-fast", "worker-notify", "media-cpu"} <= found
    assert found <= set(project["services"])
    keys = {job["authorization"]["credentials_file"] for job in jobs if "authorization" in job}
    assert keys == {f"/run/secrets/{each['target']}" for each in project["services"]["prometheus"]["secrets"]}


def test_grafana_finds_its_dashboards_and_prometheus(project: dict[str, Any]) -> None:
    mounted = dict(volume.split(":")[:2] for volume in project["services"]["grafana"]["volumes"])
    provisioning = compose.DOCKER / "grafana" / "provisioning"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "afterlive.yml").read_text())["providers"]
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_every_secret_is_a_file_that_the_command_makes(
    tmp_path: Path, project: dict[str, Any], gpu_host: dict[str, Any]
) -> None:
    folder = tmp_path / "secrets"
    done = CliRunner().invoke(cli, ["secrets", str(folder), "--address", "amqps://control.example:5671"])
    assert done.exit_code == 0, done.output
    for secret in project["secrets"].values():
        assert (folder / Path(secret["file"]).relative_to("secrets")).is_file(), secret
    for secret in gpu_host["secrets"].values():
        assert (folder / secret["file"]).is_file(), secret


def test_every_setting_is_one_and_has_a_value_it_takes(
    both: list[tuple[str, dict[str, Any], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    known = known_settings()
    of_image = dict(re.findall(r"(AFTERLIVE_[A-Z_]+)=(\S+)", (compose.DOCKER / "Dockerfile").read_text()))
    of_trials = dict(re.findall(r"^(AFTERLIVE_[A-Z_]+)=(\S+)$", (compose.DOCKER / "dev.env").read_text(), re.MULTILINE))
    assert len(of_image) >= 4
    assert len(of_trials) >= 4
    found = [(of_image, set[str]()), (of_trials, set[str]())]
    for _, service, _ in both:
        secrets = {each["target"].upper() for each in service.get("secrets", ()) if isinstance(each, dict)}
        if is_ours(service):
            found.append((settings_in(service), secrets))
    for values, secret in found:
        for setting, value in values.items():
            assert setting in known, setting
            if setting not in secret:
                monkeypatch.setenv(setting, value.strip("'"))
                known[setting]()
                monkeypatch.delenv(setting)


def test_every_command_is_one(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    ours = [service["command"] for _, service, _ in both if is_ours(service) and "entrypoint" not in service]
    dockerfile = (compose.DOCKER / "Dockerfile").read_text()
    ours += [json.loads(found) for found in re.findall(r'^ENTRYPOINT \["afterlive"\]\nCMD (.+)$', dockerfile, re.M)]
    assert len(ours) >= 10
    for name, *arguments in ours:
        with click.Context(cli) as context:
            command = cli.get_command(context, name)
        assert command is not None, name
        command.make_context(name, list(arguments))  # refuses what it does not know


def test_images_are_pinned(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, service, _ in both:
        image, _, tag = service["image"].rpartition(":")
        if is_ours(service):
            assert tag == version, name
        else:
            # The registry is named, and the version to its last digit.
            assert re.match(r"v?\d+\.\d+(\.\d+)?", tag), f"{name}: {service['image']}"
            assert image.startswith("docker.io/")
    base = re.search(r"^ARG BASE=(\S+)$", (compose.DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert re.fullmatch(r"docker\.io/library/debian:[a-z]+-\d{8}-slim", base[1])


def test_ours_may_do_little(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    for name, service, _ in both:
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        assert service["logging"]["options"]["max-size"], name
        assert not {"privileged", "user"} & set(service), name
        if is_ours(service):
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
        if service["restart"] != "on-failure":
            limits = service["deploy"]["resources"]["limits"]
            assert float(limits["cpus"]) > 0, name
            assert re.fullmatch(r"\d+[mg]", limits["memory"]), name
    # Every image of a tier ends as somebody who is not root.
    stages = re.split(r"^FROM ", (compose.DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    for target in ONES_OWN:
        stage = next(stage for stage in stages if re.match(rf"\S+ AS {target}\n", stage))
        users = re.findall(r"^USER (\S+)$", stage, re.MULTILINE)
        assert users[-1:] == ["10001:10001"], target


def test_nobody_outside_this_machine_reaches_a_port(both: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    for name, service, _ in both:
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:") or port == "0.0.0.0:5671:5671", f"{name}: {port}"


@pytest.mark.parametrize(
    ("service", "tier"),
    [("topology", "topology"), ("api", "api"), ("beat", "beat"), ("worker-fast", "fast"), ("worker-notify", "notify")]
    + [(f"media-{kind}", "media") for kind in ("cpu", "nvidia", "vaapi")],
)
def test_each_tier_has_the_secrets_it_needs(project: dict[str, Any], service: str, tier: str) -> None:
    had = settings_in(project["services"][service])
    assert tier in RIGHTS
    assert had["AFTERLIVE_BUS_BROKER_URL"] == f"broker_url_{tier}"
    of_ledger = {"AFTERLIVE_DATABASE_URL", "AFTERLIVE_OTP_SECRET", "AFTERLIVE_API_KEYS"} & set(had)
    wanted = {
        "topology": set[str](),
        "media": set[str](),
        "beat": {"AFTERLIVE_DATABASE_URL"},
        "api": {"AFTERLIVE_DATABASE_URL", "AFTERLIVE_OTP_SECRET", "AFTERLIVE_API_KEYS"},
    }
    assert of_ledger == wanted.get(tier, {"AFTERLIVE_DATABASE_URL", "AFTERLIVE_OTP_SECRET"})
    assert ("AFTERLIVE_STORAGE_S3_SECRET_KEY" in had) == (tier in ("api", "notify", "media"))


def test_a_gpu_host_needs_the_broker_and_the_store(gpu_host: dict[str, Any]) -> None:
    assert set(gpu_host["services"]) == {"media-cpu", "media-nvidia", "media-vaapi"}
    for service in gpu_host["services"].values():
        assert set(settings_in(service)) == {
            "AFTERLIVE_BUS_BROKER_URL",
            "AFTERLIVE_MEDIA_CONCURRENCY",
            "AFTERLIVE_STORAGE_S3_ACCESS_KEY",
            "AFTERLIVE_STORAGE_S3_ENDPOINT",
            "AFTERLIVE_STORAGE_S3_SECRET_KEY",
            "AFTERLIVE_STORAGE_URL",
        }
        assert "depends_on" not in service
    with pytest.raises(compose.MissingVariable, match="S3_ENDPOINT: the address of the store"):
        compose.load("gpu-host.yaml")


def test_gpus_are_given_to_who_uses_them(project: dict[str, Any], gpu_host: dict[str, Any]) -> None:
    for each in (project, gpu_host):
        nvidia, vaapi, cpu = (each["services"][f"media-{kind}"] for kind in ("nvidia", "vaapi", "cpu"))
        [device] = nvidia["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        # NVENC and NVDEC are "video": without it, the driver's libraries for them are not put in.
        assert {"gpu", "video"} <= set(device["capabilities"])
        assert vaapi["devices"] == ["/dev/dri:/dev/dri"]
        assert vaapi["group_add"]
        assert "devices" not in cpu
        assert "reservations" not in cpu["deploy"]["resources"]
        for service in (nvidia, vaapi, cpu):
            assert service["cpu_shares"] == 2
            # Sessions of a GPU are counted in a folder there: one for all workers of the host.
            assert "scratch:/scratch" in service["volumes"]


def test_other_machines_reach_the_broker_by_tls_alone() -> None:
    project = compose.load("compose.yaml", "tls.yaml", env=TLS)
    broker, store = project["services"]["rabbitmq"], project["services"]["store"]
    assert "0.0.0.0:5671:5671" in broker["ports"]
    assert not any(port.endswith(":5672") for port in broker["ports"])
    assert any(volume.endswith("60-tls.conf:ro") for volume in broker["volumes"])
    assert any(volume.endswith("50-afterlive.conf:ro") for volume in broker["volumes"])
    assert "--cert /certificates/server.pem" in store["command"][0]


def test_a_variable_means_the_same_wherever_it_is_named() -> None:
    found: dict[str, set[str]] = {}
    for name, default in compose.variables():
        found.setdefault(name, set()).add(default)
    assert {name: defaults for name, defaults in found.items() if len(defaults) > 1 and name != "S3_ENDPOINT"} == {}
