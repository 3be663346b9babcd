"""The library as programs use it: what docs/python.md shows, and that importing it is light."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import metaportrait_cli
from metaportrait_cli import Animation, Clip, Engine, MediaError, UsageError, WeightsError
from tests.clips import decoded, scene, write_clip

EXAMPLES = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parents[1] / "docs" / "python.md").read_text(),
    flags=re.DOTALL,
)


@pytest.fixture
def folder(portrait: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the examples name."""
    frames = [scene(portrait, [(60 + 2 * n, 20, 200)]) for n in range(12)]
    Image.fromarray(portrait).save(tmp_path / "face.jpg")
    write_clip(tmp_path / "clip.mp4", frames)
    write_clip(tmp_path / "other.mp4", frames[:3])
    np.save(tmp_path / "frames.npy", np.stack(frames[:4]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0][:40])
def test_examples_of_the_docs_run(example: str, folder: Path) -> None:
    exec(compile(example, "docs/python.md", "exec"), {})  # noqa: S102  our own page
    if "0.mp4" in example or "{number}" in example:
        assert [len(decoded(folder / f"{n}.mp4")) for n in range(2)] == [12, 3]


def test_importing_is_light_and_names_are_there() -> None:
    code = (
        "import sys, metaportrait_cli;"
        "print({'torch', 'cv2', 'numpy', 'mediapipe'} & sys.modules.keys())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
    for name in metaportrait_cli.__all__:
        assert getattr(metaportrait_cli, name).__module__.startswith("metaportrait_cli.")
    with pytest.raises(AttributeError, match="nothing"):
        metaportrait_cli.nothing  # noqa: B018


def test_pictures_equal_the_file_s(folder: Path) -> None:
    frames = np.load("frames.npy")
    with Engine("none") as engine:
        with Animation.open(engine, frames[0], Clip(frames)) as animation:
            assert animation.frames == 4
            pictures = [picture.image for picture in animation.pictures()]
            again = [picture.image for picture in animation.pictures()]
        metaportrait_cli.animate(frames[0], Clip(frames), "out.mp4", engine=engine)
        with pytest.raises(UsageError, match="closed: open it anew"):
            next(animation.pictures())
    np.testing.assert_array_equal(pictures, again)
    for got, wanted in zip(decoded(folder / "out.mp4"), pictures, strict=True):
        assert np.abs(got.astype(int) - wanted).mean() < 4


def test_a_picture_of_pillow_s_is_a_source(portrait: NDArray[np.uint8]) -> None:
    colours = Image.fromarray(portrait)
    with Engine("none") as engine:
        for picture in (colours, colours.convert("RGBA")):
            with Animation.open(engine, picture, Clip([portrait])) as animation:
                np.testing.assert_array_equal(animation.source.picture, portrait)
                assert animation.report.inputs["source"] == ["picture"]


def test_what_programs_get_wrong(portrait: NDArray[np.uint8]) -> None:
    frames = [portrait] * 2
    with Engine("none") as engine:
        for source, driver in (
            (portrait.astype(float), Clip(frames)),
            (np.zeros((0, 0, 3), np.uint8), Clip(frames)),
            (portrait, Clip([])),
            (portrait, Clip([portrait[..., 0]])),
            (portrait, Clip([portrait, portrait[:100]])),
        ):
            with pytest.raises(MediaError):
                Animation.open(engine, source, driver)
        once = Clip(iter(frames))
        read = Clip(iter(frames[:0]))
        with pytest.raises(MediaError, match="given them already"):
            Animation.open(engine, portrait, read)
        compared = metaportrait_cli.AnimateOptions(compare=True)
        with pytest.raises(UsageError, match="twice"):
            Animation.open(engine, portrait, once, compared)
        with pytest.raises(MediaError, match="`source` is dict"):
            Animation.open(engine, {"a": portrait}, Clip(frames))  # pyrefly: ignore
        with pytest.raises(UsageError, match=r"Clip\(frames"):
            Animation.open(engine, portrait, frames)  # pyrefly: ignore
    for rate in (0, -25, float("nan"), float("inf"), "25"):
        with pytest.raises(UsageError, match="rate"):
            Clip(frames, rate=rate)  # pyrefly: ignore
    options = metaportrait_cli.AnimateOptions
    for wrong, message in (
        ({"size": "64"}, "`size` is str '64', not int or None"),
        ({"face": 2}, "`face` is int 2, not FaceChoice"),
        ({"start": None}, "`start` is None"),
        ({"encoding": "h264"}, "`encoding` is str"),
    ):
        with pytest.raises(UsageError, match=message):
            options(**wrong)  # pyrefly: ignore
    assert options(size=np.int64(64), end=np.float32(2)).size == 64  # pyrefly: ignore
    with pytest.raises(UsageError, match="`strength` is str"):
        metaportrait_cli.DriveOptions(strength="1")  # pyrefly: ignore
    with pytest.raises(UsageError, match="motion"):
        metaportrait_cli.DriveOptions(motion="sideways")  # pyrefly: ignore
    with pytest.raises(WeightsError):
        Engine.load("missing.safetensors")
    with pytest.raises(UsageError):
        Engine(device="tpu")


def test_arguments_of_another_kind_are_told_by_name(tmp_path: Path) -> None:
    m: Any = metaportrait_cli
    out, clip = tmp_path / "out.mp4", Clip([])
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: m.animate("a.jpg", "b.mp4", None), "`output` is None, not str or PathLike"),
        (lambda: m.animate("a.jpg", "b.mp4", out, {"size": 64}), "`options` is dict, not Anim"),
        (lambda: m.animate("a.jpg", "b.mp4", out, engine="none"), "`engine` is str 'none', not"),
        (lambda: m.landmarks(clip, out), "`clip` is Clip, not str"),
        (lambda: m.landmarks("b.mp4", out, start="1"), "`start` is str '1', not float"),
        (lambda: m.upscale(clip, out), "`clip` is Clip, not str"),
        (lambda: m.personalize(out, video=clip), "`video` is Clip, not str"),
        (lambda: m.personalize(out, photos="a.jpg"), "`photos` is str 'a.jpg', not a list of str"),
        (lambda: m.personalize(out, photos=[3]), "`photos` is list, not a list of str"),
        (lambda: m.Engine(3), "`weights` is int 3, not str"),
        (lambda: m.Animation.open("none", "a.jpg", "b.mp4"), "`engine` is str"),
    ]
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.mp4").touch()
    wrong += [
        (lambda: m.animate(tmp_path / "a.jpg", tmp_path / "b.mp4", out, begun="x"), "`begun` 'x'"),
        (lambda: m.upscale(tmp_path / "b.mp4", out, begun="x"), "choose one of ask, resume"),
    ]
    for call, message in wrong:
        with pytest.raises(UsageError, match=message):
            call()
    assert {path.name for path in tmp_path.iterdir()} == {"a.jpg", "b.mp4"}
