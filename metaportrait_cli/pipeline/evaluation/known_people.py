"""Methods by name; a student is judged on any clip of somebody whom it knows."""

from __future__ import annotations

from fractions import Fraction

import torch

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.source import Source
from metaportrait_cli.metrics.identity import other_person
from metaportrait_cli.pipeline.evaluation.scoring import Judge
from metaportrait_cli.pipeline.person.portrait_file import portraits_in
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.painted.student import StudentRenderer
from metaportrait_cli.render.protocol import Renderer, Session


def method(name: str, judge: Judge) -> Renderer:
    """The renderer of a method. Raises `WeightsError`."""
    renderer = rendering_named(name).renderer
    return OfKnownPeople(renderer, judge) if isinstance(renderer, StudentRenderer) else renderer


class OfKnownPeople:
    """A student that is opened with any picture of a person, and paints the one that it has.

    Heads come to where landmarks are; the background stays as in the student's own picture.
    """

    def __init__(self, student: StudentRenderer, judge: Judge) -> None:
        self._student = student
        self._judge = judge
        self._people = portraits_in(student.path)

    @property
    def fixed_size(self) -> int:
        """The student's."""
        return self._student.fixed_size

    @property
    def keeps_detail(self) -> bool:
        """The student's."""
        return self._student.keeps_detail

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        """Raises `WeightsError` for a source that shows nobody whom the student knows."""
        shown = self._judge.embedding(source.picture, source.face)
        people = [(torch.from_numpy(each.embedding), each.source) for each in self._people]
        known, own = min(people, key=lambda person: float((person[0] - shown).norm()))
        if other_person(known, shown):
            count = len(people)
            whom = "one person" if count == 1 else f"{count} people"
            raise WeightsError(
                f"{self._student.path}: knows {whom}, and {source.path} shows somebody else;"
                " judge it on clips of whom it knows, or leave it out of `weights`"
            )
        return self._student.open(own, size=size, rate=rate)
