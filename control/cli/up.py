"""`afterlive up`: the API and all workers on one machine, no server to install."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import click

from control import tracing
from control.cli.logs import quiet_logs
from control.cli.private import complete, only_one
from control.cli.serve import Server, embedded_api
from control.settings import Settings

HOME: Final = Path("var")


@click.command()
@click.option("--host", help="Address to listen on.  [default: AFTERLIVE_API_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: AFTERLIVE_API_PORT or 8000]")
def up(host: str | None, port: int | None) -> None:
    """Run the API and all workers in this process, until Ctrl-C.

    Unfinished replays of an earlier run go on. An API key and the secrets of playback links and one-time passwords are
    made in `var/` where the settings have none.
    """
    settings = complete(Settings(), HOME)
    changes = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"api": settings.api.model_copy(update=changes)})
    quiet_logs(logging.INFO)
    tracing.start(settings.tracing, "embedded")
    with only_one(HOME, "afterlive up"), embedded_api(settings) as (_, app):
        api = settings.api
        click.echo(f"API:        http://{api.host}:{api.port}  (documentation at /docs)")
        click.echo(f"API key:    {'from the settings' if Settings().api.keys else HOME / 'api-key'}")
        click.echo(f"Recordings: {', '.join(str(root) for root in settings.media.recording_roots)}")
        click.echo("Ctrl-C ends it; what is unfinished goes on at the next start.")
        Server(app, api.host, api.port).run()
