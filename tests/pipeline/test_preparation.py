"""Sources that are found and opened while a driver is looked at."""

import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

from metaportrait_cli.errors import MediaError, NoFaceError
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.media.writer import VideoWriter
from metaportrait_cli.motion.alignment import rotation_of
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.compose import PasteBack
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.performance import DriveOptions
from metaportrait_cli.pipeline.preparation import Preparing, framed
from metaportrait_cli.pipeline.source import load_source
from metaportrait_cli.pipeline.work import Work
from metaportrait_cli.render.protocol import Driven, Renderer
from metaportrait_cli.stages import aside


def test_a_source_without_a_face_ends_the_look_at_the_driver() -> None:
    failed = threading.Event()

    def find() -> list[Source]:
        try:
            raise NoFaceError("none here")
        finally:
            failed.set()

    told = []
    with aside() as thread, Engine("none") as engine:
        preparing = Preparing(
            thread,
            engine,
            DriveOptions(),
            load=engine.rendering,
            find=find,
            side=lambda _: 64,
            asked=False,
        )
        progress = preparing.heeded(lambda *each: told.append(each))
        failed.wait()
        thread.submit(int).result()
        with pytest.raises(NoFaceError, match="none here"):
            progress("landmarks", 1, None)
    assert preparing.failed
    assert told == []


def test_what_is_wrong_with_both_is_told_of_the_source(tmp_path: Path) -> None:
    blank = np.zeros((64, 64, 3), np.uint8)
    picture, clip = tmp_path / "blank.png", tmp_path / "blank.mp4"
    cv2.imwrite(str(picture), blank)
    with VideoWriter(clip, width=64, height=64, rate=Fraction(1)) as writer:
        for _ in range(12):  # more than lie in a piece
            writer.write(blank)
    output = tmp_path / "out.mp4"
    for source, error in ((picture, NoFaceError), (tmp_path / "gone.png", MediaError)):
        with Engine("none") as engine:
            with pytest.raises(error, match=source.name):
                animate([source], clip, output, engine=engine)
            assert not engine.detector._landmarkers
    assert sorted(os.listdir(tmp_path)) == ["blank.mp4", "blank.png"]
    assert not Work(output, {}).exists


def test_no_library_to_record_sound_with_is_looked_for() -> None:
    code = (
        "import sys; from metaportrait_cli.native import vision_tasks;"
        "tasks = vision_tasks(); assert tasks is vision_tasks() and tasks.FaceLandmarker;"
        "assert 'sounddevice' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_whole_head_moves_with_a_nod(portrait_path: Path) -> None:
    """Hair that the usual crop cuts off would stay where it is, and be torn from the rest."""
    with Engine("none") as engine:
        usual = load_source(portrait_path, choice=LARGEST_FACE, detector=engine.detector)
        renderer = engine.rendering().renderer
        source = framed(usual, renderer)
        assert source.crop.side > 1.1 * usual.crop.side
        turned = rotation_of(np.radians([[0.0, -18.0, 0.0]]))[0]  # looking down
        middle = usual.face.points.mean(0)
        driven = (usual.face.points - middle) @ turned.T + middle + (0, 12, 0)
        tops = []
        for each in (usual, source):
            session = renderer.open(each, size=2 * each.crop.side)
            landmarks = each.crop.to_crop(driven.astype(np.float32), 2 * each.crop.side)
            frame = PasteBack(each)(session.render(Driven.of(landmarks[None])).frames[0])
            changed = np.abs(frame[:30].astype(int) - usual.picture[:30]).mean()
            tops.append(changed)
    assert tops[1] > 1.5 * tops[0]


def test_networks_that_learnt_the_usual_crop_get_it(portrait_path: Path) -> None:
    with Engine("none") as engine:
        usual = load_source(portrait_path, choice=LARGEST_FACE, detector=engine.detector)
    for renderer in (
        SimpleNamespace(keeps_detail=True, fixed_size=256),
        SimpleNamespace(keeps_detail=False, fixed_size=None),
    ):
        assert framed(usual, cast(Renderer, renderer)) is usual
