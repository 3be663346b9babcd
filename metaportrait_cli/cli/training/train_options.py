"""Options that several trainings share, and what they show while they run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from metaportrait_cli.cli.console import Reporter, print_result
from metaportrait_cli.cli.options import BASIC, MACHINE

if TYPE_CHECKING:
    from metaportrait_cli.training.descent import DescentConfig
    from metaportrait_cli.training.place import RunOptions

ConfigT = TypeVar("ConfigT", bound="DescentConfig")

Data = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="Made by: metaportrait prepare",
        show_default=False,
        rich_help_panel=BASIC,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="RUN",
        help="Folder of the run: weights, log, card. A run that is there already goes on.",
        rich_help_panel=BASIC,
    ),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of an earlier run of the same networks.",
        rich_help_panel=BASIC,
    ),
]
Steps = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Length of the whole training.", rich_help_panel=BASIC),
]
Batch = Annotated[
    int, typer.Option(min=1, metavar="N", help="Samples a step.", rich_help_panel=BASIC)
]
OwnSteps = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Length of the whole training; by default the configuration's.",
        rich_help_panel=BASIC,
    ),
]
OwnBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Samples a step; by default the configuration's.",
        rich_help_panel=BASIC,
    ),
]
LearningRate = Annotated[
    float,
    typer.Option("--lr", metavar="X", help="Learning rate of Adam.", rich_help_panel=BASIC),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="X",
        help="Stop after this time; the same command goes on.",
        rich_help_panel=BASIC,
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(help="What the networks compute in.", rich_help_panel=MACHINE),
]
Workers = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Processes that make samples.", rich_help_panel=MACHINE),
]


def of_length(config: ConfigT, **lengths: int | None) -> ConfigT:
    """The configuration with those of `steps` and `batch` that were given."""
    return replace(config, **{name: value for name, value in lengths.items() if value is not None})


def run_options(*, minutes: float | None, **others: Any) -> RunOptions:
    """`RunOptions` as the command line has them."""
    import math  # noqa: PLC0415

    from metaportrait_cli.training.place import RunOptions  # noqa: PLC0415

    return RunOptions(minutes=math.inf if minutes is None else minutes, **others)


def told(record: dict[str, Any]) -> str:
    """A line of a run's log for the user."""
    if "held_out" in record:
        return f"step {record['step']}: held-out people {json.dumps(record['held_out'])}"
    terms = " ".join(f"{name} {value:.4g}" for name, value in record["terms"].items())
    return f"step {record['step']}: {terms} ({record['seconds_per_step']:.3f} s a step)"


def finish(reporter: Reporter, output: Path, card: dict[str, Any], *, as_json: bool) -> None:
    """Prints the run's folder, or its card; says so if it isn't at its end."""
    step, steps = card["step"], card["config"]["steps"]
    if step < steps:
        reporter.note(f"step {step} of {steps}; the same command goes on")
    print_result(output, card, as_json=as_json)
