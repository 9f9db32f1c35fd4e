"""`normkit export`: a recording as a table or as curves, for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from normkit.cli.outlet import put
from normkit.cli.show import chosen
from normkit.errors import ArgumentError

if TYPE_CHECKING:
    from normkit.readers.recording import Recording

STDOUT = "-"
TABLES, CURVES = ("csv", "parquet"), ("tensorboard", "wandb", "mlflow")
NORMS = ("l1", "l2", "linf", "rms", "mean", "std", "zeros", "nonfinite")


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--to", "kind", type=click.Choice((*TABLES, *CURVES)), required=True, help="The format.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="A file that is not there yet, or - for the screen (csv); for tensorboard a new folder, for wandb a project, "
    "for mlflow an experiment. Default: the recording's name with the format's suffix, in the current folder.",
)
@click.option(
    "--select",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Take these tensors only: a role (bias), a name pattern ('conv*'), '!pattern' to take away. May be repeated.",
)
@click.option(
    "--norm", "norms", multiple=True, type=click.Choice(NORMS), help="Curves of this norm (tensorboard). Default: l2."
)
def command(
    path: Path | None, kind: str, output: str | None, patterns: tuple[str, ...], norms: tuple[str, ...]
) -> None:
    """Write a recording as one tidy table, csv or Parquet, or as curves.

    PATH is a .norms file; without it the newest one in the folder runs is taken. A table has a row for each step,
    tensor and quantity; the columns are step, epoch, tensor,
    layer, weight, quantity (weight, grad, update), l1, l2, linf, rms, mean, std, zeros, nonfinite.
    TensorBoard's curves are those of each tensor, conv1/weight/l2; W&B and MLflow get about ten for all together.
    """
    from normkit.readers.recording import load

    if norms and kind != "tensorboard":
        raise ArgumentError(f"--norm {norms[0]} chooses curves for tensorboard; leave it out with --to {kind}")
    if output is not None and not output.strip():
        raise ArgumentError(f"-o {output!r} is empty; give a name, or leave it out")
    recording = load(path)
    names = chosen(recording, patterns)
    if kind in CURVES:
        if output == STDOUT:
            raise ArgumentError(f"-o - prints csv only, not {kind!r}; give a name with -o, or leave it out")
        put(f"normkit: {to_curves(recording, names, kind, output, norms or ('l2',))}")
        return
    if output == STDOUT:
        to_stdout(recording, names, kind)
        return
    target = Path(output or Path(recording.path.name).with_suffix(f".{kind}"))
    rows = to_file(recording, names, kind, target)
    put(f"normkit: wrote {rows:,} row{'' if rows == 1 else 's'} to {target}")


def to_file(recording: Recording, names: set[str] | None, kind: str, target: Path) -> int:
    """Write the new file `target`; returns its number of rows."""
    from normkit.sinks import comma, parquet
    from normkit.sinks.fresh import fresh
    from normkit.sinks.tidy import blocks

    if kind == "parquet":
        parquet.pyarrow()  # missing: said before a file is begun
    with fresh(target) as stream:
        if kind == "parquet":
            return parquet.write(blocks(recording, select=names, ordered=True), stream)
        return comma.write(blocks(recording, select=names), stream)


def to_curves(
    recording: Recording, names: set[str] | None, kind: str, output: str | None, norms: tuple[str, ...]
) -> str:
    """Write curves; the result says where they are."""
    from normkit.cli import curves

    if kind == "wandb":
        return curves.to_wandb(recording, names, output)
    if kind == "mlflow":
        return curves.to_mlflow(recording, names, output)
    return curves.to_folder(recording, names, Path(output or f"{recording.path.stem}-tensorboard"), norms)


def to_stdout(recording: Recording, names: set[str] | None, kind: str) -> None:
    """Rows alone, for a pipe."""
    from normkit.sinks import comma
    from normkit.sinks.tidy import blocks

    if kind != "csv":
        raise ArgumentError(f"-o - prints csv only, not {kind!r}; give a file name with -o")
    comma.write(blocks(recording, select=names), sys.stdout.buffer)
