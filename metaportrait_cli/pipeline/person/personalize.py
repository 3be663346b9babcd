"""`personalize`: from a person's own video or photos to a portrait that knows more of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from metaportrait_cli.errors import UsageError, check_given
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.media.stills import sheet_path, write_still
from metaportrait_cli.pipeline.engine import Engine, lasting
from metaportrait_cli.pipeline.person.making import Kit, portrait_of
from metaportrait_cli.pipeline.person.portrait_file import save_portrait
from metaportrait_cli.pipeline.person.recording import Looker
from metaportrait_cli.pipeline.person.told import PersonalizeOptions, PersonalizeReport
from metaportrait_cli.pipeline.report import MARK
from metaportrait_cli.progress import Progress, silent


def personalize(
    output: str | os.PathLike[str],
    options: PersonalizeOptions | None = None,
    *,
    video: str | os.PathLike[str] | None = None,
    photos: Sequence[str | os.PathLike[str]] = (),
    sheet: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> PersonalizeReport:
    """Makes the portrait file of the person in a video, or in photos, and writes it to `output`.

    `sheet` gets a picture of held-out frames: before, after, truth. The networks of mouth and eyes
    of the engine's weights are adapted, if it has any. `on_progress` is called with the stages
    `look` and `patches` (pictures), `views` and `weights` (ways tried) and `adapt` (seconds).
    Raises the errors of `metaportrait_cli.errors`.
    """
    check_given(personalize, output=output, options=options, engine=engine)
    check_given(personalize, video=video, photos=photos, sheet=sheet)
    options = options or PersonalizeOptions()
    output = Path(output)
    sheet = sheet_path(sheet)
    inputs = [Path(path) for path in ([video] if video is not None else photos)]
    if not inputs or (video is not None and photos):
        raise UsageError("give either `video` or `photos`")
    report = PersonalizeReport(
        inputs=[str(path) for path in inputs], output=str(output), settings=asdict(options)
    )
    started = time.perf_counter()
    with (
        claimed(output, sheet, overwrite=overwrite, is_input=inputs),
        lasting(engine) as loaded,
    ):
        if loaded.rendering().knows_its_people:
            raise UsageError(
                f"{loaded.named(None)}: knows its people by heart and learns nobody else;"
                " personalize other weights, then teach them: metaportrait distill"
            )
        kit = Kit.load()
        report.settings |= loaded.settings()
        looker = Looker(loaded.detector, kit.identity, kit.model, options.face, on_progress)
        recording = looker.video(inputs[0]) if video is not None else looker.photos(inputs)
        report.stage_seconds["look"] = round(time.perf_counter() - started, 2)
        result = portrait_of(recording, options, kit=kit, engine=loaded, on_progress=on_progress)
        result.describe(report)
        if sheet is not None and result.contest.trials:
            write_still(sheet, result.comparison(), comment=MARK)
            report.sheet = str(sheet)
        save_portrait(output, replace(result.portrait, report=report.as_json()))
    report.bytes = output.stat().st_size
    return report
