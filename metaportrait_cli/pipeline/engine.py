"""What is loaded once and serves many runs: weights, detectors, the face model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

from metaportrait_cli.devices import check_address_space, check_names
from metaportrait_cli.errors import check_given
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.pipeline.person.portrait_file import Portrait
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.named import DEFAULT, check_usable, rendering_named
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.weights import bundled_path


class Engine:
    """Holds what runs have in common; give it to `animate` and the others, one run at a time.

    `weights`: `none`, or a name, path or `hf://` spec; `None` takes those that a portrait was made
    for, else the bundled ones. `device` is auto, cpu, cuda or mps, `precision` auto, fp32, bf16 or
    fp16. Nothing is loaded before it is needed, and all of it is let go by `close` or at the end of
    a `with` block. Raises `UsageError` for settings that don't exist, and
    `OutOfMemoryError` where the process may use next to no memory.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        check_given(Engine.__init__, weights=weights, device=device, precision=precision)
        check_names(device, precision)
        check_address_space()
        self.weights = None if weights is None else os.fspath(weights)
        self.device = device
        self.precision = precision
        self._rendering: tuple[str, Rendering] | None = None
        self._on_notice: Callable[[str], None] = lambda _text: None
        self._on_progress: Progress = silent

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> Self:
        """An engine whose weights are loaded at once; raises `WeightsError` if they can't be."""
        engine = cls(weights, device=device, precision=precision)
        engine.rendering()
        return engine

    @cached_property
    def detector(self) -> MediaPipeDetector:
        """The face detector; raises `WeightsError` without the landmark model."""
        return MediaPipeDetector(bundled_path("face_landmarker"))

    @cached_property
    def face_model(self) -> MorphableModel:
        """The morphable model that retargeting stands on."""
        return MorphableModel.bundled()

    def rendering(self, person: Portrait | None = None) -> Rendering:
        """The renderer of the engine's weights, with what a person's portrait adds to them.

        Raises `WeightsError` for weights that can't be had or used, or are not the portrait's.
        """
        name = self.named(person)
        if person is not None:
            return rendering_named(
                name,
                device=self.device,
                precision=self.precision,
                deltas=person.deltas,
                check=lambda path: person.base.check(path, portrait=person.source.path),
                on_notice=self._notice,
                on_progress=self._progress,
            )
        if self._rendering is None or self._rendering[0] != name:
            opened = rendering_named(
                name,
                device=self.device,
                precision=self.precision,
                on_notice=self._notice,
                on_progress=self._progress,
            )
            self._rendering = name, opened
        return self._rendering[1]

    def check(self, person: Portrait | None = None) -> None:
        """Raises at once what `rendering` would for names, files and a device that aren't there."""
        check_usable(self.named(person), device=self.device, precision=self.precision)

    @contextmanager
    def telling(self, on_notice: Callable[[str], None], on_progress: Progress) -> Iterator[None]:
        """Within the block, renderers tell these what they have to say."""
        before = self._on_notice, self._on_progress
        self._on_notice, self._on_progress = on_notice, on_progress
        try:
            yield
        finally:
            self._on_notice, self._on_progress = before

    def named(self, person: Portrait | None) -> str:
        """The weights as they take effect: those asked for, else the portrait's own."""
        return self.weights or (person.base.name if person else DEFAULT)

    def settings(self) -> dict[str, Any]:
        """For reports."""
        return {"weights": self.weights, "device": self.device, "precision": self.precision}

    def close(self) -> None:
        """Lets go of models; they are loaded again if they are needed again."""
        if "detector" in vars(self):
            self.detector.close()
            del self.detector
        self._rendering = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _notice(self, text: str) -> None:
        self._on_notice(text)

    def _progress(self, stage: str, done: int, total: int | None) -> None:
        self._on_progress(stage, done, total)


@contextmanager
def lasting(engine: Engine | None) -> Iterator[Engine]:
    """The engine that was given, left open; or one of the bundled weights for the block."""
    if engine is not None:
        yield engine
        return
    with Engine() as own:
        yield own
