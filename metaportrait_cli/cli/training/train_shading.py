"""`metaportrait train shading`."""

from __future__ import annotations

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train shading prepared -o run
metaportrait train shading prepared -o run --minutes 20"""


def command(
    *,
    data: training.Data,
    output: training.Output,
    steps: training.Steps = 5000,
    batch: training.Batch = 24,
    lr: training.LearningRate = 1e-3,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "auto",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the network that tells how folds and shading follow an expression."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.shading import ShadingTraining, train_shading  # noqa: PLC0415

        card = train_shading(
            ShadingTraining(steps=steps, batch=batch, lr=lr),
            data,
            output,
            options=training.run_options(minutes=minutes, device=device, precision=precision),
            on_record=lambda record: reporter.say(training.told(record)),
            on_progress=reporter.progress,
        )
        training.finish(reporter, output, card, as_json=as_json)
