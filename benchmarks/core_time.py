"""Where the core-milliseconds of a frame go: CPU time of threads within named functions.

    PYTHONPATH=CHECKOUT python benchmarks/core_time.py DRIVER WEIGHTS OUTPUT

Prints JSON: milliseconds a frame by stage, each without the stages that it calls, `others` for all
else and `ffmpeg` for the children. It imports nothing of this folder, so that it can look at an
older checkout; functions that aren't there are counted with whoever does their work instead. What
numpy's helper threads spend on waiting, where a checkout lets them, is kept out.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

STAGES = {
    "landmarks": ["face.pursuit:Pursuit.follow", "face.pursuit:Pursuit.begin"],
    "cuts": ["face.track:CutDetector.is_cut"],
    "motion": [
        "motion.fitting:fit_frames",
        "motion.fitting:_fitted",
        "motion.fitting:fit_identity",
        "motion.smoothing:smooth",
        "motion.retarget:Retargeter.retarget",
    ],
    "opening": [
        "pipeline.source:load_sources",
        "pipeline.engine:Engine.rendering",
        "pipeline.compensation:compensate",
        "pipeline.compensation:needed",
        "pipeline.preparation:opened",
        "render.warped:WarpRenderer.open",
        "render.layered:MovedCrop._with_correction",
    ],
    "analytic flow": ["face.correspondence:CorrespondenceWarp.__call__"],
    "what its network sees": ["render.learned_flows:LearnedCorrection.__call__"],
    "remap, layers": ["render.layered:MovedCrop.__call__"],
    "light": ["render.shading.light:SkinLight.changes", "render.shading.light:SkinLight.shine"],
    "patches": [
        "face.regions:OwnRegions.beside",
        "face.regions:add_patch",
        "render.mouths.teeth:OpenedTeeth.draw",
        "render.mouths.teeth:drawn_patches",
        "render.mouths.teeth:OpenedTeeth.blend",
        "render.lid_line:LidLine.draw",
        "render.regions:RegionRefiner.changes",
        "networks.swift.repainted:painted",
        "networks.swift.repainted:light_of",
        "networks.swift.repainted:below_teeth",
    ],
    "compose": ["pipeline.compose:PasteBack.__call__"],
    "encode": ["media.writer:VideoWriter.write"],
}

_here = threading.local()
_lock = threading.Lock()
_spent: dict[str, float] = defaultdict(float)


def counted(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
    """The function, its thread's time added to the stage."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        stack = _here.__dict__.setdefault("stack", [])
        began = time.thread_time()
        stack.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            took = time.thread_time() - began
            inner = stack.pop()
            if stack:
                stack[-1] += took
            with _lock:
                _spent[stage] += took - inner

    return wrapper


def watch(place: str, stage: str) -> None:
    """Counts a function or method of the package, wherever it was imported to."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(f"metaportrait_cli.{module}")
    *within, last = name.split(".")
    for part in within:
        found = getattr(found, part)
    before = getattr(found, last)
    after = counted(before, stage)
    setattr(found, last, after)
    for other in list(sys.modules.values()):
        ours = getattr(other, "__name__", "").startswith("metaportrait_cli")
        if ours and getattr(other, last, None) is before:
            setattr(other, last, after)


def watch_networks() -> None:
    """Counts each network under its name."""
    function = importlib.import_module("metaportrait_cli.networks.swift.function").SwiftFunction
    machine = importlib.import_module("metaportrait_cli.networks.swift.machine").Machine
    names: dict[int, str] = {}
    call, run = function.__call__, machine.__call__

    def named(self: Any, *inputs: Any) -> Any:
        names[id(self._machine)] = self._name
        return call(self, *inputs)

    def ran(self: Any, inputs: Any) -> Any:
        return counted(run, f"network: {names.get(id(self), 'first run')}")(self, inputs)

    function.__call__, machine.__call__ = named, ran


def main() -> None:
    """One run of `animate` in this process."""
    driver, weights, output = sys.argv[1:]
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
    pipeline = importlib.import_module("metaportrait_cli.pipeline.animate")
    engine = importlib.import_module("metaportrait_cli.pipeline.engine").Engine
    importlib.import_module("metaportrait_cli.render.compact")
    for stage, places in STAGES.items():
        for place in places:
            with suppress(ImportError, AttributeError):
                watch(place, stage)
    with suppress(ImportError):
        watch_networks()
    portrait = Path(__file__).parents[1] / "samples" / "portrait.png"
    used = engine(None if weights == "bundled" else weights)
    frames = pipeline.animate(portrait, driver, output, engine=used, overwrite=True).frames
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    _spent["others"] = own.ru_utime + own.ru_stime - sum(_spent.values())
    _spent["ffmpeg"] = children.ru_utime + children.ru_stime
    print(json.dumps({stage: 1000 * seconds / frames for stage, seconds in _spent.items()}))


if __name__ == "__main__":
    main()
