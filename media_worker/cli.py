"""Commands of the media tier. `afterlive` finds them through the entry-point group `afterlive.commands`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from control.settings import current
from media_worker.encoders.gpu_check import Found, as_markdown, timed
from media_worker.verify import Report, Score, VerifyError, score
from media_worker.verify import verify as run


@click.command()
@click.argument("master")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--no-decode", is_flag=True, help="Look at playlists and boxes only; decode nothing.")
@click.option("--score", "scored", is_flag=True, help="Compare each rung with the recording: VMAF, PSNR, SSIM.")
@click.option("--source", help="That recording; by default what the replay.json beside MASTER names.")
@click.option(
    "--segments", type=click.IntRange(0), default=10, show_default=True, help="Segments of a rung to score; 0: all."
)
def verify(master: str, as_json: bool, no_decode: bool, scored: bool, source: str | None, segments: int) -> None:
    """Check the HLS at MASTER (a file or an http(s) URL) against Apple's rules and RFC 8216.

    Exit status: 0 where no rule that must hold is broken, 1 where one is, 2 where MASTER cannot be read.
    """
    if source and not scored:
        raise click.UsageError("--source is what --score compares with.")
    errors = Console(stderr=True)
    try:
        with errors.status("reading the master playlist", spinner="dots") as status:
            report = run(
                master, decode=not no_decode, on_playlist=lambda name: status.update(f"reading {escape(name)}")
            )
            if scored:
                found = score(
                    master,
                    source and str(Path(source).expanduser().absolute()),
                    current(),
                    segments=segments,
                    on_playlist=lambda name: status.update(f"scoring {escape(name)}"),
                )
                report = replace(report, scores=found)
    except VerifyError as error:
        click.echo(f"afterlive verify: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(report.to_json())
    else:
        _show(report, Console())
    sys.exit(0 if report.ok else 1)


@click.command("gpu-check")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def gpu_check(as_json: bool) -> None:
    """Try this node's GPUs in about a minute, and print a report to paste into an issue.

    Every encoder of AFTERLIVE_MEDIA_ENCODERS is made to encode in each of its tiers, 8 and 10 bits, and its output
    checked; then its speed is measured, and as many encoders started at a time as a device is said to bear.

    Exit status: 0 where every GPU works, 1 where something is wrong, 2 where there is no GPU.
    """
    errors = Console(stderr=True)
    found = Found(at=datetime.now(UTC))
    with errors.status("trying", spinner="dots") as status:
        for each in timed(current().media):
            if isinstance(each, Found):
                found = each
            else:
                status.update(f"tried {each.encoder}: {each.tier} on {escape(each.device)}")
    click.echo(json.dumps(asdict(found), indent=2, default=str) if as_json else as_markdown(found))
    sys.exit(2 if not found.gpus else 1 if found.wrong else 0)


def _show(report: Report, console: Console) -> None:
    table = Table(title=escape(report.master), title_justify="left")
    for name in ("rendition", "kind", "codecs", "size", "fps", "seconds", "segments", "frames", "kbit/s", "peak"):
        table.add_column(name, justify="left" if name in ("rendition", "kind", "codecs") else "right")
    for each in report.renditions:
        table.add_row(
            escape(each.name),
            each.kind,
            escape(each.codecs),
            f"{each.width}x{each.height}" if each.width else "",
            f"{each.frame_rate:.3f}" if each.frame_rate else "",
            f"{each.duration_seconds:.3f}",
            str(each.segments),
            str(each.samples if each.decoded_frames is None else each.decoded_frames),
            f"{each.average_bps / 1000:.0f}",
            f"{each.peak_bps / 1000:.0f}",
        )
    console.print(table)
    if report.scores:
        console.print(_scores(report.scores))
    if report.findings:
        found = Table(title="findings", title_justify="left")
        for name in ("level", "rule", "where", "what", "source"):
            found.add_column(name, overflow="fold")
        for finding in report.findings:
            style = "red" if finding.level == "must" else "yellow"
            found.add_row(
                f"[{style}]{finding.level}[/]",
                finding.rule,
                escape(finding.where),
                escape(finding.message),
                finding.source,
            )
        console.print(found)
    must = sum(finding.level == "must" for finding in report.findings)
    verdict = "[green]ok[/]" if report.ok else "[red]not ok[/]"
    how = "every frame decoded" if report.decoded else "nothing decoded"
    console.print(
        f"{verdict}: {report.rules} rules, {how}; {must} that must hold are broken, "
        f"{len(report.findings) - must} that should"
    )


def _scores(scores: Iterable[Score]) -> Table:
    table = Table(title="against the recording", title_justify="left")
    for name in ("rendition", "compared at", "segments", "frames", "VMAF", "lowest", "PSNR dB", "SSIM"):
        table.add_column(name, justify="left" if name == "rendition" else "right")
    for each in scores:
        table.add_row(
            escape(each.rendition),
            f"{each.width}x{each.height}",
            str(each.segments),
            str(each.frames),
            "not in ffmpeg" if each.vmaf is None else f"{each.vmaf:.1f}",
            "" if each.vmaf_lowest is None else f"{each.vmaf_lowest:.1f}",
            f"{each.psnr_db:.2f}",
            f"{each.ssim:.4f}",
        )
    return table
