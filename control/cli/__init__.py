"""The `afterlive` command. Tiers that are installed add commands of their own (entry points `afterlive.commands`)."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version

import click

from control.cli.demo import demo
from control.cli.doctor import doctor
from control.cli.replay import replay
from control.cli.up import up
from control.errors import AfterliveError, Cancelled


class _Commands(click.Group):
    """A group that also knows the commands of installed tiers, loaded only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_extras()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if found := super().get_command(ctx, cmd_name):
            return found
        if cmd_name not in _extras():
            return None
        loaded = _extras()[cmd_name].load()
        return loaded if isinstance(loaded, click.Command) else None


def _extras() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="afterlive.commands")}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("afterlive"), prog_name="afterlive")
def cli() -> None:
    """Afterlive: everything that happens after the live moment.

    Settings come from the environment (AFTERLIVE_…) and from `.env`; see `.env.example`.
    """


for command in (up, replay, demo, doctor):
    cli.add_command(command)


def main() -> None:
    """Entry point: every error that has a name is one line and exit status 1."""
    try:
        cli(prog_name="afterlive")
    except AfterliveError as error:
        click.echo(f"afterlive: {error.code}: {error.detail}", err=True)
        # 130 is what shells expect of a program that Ctrl-C ended.
        sys.exit(130 if isinstance(error, Cancelled) else 1)
