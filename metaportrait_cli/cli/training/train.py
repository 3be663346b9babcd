"""`metaportrait train`: learning the models that the tool ships with."""

from __future__ import annotations

from metaportrait_cli.cli.help import add, group
from metaportrait_cli.cli.training import (
    train_fewshot,
    train_gaze,
    train_layers,
    train_mega,
    train_mega_hr,
    train_meta,
    train_morphable,
    train_regions,
    train_shading,
    train_sr,
    train_teeth,
    train_warping,
)

app = group("train", "Learn a model from your own data.")
COMMANDS = (
    train_warping,
    train_layers,
    train_regions,
    train_meta,
    train_shading,
    train_teeth,
    train_sr,
    train_morphable,
    train_fewshot,
    train_mega,
    train_mega_hr,
    train_gaze,
)
for each in COMMANDS:
    name = each.__name__.rpartition("train_")[2].replace("_", "-")
    add(app, name, each.command, examples=each.EXAMPLES)
