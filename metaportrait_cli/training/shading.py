"""`train shading`: how folds and shading follow an expression, from prepared clips.

Two pictures of one clip show the same skin in the same room: what differs in the mesh's own
coordinates is how it folds and turns to the light. The run's folder also holds `skins/`, made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.errors import UsageError
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.shading import ShadingConfig, ShadingNetwork
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.shading.skin import skin_map
from metaportrait_cli.training.data.pairs import Faces, kept_aside
from metaportrait_cli.training.data.shards import read_clips, read_index
from metaportrait_cli.training.data.skins import Skins
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful

ANGLES = 3
JUDGED = 384
UNIT = 10.0
"""Losses count in tenths of a logarithm: what a fold changes."""


@dataclass(frozen=True)
class ShadingTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: ShadingConfig = field(default_factory=ShadingConfig)
    steps: int = 5000
    batch: int = 24
    lr: float = 1e-3
    outlier: float = 0.12
    """Change of light from which on an error counts no more than in proportion: hair, shadows."""
    alone: float = 0.5
    """Share of the samples whose own expression is known as a photo's is, by itself."""


@dataclass(frozen=True)
class ShadingBatch:
    """Shapes as in `networks.shading`."""

    light: Tensor
    own: Tensor
    change: Tensor
    target: Tensor
    """(B, M, M) how the light really changed"""
    weight: Tensor
    """(B, M, M) how surely that is known"""


def train_shading(
    config: ShadingTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    on_record: Callable[[Record], None] = unheard,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card."""
    model = MorphableModel.bundled()
    size = model.expression_size + ANGLES
    if config.model.expression != size:
        raise UsageError(f"`expression` {config.model.expression} is not the face model's {size}")
    folder = RunFolder(output, config)
    learnt, judged = made_skins(config, data, output, model=model, on_progress=on_progress)
    with taking_part(options) as place:
        task = ShadingTask(config, learnt, judged, model=model, place=place)
        return train(task, folder, options=options, place=place, on_record=on_record)


class ShadingTask(Task[ShadingBatch]):
    """The light of one picture told from another's and the change of expression between them."""

    architecture = "compact"

    def __init__(
        self,
        config: ShadingTraining,
        learnt: Skins,
        judged: Skins | None,
        *,
        model: MorphableModel,
        place: Place,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self._learnt, self._judged = learnt, judged
        self._people = np.unique(learnt.person)
        self._skin = skin_map(model)
        self._parity = np.concatenate([model.expression_parity, [-1, 1, -1]]).astype(np.float32)
        self._place = place
        self._descent = Descent({"shading": ShadingNetwork(config.model)}, config, place)

    @property
    def state(self) -> Stateful:
        return self._descent.state

    @property
    def weights(self) -> Mapping[str, ShadingNetwork]:
        return self._descent.averaged

    def batches(self, steps: range) -> Iterator[ShadingBatch]:
        config, place = self.config, self._place
        for step in steps:
            draw = np.random.default_rng((config.seed, step * place.world + place.rank))
            people = draw.choice(self._people, config.batch)
            pairs = np.array([self._learnt.pair(draw, person) for person in people])
            yield self._batch(self._learnt, pairs, draw)

    def step(self, batch: ShadingBatch, number: int) -> Terms:
        network, limit = self._descent.networks["shading"], self.config.outlier * UNIT

        def terms() -> Terms:
            found = network(batch.light, batch.own, batch.change)
            error = F.huber_loss(UNIT * found, UNIT * batch.target, reduction="none", delta=limit)
            return {"light": (batch.weight * error).sum() / batch.weight.sum()}

        return self._descent.step(number, terms)

    @torch.no_grad()
    def judge(self) -> Scores:
        """`left`: share of the changes' squares that remains unexplained on people kept aside;
        `slope` of the truth over what is told."""
        if self._judged is None:
            return {}
        draw = np.random.default_rng(self.config.seed)
        people = draw.choice(np.unique(self._judged.person), JUDGED)
        pairs = np.array([self._judged.pair(draw, person) for person in people])
        square = left = told = both = 0.0
        for part in np.array_split(pairs, JUDGED // 32):
            batch = self._batch(self._judged, part, draw)
            found = self.weights["shading"](batch.light, batch.own, batch.change)
            square += float((batch.weight * batch.target**2).sum())
            left += float((batch.weight * (batch.target - found) ** 2).sum())
            told += float((batch.weight * found**2).sum())
            both += float((batch.weight * found * batch.target).sum())
        return {"shading": {"left": left / square, "slope": both / max(told, 1e-9)}}

    def merit(self, scores: Scores) -> float:
        return scores["shading"]["left"]

    def _batch(self, skins: Skins, pairs: np.ndarray, draw: np.random.Generator) -> ShadingBatch:
        """Of pairs (B, 2): the light that the first show, and how it is on the second."""
        first, second = pairs.T
        light = skins.light[pairs].astype(np.float32)  # (B, 2, M, M)
        seen = skins.seen[pairs].astype(np.float32) / np.float32(255)
        both = seen.prod(1)
        target = self._skin.folds(light[:, 1] - light[:, 0], both)
        shown = np.stack([self._skin.folds(light[:, 0], seen[:, 0]), seen[:, 0]], axis=1)
        known = draw.random(len(pairs)) < self.config.alone
        own = np.where(known[:, None], skins.alone[first], skins.expression[first])
        own = np.concatenate([own, skins.angles[first]], axis=1)
        change = np.concatenate(
            [
                skins.expression[second] - skins.expression[first],
                skins.angles[second] - skins.angles[first],
            ],
            axis=1,
        )
        mirrored = draw.random(len(pairs)) < 0.5
        own[mirrored] *= self._parity
        change[mirrored] *= self._parity
        for maps in (shown, target, both):
            maps[mirrored] = maps[mirrored][..., ::-1]
        arrays = (shown, own, change, target, both)
        return ShadingBatch(
            *(torch.from_numpy(np.ascontiguousarray(a)).to(self._place.device) for a in arrays)
        )


def made_skins(
    config: ShadingTraining,
    data: Path,
    output: Path,
    *,
    model: MorphableModel,
    on_progress: Progress,
) -> tuple[Skins, Skins | None]:
    """Those to learn from and those to judge by, made once and kept in the run's folder."""
    _, stems = read_index(data)
    people, kept = kept_aside(
        (clip.identity for stem in stems for clip in read_clips(stem) if clip.count > 1),
        share=config.held_out,
    )
    found: list[Skins | None] = []
    for number, (name, group) in enumerate({"learnt": people, "judged": kept}.items()):
        folder = output / "skins" / name
        if not group:
            found.append(None)
            continue
        if not (folder / "complete").is_file():
            folder.mkdir(parents=True, exist_ok=True)

            def shards(before: int = number * len(stems)) -> Iterator[Faces]:
                for done, faces in enumerate(Faces.shards(data)):
                    on_progress("skins", before + done, 2 * len(stems))
                    yield faces

            Skins.of(shards(), people=group, model=model).save(folder)
            (folder / "complete").touch()
        found.append(Skins.load(folder))
    learnt, judged = found
    if learnt is None:
        raise UsageError(f"{data}: no clips of anybody to learn from")
    return learnt, judged
