"""The whole way of a frame, on small clips that look like what users bring."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Image_

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.orientation import turned, turned_points
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice
from metaportrait_cli.motion.motion_file import read_motion
from metaportrait_cli.pipeline.animate import animate, default_output
from metaportrait_cli.pipeline.animation import AnimateOptions, Animation
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.landmarks import extract_landmarks
from metaportrait_cli.pipeline.performance import DriveOptions
from metaportrait_cli.pipeline.source import load_sources
from metaportrait_cli.pipeline.upscale import upscale
from metaportrait_cli.render.protocol import Driven
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights import bundled_path
from tests.clips import H264, decoded, scene, write_clip

Image = NDArray[np.uint8]
PLAIN = Engine("none")
SMALL = AnimateOptions(full=False, size=128, window=5)


def moving_head(portrait: Image, count: int) -> list[Image]:
    return [scene(portrait, [(60 + 2 * i, 20, 200)]) for i in range(count)]


@pytest.fixture(scope="module")
def moving(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "moving.mp4"
    return write_clip(path, moving_head(portrait, 12))


def sound_lag(wanted: Path, got: Path) -> float | None:
    """Seconds by which the second file's sound comes later; `None` if it is another sound, or no
    part of it."""
    rate = 16000
    tracks = []
    for path in (wanted, got):
        track = np.zeros(6 * rate, np.float32)
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    samples = part.to_ndarray()[0]
                    start = round(float(part.time or 0) * rate)
                    keep = samples[max(-start, 0) :][: len(track) - max(start, 0)]
                    track[max(start, 0) :][: len(keep)] = keep
        tracks.append(track - track.mean())
    size = 2 * len(tracks[0])
    spectra = [np.fft.rfft(track, size) for track in tracks]
    match = np.fft.irfft(spectra[1] * spectra[0].conj(), size)
    best = int(match.argmax())
    if match[best] < 0.9 * min(np.linalg.norm(track) for track in tracks) ** 2:
        return None
    return (best if best < size // 2 else best - size) / rate


def test_a_part_of_the_driver_with_its_sound(
    portrait_path: Path, driver_path: Path, tmp_path: Path
) -> None:
    output, template = tmp_path / "part.mp4", tmp_path / "part.motion.npz"
    options = replace(SMALL, start=1.0, end=1.6, compare=True)
    report = animate(portrait_path, driver_path, output, options, engine=PLAIN)
    pictures = decoded(output)
    assert report.frames == len(pictures) == 38 - 24
    panel = pictures[0][:, 128:-128].astype(float)  # the driver's own picture
    near = [
        np.asarray(Image_.fromarray(frame).resize(panel.shape[1::-1])).astype(float)
        for frame in decoded(driver_path)[20:29]
    ]
    assert np.argmin([np.abs(frame - panel).mean() for frame in near]) == 4
    lag = sound_lag(driver_path, output)
    assert lag is not None
    assert abs(lag + 24 * 1001 / 24000) < 0.005
    # The same part of a template made of more, and one made of the part.
    extract_landmarks(driver_path, template, start=0.5, end=1.8)
    whole = read_motion(template)
    assert len(whole) == 43 - 12
    part = animate(
        portrait_path,
        template,
        output,
        replace(options, start=0.5, end=1.1),
        engine=PLAIN,
        overwrite=True,
    )
    assert part.frames == 14
    with pytest.raises(UsageError, match="beyond its end"):
        animate(portrait_path, template, output, replace(options, start=2, end=3), overwrite=True)


def test_all_faces_of_a_picture_move_together(portrait: Image, moving: Path) -> None:
    pair = scene(portrait, [(0, 20, 200), (220, 10, 220), (180, 4, 20)], width=448)
    shown = {}
    for choice in ("1", "2", "all"):
        options = AnimateOptions(
            source_face=FaceChoice.parse(choice, field="source_face"), start=0.24
        )
        with Animation.open(PLAIN, pair, moving, options) as animation:
            shown[choice] = [picture.image.astype(int) for picture in animation.pictures()]
            notes = animation.report.notes
        assert any("2 faces" in note for note in notes)
    both = shown["all"][-1]
    left, right = (slice(60, 160), slice(50, 150)), (slice(60, 160), slice(280, 380))
    for part, alone in ((left, "1"), (right, "2")):
        assert np.abs(both[part] - shown[alone][-1][part]).mean() < 0.5
        assert (
            np.abs(both[part] - pair[part]).mean()
            > 2 * np.abs(both[part] - shown[alone][-1][part]).mean()
        )
    with pytest.raises(UsageError, match="whole picture"):
        AnimateOptions(source_face=FaceChoice(every=True), full=False)
    with pytest.raises(UsageError, match="one picture"):
        Animation.open(
            PLAIN, [pair, pair], moving, AnimateOptions(source_face=FaceChoice(every=True))
        )


def test_sample_keeps_frames_rate_duration_and_sound(
    portrait_path: Path, driver_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    report = animate([portrait_path], driver_path, output)
    with av.open(str(driver_path)) as driver, av.open(str(output)) as result:
        assert result.streams.video[0].average_rate == Fraction(24000, 1001)
        assert result.streams.video[0].frames == driver.streams.video[0].frames == report.frames
        assert (result.streams.video[0].width, result.streams.video[0].height) == (512, 512)
        assert len(result.streams.audio) == 1
        assert "AI-generated" in result.metadata["comment"]
    lag = sound_lag(driver_path, output)
    assert lag is not None
    assert abs(lag) < 0.005
    assert report.gaps == []
    assert report.faces["source"]["seen"] == 1
    json.dumps(report.as_json())


def test_the_picture_outside_the_crop_stays(
    portrait: Image, portrait_path: Path, driver_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    animate([portrait_path], driver_path, output)
    frames = decoded(output)
    outside = (slice(300, 512), slice(0, 512))
    face = (slice(70, 180), slice(180, 270))
    # Against the first frame, so that the codec's own loss doesn't count.
    assert np.abs(frames[50][outside].astype(int) - frames[0][outside]).mean() < 1.0
    assert np.abs(frames[50][face].astype(int) - frames[0][face]).mean() > 4.0
    assert np.abs(frames[50][outside].astype(int) - portrait[outside]).mean() < 4.0


def test_a_still_driver_leaves_the_portrait_as_it_is(
    portrait: Image, portrait_path: Path, tmp_path: Path
) -> None:
    driver = write_clip(tmp_path / "still.mp4", [scene(portrait, [(60, 20, 200)])] * 6)
    output = tmp_path / "out.mp4"
    animate([portrait_path], driver, output)
    for frame in decoded(output):
        assert np.abs(frame.astype(int) - portrait).mean() < 4.0


def test_windows_do_not_change_the_result(
    portrait_path: Path, moving: Path, tmp_path: Path
) -> None:
    results = []
    for window in (1, 5, 64):
        output = tmp_path / f"{window}.mp4"
        animate(
            [portrait_path], moving, output, AnimateOptions(full=False, size=128, window=window)
        )
        results.append(np.stack(decoded(output)))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_head_follows_the_driver(portrait_path: Path, moving: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    animate([portrait_path], moving, output, SMALL)
    template = tmp_path / "result.motion.npz"
    extract_landmarks(output, template)
    with np.load(template) as motion:
        nose = motion["points"][:, 1, 0]
    assert nose[-1] - nose[0] > 4.0
    assert (np.diff(nose) > -0.7).all()


def test_template_drives_like_its_clip(portrait_path: Path, moving: Path, tmp_path: Path) -> None:
    template, overlay = tmp_path / "m.motion.npz", tmp_path / "overlay.mp4"
    extract_landmarks(moving, template, overlay=overlay)
    direct, by_template = tmp_path / "direct.mp4", tmp_path / "template.mp4"
    animate([portrait_path], moving, direct, SMALL)
    animate([portrait_path], template, by_template, SMALL)
    np.testing.assert_array_equal(decoded(direct), decoded(by_template))
    assert len(decoded(overlay)) == 12


def test_face_leaves_and_returns(portrait: Image, portrait_path: Path, tmp_path: Path) -> None:
    frames = [scene(portrait, [] if 6 <= i < 10 else [(60 + i, 20, 200)]) for i in range(16)]
    driver = write_clip(tmp_path / "gone.mp4", frames)
    output = tmp_path / "out.mp4"
    report = animate([portrait_path], driver, output, SMALL)
    assert len(decoded(output)) == 16
    assert sum(gap["frames"][1] - gap["frames"][0] for gap in report.gaps) == 4
    assert any("no face in 4 of 16 frames" in note for note in report.notes)


def test_scene_cut_starts_a_new_shot(portrait: Image, portrait_path: Path, tmp_path: Path) -> None:
    first = [scene(portrait, [(20 + i, 10, 160)]) for i in range(8)]
    second = [scene(portrait, [(130 - i, 40, 180)], background=15) for i in range(8)]
    driver = write_clip(tmp_path / "cut.mp4", first + second)
    output = tmp_path / "out.mp4"
    report = animate([portrait_path], driver, output, SMALL)
    assert report.shots == 2
    assert report.gaps == []
    frames = decoded(output)
    assert len(frames) == 16
    # Each shot has its own reference, so the cut doesn't throw the head across the picture.
    template = tmp_path / "result.motion.npz"
    extract_landmarks(output, template)
    with np.load(template) as motion:
        nose = motion["points"][:, 1, 0]
    assert abs(nose[8] - nose[7]) < 12.0


def test_small_face_is_found(portrait: Image, portrait_path: Path, tmp_path: Path) -> None:
    frames = [
        scene(portrait, [(500 + 3 * i, 200, 150)], width=1280, height=720) for i in range(6)
    ]  # the face is about 60 pixels high
    driver = write_clip(tmp_path / "small.mp4", frames)
    report = animate([portrait_path], driver, tmp_path / "out.mp4", SMALL)
    assert report.gaps == []
    assert report.faces["driver"]["frames_found"] == 6


def test_choosing_among_two_faces(portrait: Image, portrait_path: Path, tmp_path: Path) -> None:
    frames = [scene(portrait, [(10, 60, 160), (180 + 3 * i, 30, 200)], width=480) for i in range(8)]
    driver = write_clip(tmp_path / "two.mp4", frames)
    swing = []
    for number in (1, 2):
        template = tmp_path / f"{number}.motion.npz"
        extract_landmarks(driver, template, face=FaceChoice(number))
        with np.load(template) as motion:
            swing.append(float(np.ptp(motion["points"][:, 1, 0])))
    assert swing[0] < 3.0
    assert swing[1] > 15.0
    with pytest.raises(NoFaceError):
        animate([portrait_path], driver, tmp_path / "out.mp4", AnimateOptions(face=FaceChoice(3)))
    with pytest.raises(NoFaceError, match="face 2 asked for, but only 1"):
        animate(
            [portrait_path], driver, tmp_path / "out.mp4", AnimateOptions(source_face=FaceChoice(2))
        )


def test_no_face_is_said(portrait: Image, portrait_path: Path, tmp_path: Path) -> None:
    blank = write_clip(tmp_path / "blank.mp4", [scene(portrait, [])] * 4)
    with pytest.raises(NoFaceError, match=r"blank\.mp4: no face found in any of 4 frames"):
        animate([portrait_path], blank, tmp_path / "out.mp4")
    with pytest.raises(NoFaceError, match=r"blank\.mp4: no face found"):
        animate([blank], blank, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_size_that_is_told_is_the_files(portrait_path: Path, tmp_path: Path) -> None:
    Image_.new("RGB", (3841, 720), "grey").save(tmp_path / "wall.jpg")
    with pytest.raises(
        NoFaceError, match=r"wall\.jpg: no face found \(3841x720\).* 80 pixels high"
    ):
        animate([tmp_path / "wall.jpg"], portrait_path, tmp_path / "out.png")


def test_rate_of_a_gif_is_told_before_the_work(
    portrait: Image, portrait_path: Path, tmp_path: Path
) -> None:
    fast = write_clip(tmp_path / "fast.mp4", [scene(portrait, [])] * 4, rate="60")

    def progress(stage: str, done: int, total: int | None) -> None:
        pytest.fail("work was done")

    with pytest.raises(UsageError, match="at most 50 of 60"):
        animate([portrait_path], fast, tmp_path / "out.gif", on_progress=progress)
    with pytest.raises(UsageError, match="at most 50 of 60"):
        upscale(fast, tmp_path / "out.gif", on_progress=progress)


def test_compare_shows_three_panels(portrait_path: Path, moving: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    animate([portrait_path], moving, output, AnimateOptions(full=False, size=120, compare=True))
    frames = decoded(output)
    assert len(frames) == 12
    assert frames[0].shape == (120, 120 + 160 + 120, 3)


def test_clip_as_source(moving: Path, driver_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    report = animate([moving], driver_path, output)
    assert report.frames == 108
    assert decoded(output)[0].shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("rate", "exact"),
    [("30000/1001", Fraction(30000, 1001)), ("24000/1001", Fraction(24000, 1001))],
)
def test_fractional_rates(
    portrait: Image, portrait_path: Path, tmp_path: Path, rate: str, exact: Fraction
) -> None:
    driver = write_clip(tmp_path / "a.mp4", moving_head(portrait, 6), rate=rate)
    output = tmp_path / "out.mp4"
    animate([portrait_path], driver, output, SMALL)
    with av.open(str(output)) as result:
        assert result.streams.video[0].average_rate == exact
        assert result.streams.video[0].frames == 6


def test_variable_rate_becomes_the_nominal_one_in_the_same_time(
    portrait: Image, portrait_path: Path, tmp_path: Path
) -> None:
    driver = write_clip(
        tmp_path / "vfr.mp4",
        moving_head(portrait, 20),
        output=("-vf", "setpts='if(lt(N,10),N,10+(N-10)*3)/25/TB'", "-fps_mode", "passthrough"),
    )
    output = tmp_path / "out.mp4"
    report = animate([portrait_path], driver, output, SMALL)
    with av.open(str(output)) as result:
        stream = result.streams.video[0]
        assert stream.average_rate == 25
        assert stream.frames == report.frames == 10 + 9 * 3 + 1


def test_compare_and_overlay_show_what_is_on_screen(
    portrait: Image, portrait_path: Path, tmp_path: Path
) -> None:
    """A clip of variable rate: frame k of the result is not the clip's frame k."""
    frames = moving_head(portrait, 12)
    for number, frame in enumerate(frames):
        frame[-40:, :40] = 20 * number  # tells which one it is
    clip = write_clip(
        tmp_path / "vfr.mp4",
        frames,
        output=("-vf", "setpts='if(lt(N,6),N,6+(N-6)*4)/25/TB'", "-fps_mode", "passthrough"),
    )
    report = animate(
        portrait_path,
        clip,
        tmp_path / "out.mp4",
        replace(SMALL, compare=True),
        engine=Engine("none"),
    )
    times = np.array([*range(6), *range(6, 30, 4)]) / 25
    assert report.rate == "25"
    middles = (np.arange(6 + 5 * 4 + 1) + 0.5) / 25
    wanted = 20 * (np.searchsorted(times, middles, side="right") - 1)
    panels = [frame[-12:-4, 128 + 4 : 128 + 12].mean() for frame in decoded(tmp_path / "out.mp4")]
    np.testing.assert_allclose(panels, wanted, atol=8)
    overlay = tmp_path / "overlay.mp4"
    extract_landmarks(clip, tmp_path / "vfr.motion.npz", overlay=overlay)
    shown = [frame[-20:-8, 8:20].mean() for frame in decoded(overlay)]
    np.testing.assert_allclose(shown, wanted, atol=8)


def test_odd_inputs_run(portrait: Image, portrait_path: Path, tmp_path: Path) -> None:
    """One frame, odd sizes, turned, 10-bit, ProRes with alpha, strange names: frames in = out."""
    head_frames = moving_head(portrait, 5)
    odd = [frame[:231, :317] for frame in head_frames]
    lossless = ("-c:v", "ffv1", "-pix_fmt", "bgr0")
    clips = {
        "one.mp4": (head_frames[:1], ()),
        "odd.mkv": (odd, lossless),
        "ten bit.mp4": (head_frames, ("-c:v", "libx264", "-pix_fmt", "yuv420p10le")),
        "pro'res $HOME.mov": (head_frames, ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le")),
        '片段 "x".mp4': (head_frames, ()),
        "-dash.mp4": (head_frames, ()),
    }
    for name, (frames, how) in clips.items():
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        driver = write_clip(folder / name, frames, output=how or H264)
        output = tmp_path / f"{default_output(portrait_path, driver)}"
        animate([portrait_path], driver, output, SMALL)
        assert len(decoded(output)) == len(frames), name


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="`strength`"):
        AnimateOptions(drive=DriveOptions(strength=-1.0))
    for size in (8, 33, 4096):
        with pytest.raises(UsageError, match="`size`"):
            AnimateOptions(size=size)
    with pytest.raises(UsageError, match="`window`"):
        AnimateOptions(window=0)


def test_outputs_are_protected(portrait_path: Path, moving: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_text("precious")
    with pytest.raises(UsageError, match="overwrite"):
        animate([portrait_path], moving, output, SMALL)
    assert output.read_text() == "precious"
    with pytest.raises(UsageError):
        animate([portrait_path], moving, tmp_path / "no" / "such" / "out.mp4", SMALL)
    with pytest.raises(MediaError):
        animate([portrait_path], tmp_path / "nothing.mp4", tmp_path / "new.mp4", SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


def test_further_views_lend_their_faces(
    portrait_path: Path, driver_path: Path, tmp_path: Path
) -> None:
    """Driven to the second view's own pose, the face is the second view's."""
    driver = decoded(driver_path)
    turned, frontal = driver[100], driver[40]
    paths = [tmp_path / "frontal.png", tmp_path / "turned.png"]
    for path, picture in zip(paths, (frontal, turned), strict=True):
        Image_.fromarray(picture).save(path)
    with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
        both = load_sources(paths, choice=LARGEST_FACE, detector=detector)
    size = 256
    driven = both.crop.to_crop(both.others[0].face.points, size)
    wanted = Driven.of(driven[None])
    alone, blended = (
        WarpRenderer().open(source, size=size).render(wanted).frames[0]
        for source in (replace(both, others=()), both)
    )
    truth = both.crop.cut(both.others[0].picture, size)
    low, high = driven[:, :2].min(0).astype(int) + 30, driven[:, :2].max(0).astype(int) - 30
    face = (slice(low[1], high[1]), slice(low[0], high[0]))
    error = [np.abs(f[face].astype(int) - truth[face]).mean() for f in (alone, blended)]
    assert error[1] < 0.6 * error[0]
    np.testing.assert_array_equal(blended[:20], alone[:20])  # hair and background stay

    output = tmp_path / "out.mp4"
    report = animate([*paths, portrait_path], driver_path, output, SMALL)
    assert report.faces["source"]["further_views"] == 2
    assert len(decoded(output)) == 108


@pytest.mark.parametrize("turns", [1, 2])
def test_driver_that_lies_on_its_side_drives_as_upright(
    portrait: Image, tmp_path: Path, turns: int
) -> None:
    upright = moving_head(portrait, 4)
    clips = [
        write_clip(tmp_path / f"{count}.mp4", [turned(frame, count) for frame in upright])
        for count in (0, turns)
    ]
    tracks, notes = [], []
    for clip in clips:
        template = clip.with_name(f"{clip.stem}.motion.npz")
        report = extract_landmarks(clip, template, overlay=clip.with_name(f"{clip.stem}-o.mp4"))
        tracks.append(read_motion(template))
        notes.append(" ".join(report.notes))
    assert "upright" not in notes[0]
    assert "looked at upright" in notes[1]
    points = [track.read(0, 4)["points"] for track in tracks]
    assert np.abs(points[0] - points[1])[..., :2].mean() < 1
    assert (tracks[1].width, tracks[1].height) == (320, 240)
    # The overlay lies on the face as the clip shows it.
    drawn, plain = (decoded(tmp_path / f"{turns}{part}.mp4")[0] for part in ("-o", ""))
    changed = np.abs(drawn.astype(int) - plain).max(2) > 60
    width = drawn.shape[1]
    x, y = turned_points(points[0][0], turns, width=320, height=240)[:, :2].T
    assert np.abs(np.argwhere(changed).mean(0) - [y.mean(), x.mean()]).max() < 0.1 * width


def test_portrait_upside_down_is_turned_upright(
    portrait: Image, moving: Path, tmp_path: Path
) -> None:
    plain = Engine("none")
    Image_.fromarray(np.ascontiguousarray(portrait[::-1, ::-1])).save(tmp_path / "over.png")
    report = animate(tmp_path / "over.png", moving, tmp_path / "out.mp4", SMALL, engine=plain)
    assert any("upside down; turned upright" in note for note in report.notes)
    Image_.fromarray(portrait).save(tmp_path / "upright.png")
    animate(tmp_path / "upright.png", moving, tmp_path / "wanted.mp4", SMALL, engine=plain)
    clips = (decoded(tmp_path / name) for name in ("out.mp4", "wanted.mp4"))
    for got, wanted in zip(*clips, strict=True):
        assert np.abs(got.astype(int) - wanted).mean() < 3
