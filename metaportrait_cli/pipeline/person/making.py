"""How a portrait is made of a recording.

Keep some of it aside; choose a canvas and the views that cover the rest; let the frames kept aside
decide how far the views are used, and whether adapted weights are. What doesn't come nearer to them
than one picture alone doesn't go into the portrait.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.identity import identity_network
from metaportrait_cli.face.regions import Kind
from metaportrait_cli.face.source import Lends
from metaportrait_cli.metrics.perceptual import bundled_features
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.adaptation import adapt, person_patches
from metaportrait_cli.pipeline.person.atlas import as_source, choose_canvas, choose_views, crops_of
from metaportrait_cli.pipeline.person.contest import Contest, Yardstick, photo_trials, video_trial
from metaportrait_cli.pipeline.person.fine_tuning import fine_tuned, set_apart
from metaportrait_cli.pipeline.person.portrait_file import Base, Portrait
from metaportrait_cli.pipeline.person.recording import Recording
from metaportrait_cli.pipeline.person.rehearsal import Rehearsal
from metaportrait_cli.pipeline.person.told import PersonalizeOptions, PersonalizeReport
from metaportrait_cli.progress import Progress, Stopwatch, silent
from metaportrait_cli.render.compact import region_networks
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Adaptable
from metaportrait_cli.training.meta import base_of_start
from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss
from metaportrait_cli.weights import bundled_path

HELD_SHARE, HELD_RUNS = 1 / 6, 3
"""Of a video's looks, in runs over its length, that are kept aside: one alone may show a mood."""
HELD_GUARD, LOOKS_FOR_GUARD = 2, 24
"""Looks beside a run that are neither learnt from nor judged by, for they are nearly the same; one
for so many looks, at most two."""
HELD_FRAMES = 24
START = "compact_start"
WAYS_TO_LEND: tuple[Lends, ...] = ("face", "head", "all")
SHEET_ROWS = 6


@dataclass(frozen=True)
class Kit:
    """What judging and fitting need, loaded once."""

    model: MorphableModel
    identity: IdentityNetwork
    features: SqueezeNet

    @classmethod
    def load(cls) -> Kit:
        """From the bundled weights."""
        return cls(
            model=MorphableModel.bundled(),
            identity=identity_network(),
            features=bundled_features(),
        )


@dataclass(frozen=True)
class Personalized:
    """A portrait and how it was judged."""

    portrait: Portrait
    looks: int
    contest: Contest
    adaptation: dict[str, Any]
    notes: list[str]
    seconds: dict[str, float]

    def describe(self, report: PersonalizeReport) -> None:
        """Fills in the report."""
        report.looks = self.looks
        report.views = len(self.portrait.views)
        report.lends = self.portrait.source.lends
        report.held_out = sum(len(trial.driven) for trial in self.contest.trials)
        report.quality = {
            name: {metric: round(value, 5) for metric, value in vars(quality).items()}
            for name, quality in self.contest.quality.items()
        }
        report.adaptation = self.adaptation
        report.notes += self.notes
        report.stage_seconds |= {name: round(s, 2) for name, s in self.seconds.items()}

    def comparison(self) -> NDArray[np.uint8]:
        """Rows of held-out frames: before, after, truth."""
        contest = self.contest
        triples = [
            np.concatenate([before, after, truth], axis=1)
            for trial, befores, afters in zip(
                contest.trials, contest.before, contest.after, strict=True
            )
            for before, after, truth in zip(befores, afters, trial.truth, strict=True)
        ]
        shown = np.linspace(0, len(triples) - 1, min(SHEET_ROWS, len(triples))).astype(int)
        return np.concatenate([triples[n] for n in shown])


def portrait_of(
    recording: Recording,
    options: PersonalizeOptions,
    *,
    kit: Kit,
    engine: Engine,
    on_progress: Progress = silent,
) -> Personalized:
    """Chooses views, adapts weights, and keeps what helps with the frames kept aside."""
    rendering = engine.rendering()
    adaptable = rendering.adaptable
    with nullcontext() if adaptable is None else adaptable.for_many():
        return _portrait_of(
            recording, options, kit=kit, rendering=rendering, on_progress=on_progress
        )


def _portrait_of(
    recording: Recording,
    options: PersonalizeOptions,
    *,
    kit: Kit,
    rendering: Rendering,
    on_progress: Progress,
) -> Personalized:
    clock = Stopwatch()
    notes = list(recording.notes)
    with clock("atlas"):
        known, held = split(recording)
        canvas = choose_canvas(known)
        crops = crops_of(known, canvas)
        first, *others = [as_source(known.looks[n], crops[n]) for n in choose_views(known, canvas)]
        source = replace(first, others=tuple(others))
    with clock("judge"):
        if held is None:
            trials = photo_trials(known, canvas)
        else:
            trials = [video_trial(source, held, most=HELD_FRAMES)]
        yardstick = Yardstick(trials, features=kit.features, identity=kit.identity)
        adaptable = rendering.adaptable
        rehearsal = None if adaptable is None else Rehearsal(adaptable, adaptable.networks)
        renderer = rehearsal or rendering.renderer
        ways: tuple[Lends, ...] = ()
        if others and trials:
            ways = WAYS_TO_LEND if held is not None else ("face",)
        on_progress("views", 0, 1 + len(ways))
        contest = Contest(yardstick, renderer)
        lends: Lends | None = None
        for number, way in enumerate(ways, 1):
            on_progress("views", number, 1 + len(ways))
            if contest.enter(renderer, lends=way, title="atlas"):
                lends = way
        on_progress("views", 1 + len(ways), 1 + len(ways))
    if others and not trials:
        notes.append("fewer than three photos: nothing to judge the further one by")
        lends = "face"
    elif others and lends is None:
        notes.append("further pictures bring nothing for the frames kept aside; left out")
    source = replace(source, lends=lends) if lends else replace(source, others=())
    portrait = Portrait(
        source=source,
        shape=recording.fitted.identity,
        embedding=np.mean([look.embedding for look in known.looks], axis=0),
        base=_base(rendering),
    )
    adaptation: dict[str, Any] = {}
    # Photos that took turns in judging would judge what was learnt from them.
    if held is not None and options.seconds > 0 and adaptable is not None and rehearsal is not None:
        portrait, adaptation = _adapted(
            portrait,
            known,
            crops,
            renderer=adaptable,
            rehearsal=rehearsal,
            contest=contest,
            options=options,
            clock=clock,
            on_progress=on_progress,
        )
    elif options.seconds > 0 and rendering.styled is not None:
        with clock("adapt"):
            learnt, judges = set_apart(
                known,
                canvas,
                contest,
                rendering.renderer,
                features=kit.features,
                identity=kit.identity,
            )
            portrait, adaptation = fine_tuned(
                portrait,
                rendering.styled,
                [known.looks[n] for n in learnt],
                [crops[n] for n in learnt],
                judges,
                seconds=options.seconds,
                seed=options.seed,
                on_progress=on_progress,
            )
    if adaptation and not portrait.deltas:
        notes.append("adapted weights bring nothing for the frames kept aside; left out")
    return Personalized(
        portrait=portrait,
        looks=len(recording.looks),
        contest=contest,
        adaptation=adaptation,
        notes=notes,
        seconds=dict(clock.seconds),
    )


def _base(rendering: Rendering) -> Base:
    if not rendering.weights:
        return Base()
    (digest,) = rendering.weights.values()
    return Base.of(digest)


def _adapted(
    portrait: Portrait,
    known: Recording,
    crops: list[Crop],
    *,
    renderer: Adaptable,
    rehearsal: Rehearsal,
    contest: Contest,
    options: PersonalizeOptions,
    clock: Stopwatch,
    on_progress: Progress,
) -> tuple[Portrait, dict[str, Any]]:
    """The portrait with the weights that serve the frames kept aside best, and what was done."""
    with clock("prepare"):
        patches = person_patches(
            portrait.views,
            known.looks,
            crops,
            embedding=portrait.embedding,
            renderer=renderer,
            on_progress=on_progress,
        )
        perceptual = PerceptualLoss(MobileNetFeatures.load(bundled_path("mobilenet")))
    with clock("adapt"):
        snapshots = adapt(
            renderer.networks,
            patches,
            seconds=options.seconds,
            perceptual=perceptual.to(renderer.device),
            device=renderer.device,
            seed=options.seed,
            on_progress=on_progress,
            start=meta_learnt_start(portrait.base),
        )
    kept = 0
    lends = portrait.source.lends if portrait.source.others else None
    with clock("judge"):
        for number, snapshot in enumerate(snapshots):
            on_progress("weights", number, len(snapshots))
            own = rehearsal.adapted(snapshot.networks)
            if contest.enter(own, lends=lends, title="both" if lends else "weights"):
                kept, portrait = snapshot.step, replace(portrait, deltas=snapshot.deltas)
        on_progress("weights", len(snapshots), len(snapshots))
    return portrait, {
        "steps": snapshots[-1].step if snapshots else 0,
        "kept": kept,
        "patches": {kind: len(each.inputs) for kind, each in patches.items()},
    }


def meta_learnt_start(base: Base) -> dict[Kind, RegionNetwork] | None:
    """The region networks from which a person is learnt soonest, if the bundled ones are of these
    weights."""
    path = bundled_path(START)
    return region_networks(path) if base_of_start(path) == base.sha256 else None


def split(recording: Recording) -> tuple[Recording, Recording | None]:
    """What may be learnt from, and what is kept aside: runs of a video; photos take turns."""
    if recording.kind == "photos":
        return recording, None
    count = len(recording.looks)
    length = max(1, round(HELD_SHARE * count / HELD_RUNS))
    guard = min(HELD_GUARD, count // LOOKS_FOR_GUARD)
    held, near = np.zeros((2, count), bool)
    for end in (round((run + 1) * count / HELD_RUNS) for run in range(HELD_RUNS)):
        held[end - length : end] = True
        near[max(end - length - guard, 0) : end + guard] = True
    return recording.of(np.flatnonzero(~near)), recording.of(np.flatnonzero(held))
