"""`evaluate`: several methods on the same frames of the same clips, judged in one run.

`self`: each clip's first face is driven by the landmarks of its own later frames, which are the
truth. `cross`: each clip drives the next clip's person as `animate` would; there is no truth.
`turn`: each portrait is turned to its sides, up and down, see `turning`.
`upscale`, `upscale-rendered`: super-resolution, see `evaluate_upscale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.media.stills import sheet_path
from metaportrait_cli.metrics.summary import Summary, bootstrap
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.evaluation.contact_sheet import ContactSheet
from metaportrait_cli.pipeline.evaluation.known_people import method
from metaportrait_cli.pipeline.evaluation.reenactment import (
    SHEET_MOMENTS,
    SIZE,
    TRUTH,
    ClipResult,
    cross_clips,
    self_clips,
)
from metaportrait_cli.pipeline.evaluation.sampling import RUN_FRAMES, find_clips
from metaportrait_cli.pipeline.evaluation.scoring import Judge
from metaportrait_cli.pipeline.evaluation.turning import (
    SHOWN,
    TURNS,
    turned_portraits,
)
from metaportrait_cli.pipeline.evaluation.upscaling import METHODS, load_upscaler, upscaled_clips
from metaportrait_cli.pipeline.evaluation.upscaling import SIZE as UPSCALED_SIZE
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.named import COPY, DEFAULT, NONE, rendering_named
from metaportrait_cli.weights.architectures import COMPACT_SR

Mode = Literal["self", "cross", "turn", "upscale", "upscale-rendered"]


@dataclass(frozen=True)
class Evaluation:
    """All clips, and their summary by method and metric.

    In `self` mode the method `truth` holds the truth's own warping error and jitter, as yardsticks;
    in `cross` mode `driven` holds what the landmarks that all methods are given keep of the driver.
    """

    mode: Mode
    size: int
    frames: int
    clips: list[ClipResult] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Mean and interval over clips, by method and metric."""
        values = [clip.values for clip in self.clips]
        methods = {
            method: dict.fromkeys(metric for v in values for metric in v[method])
            for method in values[0]
        }
        return {
            method: {
                metric: bootstrap([v[method][metric] for v in values if metric in v[method]])
                for metric in metrics
            }
            for method, metrics in methods.items()
        }

    def as_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes."""
        summary = {
            method: {metric: vars(value) for metric, value in metrics.items()}
            for method, metrics in self.summary().items()
        }
        clips = [vars(clip) for clip in self.clips]
        return {
            "mode": self.mode,
            "size": self.size,
            "frames": self.frames,
            "summary": summary,
            "clips": clips,
        }


@dataclass(frozen=True)
class EvaluateOptions:
    """Settings of one evaluation."""

    mode: Mode = "self"
    weights: tuple[str, ...] = ()
    """Methods besides copying the source, which always takes part; by default the analytic warp
    and the bundled networks. A student is judged on clips of whom it knows. Of the modes that
    upscale, one network, by default the bundled one."""
    frames: int = 24
    """Frames judged of each clip, in evenly spaced runs of four; turns are always the same."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"`mode` {self.mode} is none of {', '.join(get_args(Mode))}")
        if self.upscales and len(self.weights) > 1:
            raise UsageError(f"`mode` {self.mode} judges one network; give `weights` once")
        if self.mode != "turn" and self.frames < RUN_FRAMES:
            raise UsageError(f"`frames` {self.frames} is less than a run of {RUN_FRAMES}")

    @property
    def methods(self) -> tuple[str, ...]:
        """What is judged."""
        return self.weights or ((COMPACT_SR,) if self.upscales else (NONE, DEFAULT))

    @property
    def upscales(self) -> bool:
        """Whether super-resolution is judged."""
        return self.mode in ("upscale", "upscale-rendered")


def evaluate(
    paths: list[Path],
    options: EvaluateOptions | None = None,
    *,
    sheet: Path | None = None,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> Evaluation:
    """Judges all methods on all clips, and writes a contact sheet where one is wanted.

    Memory doesn't grow with the clips' length. `on_progress` is called with the stage `evaluate`
    and the clips judged. Raises the errors of `metaportrait_cli.errors`: `NoFaceError` if a clip
    has no face to begin with, `MediaError` if it is too short.
    """
    options = options or EvaluateOptions()
    sheet = sheet_path(sheet)
    clips = find_clips(paths, or_photos=options.mode == "turn")
    with claimed(sheet, overwrite=overwrite, is_input=clips), Engine() as engine:
        judge = Judge(engine)
        judging = _upscaling if options.upscales else _reenacting
        if options.mode == "turn":
            judging = _turning
        done, board, results = judging(clips, options, judge, with_sheet=sheet is not None)
        on_progress("evaluate", 0, len(clips))
        for result in results:
            done.clips.append(result)
            on_progress("evaluate", len(done.clips), max(len(done.clips), len(clips)))
        if board is not None and sheet is not None:
            board.save(sheet)
    return done


_Judging = tuple[Evaluation, ContactSheet | None, Iterator[ClipResult]]


def _reenacting(
    clips: list[Path], options: EvaluateOptions, judge: Judge, *, with_sheet: bool
) -> _Judging:
    names = list(dict.fromkeys((COPY, *options.methods)))
    renderers = {name: method(name, judge) for name in names}
    shown = [name for name in names if name != COPY]  # that is the source, shown anyway
    guide = TRUTH if options.mode == "self" else "driver"
    board = ContactSheet([guide, *shown], groups=SHEET_MOMENTS) if with_sheet else None
    judged = self_clips if options.mode == "self" else cross_clips
    results = judged(clips, options.frames, judge, renderers, board)
    return Evaluation(options.mode, SIZE, options.frames), board, results


def _turning(
    portraits: list[Path], options: EvaluateOptions, judge: Judge, *, with_sheet: bool
) -> _Judging:
    renderers = {name: method(name, judge) for name in options.methods}
    board = ContactSheet(list(renderers), groups=len(SHOWN)) if with_sheet else None
    results = turned_portraits(portraits, judge, renderers, board)
    return Evaluation(options.mode, SIZE, len(TURNS)), board, results


def _upscaling(
    clips: list[Path], options: EvaluateOptions, judge: Judge, *, with_sheet: bool
) -> _Judging:
    (name,) = options.methods
    network = load_upscaler(name)
    board = ContactSheet([TRUTH, *METHODS], groups=SHEET_MOMENTS) if with_sheet else None
    renderer = None
    if options.mode == "upscale-rendered":
        renderer = rendering_named(DEFAULT, device="cpu").renderer
    results = upscaled_clips(clips, options.frames, judge, network, board, renderer=renderer)
    return Evaluation(options.mode, UPSCALED_SIZE, options.frames), board, results
