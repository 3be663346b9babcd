"""What a run did, as plain data for `--report` and `--json`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import metaportrait_cli
from metaportrait_cli.face.detector import CONFIDENCE_STEPS
from metaportrait_cli.face.orientation import describe_turns
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import Gap, State, shot_ranges
from metaportrait_cli.pipeline.driver import DriverMotion
from metaportrait_cli.pipeline.performance import Performance
from metaportrait_cli.progress import Stopwatch

# In the result's metadata, so that programs can tell it from a recording.
MARK = "AI-generated: re-enacted with metaportrait"


@dataclass
class RunReport:
    """Filled in while a run goes on; `as_json` gives plain types."""

    command: str
    inputs: dict[str, Any]
    output: str
    settings: dict[str, Any]
    frames: int = 0
    resumed_at: int = 0
    """Frames that an earlier run, which was broken off, has made"""
    rate: str = ""
    duration_seconds: float = 0.0
    faces: dict[str, Any] = field(default_factory=dict)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    shots: int = 1
    reference_frames: list[int] = field(default_factory=list)
    clamped_frames: int = 0
    weights: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stage_ms_per_frame: dict[str, float] = field(default_factory=dict)
    elapsed_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    version: str = metaportrait_cli.__version__

    def as_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes."""
        return asdict(self)

    def measure(self, stopwatch: Stopwatch, elapsed: float) -> None:
        """Takes over the stage times and the peak memory: of this process or its largest child."""
        frames = max(self.frames, 1)
        self.stage_ms_per_frame = {
            stage: round(1000 * seconds / frames, 2)
            for stage, seconds in sorted(stopwatch.seconds.items())
        }
        self.elapsed_seconds = round(elapsed, 3)
        self.peak_memory_mb = round(_peak_bytes() / 2**20, 1)


def describe_motion(report: RunReport, motion: DriverMotion) -> None:
    """Tells the driver's part of the report."""
    track = motion.track
    rate = float(track.rate)
    light = track.light()
    found = light["state"] == State.FOUND
    report.rate = str(track.rate)
    report.duration_seconds = round(len(track) / rate, 3)
    report.shots = len(shot_ranges(light["shot"]))
    report.gaps = describe_gaps(motion.gaps, rate=rate)
    report.faces["driver"] = {
        "frames_found": int(found.sum()),
        "lowest_confidence": round(float(light["confidence"][found].min(initial=1.0)), 2),
    }
    report.notes += motion.notes
    note = gap_note(motion.name, motion.gaps, frames=len(track), rate=rate)
    if note:
        report.notes.append(note)


def describe_source(report: RunReport, source: Source, *, together: int = 1) -> None:
    """Tells the source's part of the report; `together`: faces of it that are driven."""
    report.faces["source"] = {
        "seen": source.faces_seen,
        "box": [round(float(v), 1) for v in source.face.box],
        "confidence": source.face.confidence,
        "further_views": len(source.others),
    }
    if together > 1:
        report.notes.append(f"{source.path.name}: {together} faces move together")
    elif source.faces_seen > 1:
        report.notes.append(
            f"{source.path.name}: {source.faces_seen} faces, numbered from the left;"
            " choose one, or all, with `source_face`"
        )
    if source.turns:
        report.notes.append(f"{source.path.name}: {describe_turns(source.turns)}; turned upright")
    if source.on_white:
        report.notes.append(f"{source.path.name}: what is transparent is shown white")
    if source.face.confidence < CONFIDENCE_STEPS[0]:
        report.notes.append(f"{source.path.name}: the face was found with low confidence only")


def describe_performance(report: RunReport, performance: Performance, *, frames: int) -> None:
    """Tells what became of the motion."""
    report.reference_frames = performance.references
    report.clamped_frames = performance.clamped_frames
    if performance.clamped_frames:
        report.notes.append(
            f"{performance.clamped_frames} of {frames} frames turn further than the source"
            " supports; their pose was held back"
        )


def describe_gaps(gaps: list[Gap], *, rate: float) -> list[dict[str, Any]]:
    """Gaps with their times, for the report."""
    return [
        {
            "frames": [gap.start, gap.stop],
            "seconds": [round(gap.start / rate, 3), round(gap.stop / rate, 3)],
            "filled": gap.filled.name.lower(),
        }
        for gap in gaps
    ]


def gap_note(name: str, gaps: list[Gap], *, frames: int, rate: float) -> str | None:
    """One line for the user, or `None` if the face was there all along."""
    if not gaps:
        return None
    missing = sum(gap.stop - gap.start for gap in gaps)
    spans = ", ".join(f"{gap.start / rate:.1f}-{gap.stop / rate:.1f} s" for gap in gaps[:3])
    more = ", …" if len(gaps) > 3 else ""
    return (
        f"{name}: no face in {missing} of {frames} frames ({spans}{more});"
        " motion interpolated or held there"
    )


def _peak_bytes() -> int:
    """Of this process, or of its largest child; 0 where the system doesn't tell (Windows)."""
    try:
        import resource  # noqa: PLC0415
    except ImportError:
        return 0
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(each).ru_maxrss for each in whose)
    # ru_maxrss counts KiB on Linux, bytes on macOS.
    return peak * (1 if sys.platform == "darwin" else 1024)
