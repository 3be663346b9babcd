"""A camera as driver: what a page sends, and what comes back."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media.stills import write_still
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.live.cameras import frames_of
from metaportrait_cli.pipeline.live.newest import Newest
from metaportrait_cli.pipeline.live.performer import OpenedPortrait, Performer, open_portrait
from metaportrait_cli.pipeline.live.recording import NOTHING, Recorder
from metaportrait_cli.pipeline.live.run import run_live
from metaportrait_cli.pipeline.live.server import FRAME, PICTURE_FILE, LiveOptions, LiveServer
from metaportrait_cli.pipeline.live.stage import decoded, encoded
from metaportrait_cli.pipeline.performance import DriveOptions
from metaportrait_cli.pipeline.report import MARK
from tests.clips import scene, write_clip

Image = NDArray[np.uint8]
SIZE = 128
STAMP = b"12345678"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("none")


@pytest.fixture(scope="module")
def opened(engine: Engine, portrait_path: Path) -> OpenedPortrait:
    return open_portrait(engine, portrait_path, size=SIZE)


def test_newest_wins_and_the_others_are_counted() -> None:
    place: Newest[int] = Newest()
    assert place.take(0) is None
    for number in range(4):
        place.put(number)
    assert place.take(0) == 3
    assert place.dropped == 3
    place.close()
    assert place.closed


@pytest.mark.parametrize("marked", [True, False])
def test_performer_moves_the_portrait_and_marks_it(
    opened: OpenedPortrait, portrait: Image, marked: bool
) -> None:
    performer = Performer(opened, size=SIZE, marked=marked, strength=1.0)
    for _ in range(14):
        at_rest = performer.perform(scene(portrait, [(60, 20, 200)]), 0.04)
    assert not performer.waiting
    moved = at_rest
    for step in range(1, 4):
        moved = performer.perform(scene(portrait, [(60 + 8 * step, 20, 200)]), 0.04)
    performer.close()
    assert moved.shape == (SIZE, SIZE, 3)
    assert np.abs(moved.astype(int) - at_rest).mean() > 2
    plain = opened.source.crop.cut(opened.source.picture, SIZE)
    corner = np.abs(at_rest.astype(int) - plain)[-SIZE // 16 :, : SIZE // 2]
    assert (corner.max() > 60) == marked


def test_camera_without_a_face_shows_the_portrait(opened: OpenedPortrait) -> None:
    performer = Performer(opened, size=SIZE, marked=False, strength=1.0)
    picture = performer.perform(np.full((240, 320, 3), 90, np.uint8), 0.04)
    performer.close()
    assert not performer.face_seen
    plain = opened.source.crop.cut(opened.source.picture, SIZE)
    assert np.abs(picture.astype(int) - plain).mean() < 2


def test_a_portrait_may_be_turned_besides(
    engine: Engine, opened: OpenedPortrait, portrait_path: Path
) -> None:
    turn = DriveOptions(yaw=12).turn
    blank = np.full((240, 320, 3), 90, np.uint8)
    turned = open_portrait(engine, portrait_path, size=SIZE, turn=turn)
    pictures = []
    for each in (opened, turned):
        performer = Performer(each, size=SIZE, marked=False, strength=1.0)
        pictures.append(performer.perform(blank, 0.04).astype(int))
        performer.close()
    assert np.abs(pictures[1] - pictures[0]).mean() > 2


@asynccontextmanager
async def served(
    engine: Engine, opened: OpenedPortrait, **options: object
) -> AsyncGenerator[tuple[str, LiveServer]]:
    server = LiveServer(engine, opened, LiveOptions(size=SIZE, **options))  # type: ignore[arg-type]
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()
    running = asyncio.create_task(server.run(ready=address.set_result, until=done))
    try:
        yield await asyncio.wait_for(address, 10), server
    finally:
        done.set()
        await asyncio.wait_for(running, 20)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def timed() -> None:
        await asyncio.wait_for(story(), 60)

    asyncio.run(timed())


def page(address: str) -> connect:
    return connect(address.replace("http", "ws") + "socket", max_size=None)


async def picture(socket: ClientConnection, frame: Image) -> Image:
    """The picture for a frame, among what else is told."""
    await socket.send(bytes([FRAME]) + STAMP + encoded(frame))
    while True:
        message = await socket.recv()
        if isinstance(message, bytes):
            assert message[:9] == bytes([FRAME]) + STAMP
            shown = decoded(message[9:])
            assert shown is not None
            return shown


async def told(socket: ClientConnection, word: str) -> dict[str, object]:
    while True:
        message = await socket.recv()
        if isinstance(message, str) and word in (said := json.loads(message)):
            return said


async def fetched(address: str) -> tuple[int, bytes]:
    def get() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    return await asyncio.to_thread(get)


def test_nothing_is_told_without_the_token(engine: Engine, opened: OpenedPortrait) -> None:
    async def story() -> None:
        async with served(engine, opened) as (address, server):
            assert address.startswith("http://127.0.0.1:")
            status, body = await fetched(address)
            assert status == 200
            assert b"metaportrait live" in body
            stranger = address.replace(server.token, "x" * len(server.token))
            assert (await fetched(stranger))[0] == 404
            assert (await fetched(address + "recording/none.mp4"))[0] == 404
            with pytest.raises(InvalidStatus):
                await page(stranger)

    run(story)


def test_frames_go_in_and_pictures_come_back(
    engine: Engine, opened: OpenedPortrait, portrait: Image
) -> None:
    frame = scene(portrait, [(60, 20, 200)])

    async def story() -> None:
        async with served(engine, opened) as (address, server):
            async with page(address) as first, page(address) as second:
                assert (await told(first, "camera"))["camera"] == "browser"
                for _ in range(13):
                    shown = await picture(first, frame)
                assert shown.shape == (SIZE, SIZE, 3)
                assert (await told(first, "state"))["state"] in ("live", "look straight, at rest")
                # Two pages are two persons.
                await picture(second, frame)
                assert (await told(second, "state"))["state"] != "live"
                # Nonsense is passed over.
                for message in ("{", '{"strength": "much"}', "[]", b"", b"\x01short", b"\x07"):
                    await first.send(message)
                await first.send(bytes([FRAME]) + STAMP + b"not a picture")
                await picture(first, frame)
            # Closed in the midst: others come in.
            async with page(address) as third:
                await picture(third, frame)
            assert not server._watchers or len(server._watchers) <= 1

    run(story)


def test_record_and_download(
    engine: Engine, opened: OpenedPortrait, portrait: Image, tmp_path: Path
) -> None:
    frame = scene(portrait, [(60, 20, 200)])

    async def story() -> None:
        async with served(engine, opened) as (address, _), page(address) as socket:
            await picture(socket, frame)
            await socket.send(json.dumps({"record": True}))
            for _ in range(6):
                await picture(socket, frame)
                await asyncio.sleep(0.04)
            await socket.send(json.dumps({"record": False}))
            name = (await told(socket, "recorded"))["recorded"]
            status, body = await fetched(f"{address}recording/{name}")
            assert status == 200
            (tmp_path / "got.mp4").write_bytes(body)

    run(story)
    with av.open(str(tmp_path / "got.mp4")) as container:
        assert container.metadata["comment"] == MARK
        assert sum(1 for _ in container.decode(video=0)) >= 5


def test_source_is_changed_while_running(
    engine: Engine, opened: OpenedPortrait, portrait: Image
) -> None:
    frame = scene(portrait, [(60, 20, 200)])
    mirrored = np.ascontiguousarray(portrait[:, ::-1])

    async def story() -> None:
        async with served(engine, opened) as (address, _), page(address) as socket:
            before = await picture(socket, frame)
            await socket.send(bytes([PICTURE_FILE]) + b"nothing")
            assert "not a picture" in str((await told(socket, "error"))["error"])
            await socket.send(bytes([PICTURE_FILE]) + encoded(np.full_like(portrait, 90)))
            assert "no face" in str((await told(socket, "error"))["error"])
            await socket.send(bytes([PICTURE_FILE]) + encoded(mirrored))
            await told(socket, "source")
            after = await picture(socket, frame)
        plain = before[: SIZE // 2].astype(int)
        assert np.abs(after[: SIZE // 2] - plain).mean() > 5
        assert np.abs(after[: SIZE // 2, ::-1] - plain).mean() < 10

    run(story)


def test_clip_as_camera_is_shown_to_all_pages(
    engine: Engine, opened: OpenedPortrait, portrait: Image, tmp_path: Path
) -> None:
    frames = [scene(portrait, [(60, 20, 200)])] * 5
    clip = write_clip(tmp_path / "camera.mp4", frames)

    async def story() -> None:
        async with (
            served(engine, opened, camera=str(clip)) as (address, _),
            page(address) as first,
            page(address) as second,
        ):
            assert (await told(first, "camera"))["camera"] == "this machine"
            for socket in (first, second):
                message = await socket.recv()
                while isinstance(message, str):
                    message = await socket.recv()
                assert decoded(message[1:]) is not None

    run(story)


def test_cameras_that_are_none(
    tmp_path: Path, portrait: Image, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MediaError, match="neither a camera's number"):
        frames_of(str(tmp_path / "nothing.mp4"))
    with pytest.raises(MediaError, match="can't be opened"):
        frames_of("http://127.0.0.1:9/nothing")
    with pytest.raises(MediaError, match="no such camera"):
        frames_of("99")
    assert capfd.readouterr().err == ""
    write_still(tmp_path / "photo.png", portrait)
    with pytest.raises(MediaError, match="still image"):
        frames_of(str(tmp_path / "photo.png"))
    clip = write_clip(tmp_path / "clip.mp4", [scene(portrait, [(60, 20, 200)])] * 2)
    assert len(list(islice(frames_of(str(clip)), 5))) == 5


def test_stage_that_ended_keeps_nobody_waiting(engine: Engine, opened: OpenedPortrait) -> None:
    broken = replace(opened, renderer=None)  # type: ignore[arg-type]

    async def story() -> None:
        async with served(engine, broken) as (address, _), page(address) as socket:
            while "stopped" not in str((await told(socket, "state"))["state"]):
                pass
            await socket.send('{"record": false}')
            assert (await told(socket, "error"))["error"] == NOTHING

    run(story)


def test_what_goes_wrong_with_a_recording_is_told_at_its_end(tmp_path: Path) -> None:
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    recorder = Recorder(size=SIZE)
    assert recorder.end() == NOTHING
    recorder.begin(tmp_path / "nowhere" / "deep" / "a.mp4")
    recorder.add(picture, 0.0)
    assert not recorder.active
    assert "doesn't exist" in str(recorder.end())
    recorder.begin(tmp_path / "a.mp4")
    recorder.add(picture, 0.0)
    recorder.begin(tmp_path / "b.mp4")  # another page: the first one goes on
    recorder.add(picture, 0.1)
    assert recorder.end() == tmp_path / "a.mp4"
    recorder.begin(tmp_path / "c.mp4")
    recorder.add(picture, 0.0)
    recorder.give_up()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_options_and_places_are_checked(portrait_path: Path) -> None:
    with pytest.raises(UsageError, match="strength"):
        LiveOptions(strength=4)
    with pytest.raises(UsageError, match="size"):
        LiveOptions(size=63)
    with pytest.raises(UsageError, match="either"):
        run_live(None, LiveOptions(), ready=print, on_notice=print)
    notes: list[str] = []
    with pytest.raises(UsageError, match=r"`host` 192\.0\.2\.1"):
        run_live(
            portrait_path,
            LiveOptions(host="192.0.2.1", size=SIZE),
            weights="none",
            ready=print,
            on_notice=notes.append,
        )
    assert "not encrypted" in notes[0]
