"""The `afterlive` command. Commands are loaded when they are called: a node has only its own tier's packages, and a
tier that is installed adds commands of its own (entry points `afterlive.commands`)."""

from __future__ import annotations

import gc
import importlib
import sys
from importlib.metadata import entry_points, version
from typing import Final

import click

from control.errors import AfterliveError, Cancelled

# Most of what a start makes stays: 700 new objects are no reason to look through all there is.
_GARBAGE_AFTER: Final = 20_000
_OWN: Final = {
    "api": "control.cli.api",
    "beat": "control.cli.beat",
    "cleanup": "control.cli.cleanup",
    "demo": "control.cli.demo",
    "doctor": "control.cli.doctor",
    "failed": "control.cli.failed",
    "fake-ecpay": "control.cli.fake_ecpay",
    "migrate": "control.cli.migrate",
    "nodes": "control.cli.nodes",
    "replay": "control.cli.replay",
    "secrets": "control.cli.secrets",
    "task": "control.cli.task",
    "topology": "control.cli.topology",
    "up": "control.cli.up",
    "worker": "control.cli.worker",
}


class _Commands(click.Group):
    """A group that loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (the interface's)
        return sorted({*_OWN, *entry_points(group="afterlive.commands").names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        try:
            if cmd_name in _OWN:
                found = getattr(importlib.import_module(_OWN[cmd_name]), cmd_name.replace("-", "_"))
            else:
                points = entry_points(group="afterlive.commands", name=cmd_name)
                found = next((point.load() for point in points), None)
        except ModuleNotFoundError as error:
            return _unavailable(cmd_name, error)
        return found if isinstance(found, click.Command) else None


def _unavailable(name: str, error: ModuleNotFoundError) -> click.Command:
    """Stands for a command whose packages this node does not have."""
    reason = f"Not on this node: it needs the package {error.name} (pip install 'afterlive[all]')."

    @click.command(name, help=reason, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def command(arguments: tuple[str, ...]) -> None:  # noqa: ARG001  (whatever the real one takes)
        raise click.ClickException(reason)

    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("afterlive"), prog_name="afterlive")
def cli() -> None:
    """Afterlive: everything that happens after the live moment.

    Settings come from the environment (AFTERLIVE_…) and from `.env`; see `.env.example`.
    """


def main() -> None:
    """Entry point: every error that has a name is one line and exit status 1."""
    gc.set_threshold(_GARBAGE_AFTER)
    try:
        cli(prog_name="afterlive")
    except AfterliveError as error:
        click.echo(f"afterlive: {error.code}: {error.detail}", err=True)
        # 130 is what shells expect of a program that Ctrl-C ended.
        sys.exit(130 if isinstance(error, Cancelled) else 1)
    finally:
        # Searching all there is for garbage, right before the process ends, takes it a fifth of a second.
        gc.freeze()
