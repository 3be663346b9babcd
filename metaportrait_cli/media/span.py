"""A part of a clip: its frames, counted anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, isfinite

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media.frames import Frame, FrameSource


@dataclass(frozen=True)
class Span:
    """Seconds of a clip, counted from its first frame."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None
    """None is the clip's end"""

    def __post_init__(self) -> None:
        if self.start < 0:
            raise UsageError(f"`start` {float(self.start):g} is not a time in the clip, in seconds")
        if self.end is not None and self.end <= self.start:
            raise UsageError(
                f"`end` {float(self.end):g} is not after `start`, {float(self.start):g}"
            )

    @classmethod
    def of(cls, start: float, end: float | None) -> Span:
        """Of decimal seconds. Raises `UsageError`."""
        try:
            exact = [Fraction(str(value)) for value in (start, *([] if end is None else [end]))]
        except ValueError as error:  # inf, nan
            wrong = f"`start` {start}" if end is None or not isfinite(start) else f"`end` {end}"
            raise UsageError(f"{wrong} is not a time in seconds") from error
        return cls(*exact)

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self == WHOLE

    def frames(self, rate: Fraction) -> tuple[int, int | None]:
        """The first frame and the one after the last, at a constant rate: the nearest to the
        times."""
        half = Fraction(1, 2)
        stop = None if self.end is None else floor(self.end * rate + half)
        return floor(self.start * rate + half), stop


WHOLE = Span()


class Trimmed(FrameSource):
    """The frames of another source within a span, as if there were no others."""

    def __init__(self, frames: FrameSource, span: Span, *, skipped: Fraction = Fraction(0)) -> None:
        """`skipped`: seconds that `frames` begins after the clip does.

        Raises `UsageError` where the clip is known to end before the span begins.
        """
        self._frames, self._span, self._skipped = frames, span, skipped
        self._first: Frame | None = None
        info = frames.info
        if info.duration is not None and span.start >= info.duration:
            raise self._beyond()
        first, stop = span.frames(info.rate)
        count = info.frames
        if count is not None:
            count = max(1, min(count, count if stop is None else stop) - first)
        super().__init__(
            replace(info, frames=count, duration=None if count is None else count / info.rate)
        )
        self._half = 1 / (2 * info.rate)

    @property
    def begins(self) -> Fraction:
        """Time of the first frame in the clip, once that is read."""
        return Fraction(0) if self._first is None else self._first.time + self._skipped

    def begin(self) -> None:
        """See `FrameSource`."""
        self._frames.begin()

    def __next__(self) -> Frame:
        while True:
            try:
                frame = next(self._frames, None)
            except MediaError as error:
                if self._skipped and self._first is None:  # sought beyond the last frame
                    raise self._beyond() from error
                raise
            if frame is None:
                self.warning = self._frames.warning
                if self._first is None:
                    raise self._beyond()
                raise StopIteration
            time = frame.time + self._skipped + self._half
            if self._span.end is not None and time > self._span.end:
                raise StopIteration
            if time > self._span.start:
                first = self._first = self._first or frame
                return replace(frame, index=frame.index - first.index, time=frame.time - first.time)

    def close(self) -> None:
        """Closes what it reads from."""
        self._frames.close()

    def _beyond(self) -> UsageError:
        info, start = self._frames.info, float(self._span.start)
        length = "" if info.duration is None else f" {float(info.duration):.3g} s long:"
        return UsageError(f"{info.path}:{length} `start` {start:g} is beyond its end")
