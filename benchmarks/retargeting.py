"""Measures the morphable model, retargeting and smoothing on landmark tracks of held-out people.

    python benchmarks/retargeting.py TRACKS [--model weights/morphable.safetensors]

TRACKS is a folder of .npz files with `landmarks` (T, 478, 3) in pixels, `identity` (the person),
and `fps` where it isn't 25. Clips (T > 1) are drivers; photos and a frame of some clips, sources.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from metaportrait_cli.metrics.motion import (
    aed,
    apd,
    identity_leakage,
    landmark_jitter,
    shape_distance,
)
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel, interocular
from metaportrait_cli.motion.retarget import Retargeter, rebased
from metaportrait_cli.motion.smoothing import smooth

SOURCES = 6
BLINK = (0.45, 0.65)
"""Below the first share of the usual openness an eye counts as closed until above the second."""
LIP_CONTACT = (0.015, 0.04)
"""The same for lips, as gaps in inter-ocular distances."""


@dataclass(frozen=True)
class Clip:
    name: str
    person: str
    landmarks: Floats
    fps: float


def read(folder: Path) -> list[Clip]:
    clips = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            fps = float(file["fps"]) if "fps" in file else 25.0
            clips.append(Clip(path.stem, str(file["identity"]), file["landmarks"], fps))
    return clips


def spread(frames: Floats, count: int = 40) -> Floats:
    return frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)]


def faces(model: MorphableModel, p: FaceParameters) -> Floats:
    return model.shape(p.identity, p.expression, p.gaze) + p.residual


def closures(openness: Floats, low: float, high: float) -> int:
    """How often openness (T,) falls below low after having been above high."""
    count, is_open = 0, True
    for value in openness:
        if is_open and value < low:
            count, is_open = count + 1, False
        elif value > high:
            is_open = True
    return count


def blinks(model: MorphableModel, p: FaceParameters) -> int:
    openness = apertures.eye_openness(faces(model, p)).mean(-1)
    usual = np.quantile(openness, 0.75)
    return closures(openness / usual, *BLINK)


def contacts(model: MorphableModel, p: FaceParameters) -> int:
    return closures(apertures.mouth_openness(faces(model, p)), *LIP_CONTACT)


def reprojection(model: MorphableModel, clips: list[Clip]) -> None:
    print("\nReprojection without residual, % of inter-ocular distance")
    print(f"{'person':>8} {'frames':>7} {'mean':>6} {'p95':>6}")
    every = []
    for person, group in groupby(clips, key=lambda clip: clip.person):
        errors = []
        for clip in group:
            fit = fit_frames(model, clip.landmarks, fit_identity(model, spread(clip.landmarks)))
            errors.append(100 * fit.error * fit.scale / interocular(clip.landmarks))
        error = np.concatenate(errors)
        every.append(error.mean())
        print(f"{person:>8} {len(error):7d} {error.mean():6.2f} {np.quantile(error, 0.95):6.2f}")
    print(f"{'mean':>8} {'':7} {np.mean(every):6.2f}")


def retrieval(model: MorphableModel, clips: list[Clip]) -> None:
    """Identity from one half of a person's clips, looked up among everyone's other halves."""
    print("\nIdentity of disjoint halves (halves of the clips, or of the only clip)")
    print(f"{'person':>8} {'clips':>5} {'own':>6} {'nearest other':>14} {'found':>6}")
    people, halves = [], []
    for person, group in groupby(clips, key=lambda clip: clip.person):
        own = [clip.landmarks for clip in group]
        people.append((person, len(own)))
        if len(own) == 1:
            middle = len(own[0]) // 2
            parts = (own[0][:middle], own[0][middle:])
        else:
            parts = tuple(np.concatenate([spread(c) for c in own[i::2]]) for i in (0, 1))
        halves.append([fit_identity(model, spread(part)) for part in parts])
    found = 0
    for i, (person, count) in enumerate(people):
        own = shape_distance(*halves[i])
        others = [
            shape_distance(halves[i][a], halves[j][1 - a])
            for a in (0, 1)
            for j in range(len(people))
            if j != i
        ]
        found += own < min(others)
        print(f"{person:>8} {count:5d} {own:6.2f} {min(others):14.2f} {own < min(others)!s:>6}")
    print(f"retrieved {found} of {len(people)}")


def sources(clips: list[Clip]) -> list[Clip]:
    """One picture each of the first people: photos before frames from the middle of a clip."""
    chosen: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: len(clip.landmarks) > 1):
        middle = len(clip.landmarks) // 2
        still = Clip(clip.name, clip.person, clip.landmarks[middle : middle + 1], clip.fps)
        chosen.setdefault(clip.person, still)
    return list(chosen.values())[:SOURCES]


def cross_driving(model: MorphableModel, clips: list[Clip]) -> None:
    print("\nCross-identity driving, each source by every driver of another identity")
    print(
        f"{'source':>8} {'pairs':>5} {'to source':>9} {'to driver':>9} {'worst':>6} "
        f"{'nearer':>6} {'AED':>5} {'APD':>5} "
        f"{'jitter':>6} {'raw':>6} {'blinks':>9} {'contacts':>9} {'clamped':>7}"
    )
    drivers = []
    for clip in clips:
        if len(clip.landmarks) > 1:
            raw = fit_frames(model, clip.landmarks, fit_identity(model, spread(clip.landmarks)))
            drivers.append((clip, raw, smooth(model, raw, fps=clip.fps)))
    for source in sources(clips):
        rows = []
        retargeter = Retargeter(model=model, source_landmarks=source.landmarks)
        absolute = Retargeter(model=model, source_landmarks=source.landmarks, motion="absolute")
        own = retargeter.source.identity
        for clip, raw, steady in drivers:
            if clip.person == source.person:
                continue
            index = retargeter.choose_reference(steady)
            result = retargeter.retarget(steady, steady.frame(index))
            identity = fit_identity(model, spread(result.landmarks))
            leak = identity_leakage(identity, own, steady.identity)
            shown = fit_frames(model, result.landmarks, own)
            same = absolute.retarget(steady, steady.frame(index))
            same_fit = fit_frames(model, same.landmarks, own)
            unsteady = retargeter.retarget(raw, raw.frame(index))
            rows.append(
                (
                    leak.to_source,
                    leak.to_driver,
                    aed(same_fit, raw),
                    apd(same_fit, raw),
                    landmark_jitter(result.landmarks),
                    landmark_jitter(unsteady.landmarks),
                    blinks(model, raw),
                    blinks(model, shown),
                    contacts(model, raw),
                    contacts(model, shown),
                    result.clamped.sum(),
                )
            )
        table = np.array(rows)
        mean, total = table.mean(0), table.sum(0).astype(int)
        share = table[:, 0] / (table[:, 0] + table[:, 1])
        print(
            f"{source.person:>8} {len(rows):5d} {mean[0]:9.2f} {mean[1]:9.2f} {share.max():6.2f} "
            f"{(share < 0.5).sum():6d} {mean[2]:5.2f} {mean[3]:5.2f} {mean[4]:6.2f} {mean[5]:6.2f} "
            f"{total[6]:4d}/{total[7]:<4d} {total[8]:4d}/{total[9]:<4d} {total[10]:7d}"
        )


def first_frame(model: MorphableModel, clips: list[Clip]) -> None:
    """Results of a driver that starts mid-word and turned away, against one that starts neutral.

    The same clip is driven twice: whole, and from its least neutral frame on. Frames that both
    contain should come out alike; with the first frame as reference they don't. The framing is the
    same for both, so that only face and head pose count.
    """
    print("\nBad first frame: mean point distance to the whole clip's result, % of inter-ocular")
    print(f"{'driver':>34} {'start':>5} {'auto':>6} {'first frame':>11}")
    still = sources(clips)[0]
    retargeter = Retargeter(model=model, source_landmarks=still.landmarks)
    size = interocular(still.landmarks)[0]
    every = []
    for clip in clips:
        if clip.person == still.person or len(clip.landmarks) < 120:
            continue
        driver = fit_frames(model, clip.landmarks, fit_identity(model, spread(clip.landmarks)))
        steady = smooth(model, driver, fps=clip.fps)
        whole = steady.frame(retargeter.choose_reference(steady))
        wanted = retargeter.retarget(steady, rebased(whole, steady)).landmarks
        half = len(steady) // 2
        turned = np.linalg.norm(np.degrees(steady.angles - whole.angles), axis=-1)[:half]
        gap = apertures.mouth_openness(faces(model, steady))[:half]
        start = int((turned / turned.std() + gap / gap.std()).argmax())
        rest = steady.frames(slice(start, None))
        distances = []
        for index in (retargeter.choose_reference(rest), 0):
            reference = rebased(rest.frame(index), steady)
            found = retargeter.retarget(rest, reference).landmarks
            offset = np.linalg.norm((found - wanted[start:])[..., :2], axis=-1)
            distances.append(100 * offset.mean() / size)
        every.append(distances)
        print(f"{clip.name[-34:]:>34} {start:5d} {distances[0]:6.1f} {distances[1]:11.1f}")
    auto, first = np.mean(every, axis=0)
    print(f"{'mean':>34} {'':5} {auto:6.1f} {first:11.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tracks", type=Path)
    parser.add_argument("--model", type=Path, default=Path("weights/morphable.safetensors"))
    options = parser.parse_args()
    model = MorphableModel.load(options.model)
    clips = read(options.tracks)
    clips.sort(key=lambda clip: (clip.person, clip.name))
    moving = [clip for clip in clips if len(clip.landmarks) > 1]
    reprojection(model, moving)
    retrieval(model, moving)
    cross_driving(model, clips)
    first_frame(model, clips)


if __name__ == "__main__":
    main()
