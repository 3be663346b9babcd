"""`metaportrait train`: learning the models that the tool ships with."""

from __future__ import annotations

import typer

from metaportrait_cli.cli import (
    train_meta,
    train_morphable,
    train_regions,
    train_sr,
    train_warping,
)

app = typer.Typer(help="Learn a model from your own data.", no_args_is_help=True)
for each in (train_warping, train_regions, train_meta, train_sr, train_morphable):
    app.command(each.__name__.rpartition("_")[2])(each.command)
