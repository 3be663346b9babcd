"""`metaportrait train`: learning the models that the tool ships with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Learn a model from your own data.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Learn a model from your own data."""


@app.command()
def morphable(
    tracks: Annotated[
        Path,
        typer.Argument(
            help="Folder of .npz landmark tracks: `landmarks` (T, 478, 3) in pixels, and the "
            "person's name as `identity`.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")] = Path(
        "morphable.safetensors"
    ),
    identity_size: Annotated[int, typer.Option(min=1, help="Identity coefficients.")] = 60,
    expression_size: Annotated[int, typer.Option(min=1, help="Expression coefficients.")] = 50,
) -> None:
    """Learn the face morphable model from landmark tracks of many people."""
    from metaportrait_cli.training.morphable_model import learn, load_tracks  # noqa: PLC0415

    model, statistics = learn(
        load_tracks(tracks),
        identity_size=identity_size,
        expression_size=expression_size,
        on_round=lambda number: typer.echo(f"round {number} done", err=True),
    )
    model.save(
        out, {"people": str(statistics.people), "frames": str(statistics.frames), "use": "research"}
    )
    typer.echo(
        f"{statistics.people} people, {statistics.frames} frames ({statistics.dropped} left out); "
        f"explained: identity {statistics.identity_explained[-1]:.1%}, "
        f"expression {statistics.expression_explained[-1]:.1%}",
        err=True,
    )
    typer.echo(out)


def told(record: dict[str, Any]) -> str:
    """A line of a run's log for the user."""
    if "held_out" in record:
        return f"step {record['step']}: held-out people {json.dumps(record['held_out'])}"
    terms = " ".join(f"{name} {value:.4g}" for name, value in record["terms"].items())
    return f"step {record['step']}: {terms} ({record['seconds_per_step']:.3f} s a step)"
