"""The page: a browser's camera or this machine's goes in, pictures come back.

Everything lies under a path that begins with a token, made anew for each run: who doesn't know the
address gets nothing, neither another user of the machine nor a page of another site. Messages over
the socket are binary, one byte that tells their kind and a payload, or JSON.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any

from metaportrait_cli.errors import MediaError, MetaPortraitError, UsageError
from metaportrait_cli.media.stills import is_still
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.live.cameras import CameraThread
from metaportrait_cli.pipeline.live.performer import OpenedPortrait, Performer, open_portrait
from metaportrait_cli.pipeline.live.stage import Shot, Shown, Stage

try:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError:
    raise UsageError(
        "live needs the package websockets: pip install 'metaportrait-cli[live]'"
    ) from None

FRAME, PICTURE_FILE = 1, 2
"""Kinds of binary messages from the page: its camera's frame (stamp of 8 bytes, JPEG), and a
picture to take as source."""
STAMP_BYTES = 8
LARGEST_MESSAGE = 32 << 20
MOST_PAGES = 4
"""At a time; each shares the processor with the others."""
STATUS_SECONDS = 0.5
PATIENCE_SECONDS = 20
POLICY = "default-src 'self' 'unsafe-inline' blob: data:; frame-ancestors 'none'"


@dataclass(frozen=True)
class LiveOptions:
    """Settings of one run; see the command's help for what users are told."""

    camera: str | None = None
    """A camera of this machine, see `cameras.frames_of`; `None` leaves it to the browser's."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any that is free."""
    size: int = 512
    strength: float = 1.0
    marked: bool = True
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """By which the head is turned besides, see `DriveOptions.turn`"""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 3:
            raise UsageError(f"`strength` {self.strength} is not between 0 and 3")
        if self.size % 2 or not 64 <= self.size <= 1024:
            raise UsageError(f"`size` {self.size} is not an even number between 64 and 1024")


class Watcher:
    """One page: what is shown to it next, and what it is told."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._newest: Shown | None = None

    def show(self, shown: Shown) -> None:
        """From any thread; replaces what has not been sent yet."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, shown)

    def _take(self, shown: Shown) -> None:
        self._newest = shown
        self._changed.set()

    async def send_pictures(self) -> None:
        """As fast as the page takes them, until it is closed."""
        with suppress(ConnectionClosed):
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._newest is not None:
                    await self.socket.send(bytes([FRAME]) + self._newest.stamp + self._newest.jpeg)

    async def tell(self, **what: Any) -> None:
        """A message in words and numbers."""
        await self.socket.send(json.dumps(what))


class LiveServer:
    """Pages that watch a portrait under a camera."""

    def __init__(self, engine: Engine, portrait: OpenedPortrait, options: LiveOptions) -> None:
        self.token = secrets.token_urlsafe(16)
        self._engine = engine
        self._portrait = portrait
        self._options = options
        self._watchers: set[Watcher] = set()
        self._recordings: dict[str, Path] = {}
        self._opening = asyncio.Lock()  # the engine serves one at a time
        self._shared: Stage | None = None
        self._camera: CameraThread | None = None
        page = resources.files("metaportrait_cli.pipeline.live").joinpath("page.html")
        self._page = page.read_bytes()

    async def run(self, *, ready: Callable[[str], None], until: asyncio.Event) -> None:
        """Serves until the event; `ready` is called with the page's address.

        Raises `UsageError` for a host or port that can't be had, `MediaError` for a camera.
        """
        options = self._options
        with tempfile.TemporaryDirectory(prefix="metaportrait-live-") as name:
            self._folder = Path(name)
            try:
                server = await serve(
                    self._converse,
                    options.host,
                    options.port,
                    process_request=self._answer,
                    max_size=LARGEST_MESSAGE,
                    compression=None,  # pictures are compressed already
                    ping_timeout=PATIENCE_SECONDS,
                )
            except (OSError, UnicodeError) as error:  # the latter for what can't be a name
                reason = getattr(error, "strerror", "there is no such name")
                raise UsageError(f"`host` {options.host} `port` {options.port}: {reason}") from None
            async with server:
                if options.camera is not None:
                    self._shared = self._stage(self._show_all)
                    self._camera = CameraThread(options.camera, self._shared.inbox)
                    self._shared.start()
                    self._camera.start()
                port = next(iter(server.sockets)).getsockname()[1]
                host = f"[{options.host}]" if ":" in options.host else options.host
                ready(f"http://{host}:{port}/{self.token}/")
                try:
                    await until.wait()
                finally:
                    if self._camera is not None:
                        self._camera.stop()
                    if self._shared is not None:
                        await asyncio.to_thread(self._shared.stop)

    def _stage(self, publish: Callable[[Shown], None]) -> Stage:
        options = self._options

        def make() -> Performer:
            return Performer(
                self._portrait,
                size=options.size,
                marked=options.marked,
                strength=options.strength,
            )

        return Stage(make, publish, size=options.size)

    def _show_all(self, shown: Shown) -> None:
        for watcher in list(self._watchers):
            watcher.show(shown)

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        """The page and finished recordings; `None` lets the socket be opened."""
        path = request.path.split("?")[0].strip("/").split("/")
        if not hmac.compare_digest(path[0].encode(), self.token.encode()):
            return _response(HTTPStatus.NOT_FOUND, b"no such page\n", "text/plain")
        if path[1:] == ["socket"]:
            return None
        if not path[1:]:
            return _response(HTTPStatus.OK, self._page, "text/html; charset=utf-8")
        recording = self._recordings.get(path[-1])
        if recording is None:
            return _response(HTTPStatus.NOT_FOUND, b"no such recording\n", "text/plain")
        return _response(HTTPStatus.OK, recording.read_bytes(), "video/mp4")

    async def _converse(self, socket: ServerConnection) -> None:
        """With one page, until it is closed."""
        watcher = Watcher(socket)
        if len(self._watchers) >= MOST_PAGES:
            await watcher.tell(error=f"{MOST_PAGES} pages are open already; close one")
            return
        self._watchers.add(watcher)
        stage = self._shared
        if stage is None:
            stage = self._stage(watcher.show)
            stage.start()
        tasks = [
            asyncio.create_task(watcher.send_pictures()),
            asyncio.create_task(self._tell_status(watcher, stage)),
        ]
        try:
            await watcher.tell(
                camera="this machine" if self._shared else "browser",
                strength=self._options.strength,
                source=self._portrait.name,
            )
            async for message in socket:
                await self._heed(watcher, stage, message)
        except ConnectionClosed:
            pass
        finally:
            self._watchers.discard(watcher)
            for task in tasks:
                task.cancel()
            if stage is not self._shared:
                await asyncio.to_thread(stage.stop)

    async def _tell_status(self, watcher: Watcher, stage: Stage) -> None:
        with suppress(ConnectionClosed):
            while True:
                status = stage.status()
                if self._camera is not None and self._camera.error is not None:
                    status["state"] = self._camera.error
                await watcher.tell(**status)
                await asyncio.sleep(STATUS_SECONDS)

    async def _heed(self, watcher: Watcher, stage: Stage, message: str | bytes) -> None:
        """What a page says; nonsense is passed over."""
        if isinstance(message, bytes):
            kind, payload = message[0] if message else 0, message[1:]
            if kind == FRAME and self._shared is None and len(payload) > STAMP_BYTES:
                stage.inbox.put(Shot(payload[STAMP_BYTES:], stamp=payload[:STAMP_BYTES]))
            elif kind == PICTURE_FILE:
                await self._change_source(watcher, stage, payload)
            return
        try:
            said = json.loads(message)
            strength = float(said.get("strength", -1))
        except (ValueError, TypeError, AttributeError):
            return
        if 0 <= strength <= 3:
            stage.order(lambda performer: setattr(performer, "strength", strength))
        if said.get("reference"):
            stage.order(Performer.take_reference)
        if said.get("record") is True:
            stage.start_recording(self._folder / f"live-{secrets.token_hex(4)}.mp4")
        elif said.get("record") is False:
            finished: Future[Path | str] = Future()
            finished.set_running_or_notify_cancel()  # it comes, although the page may have gone
            stage.stop_recording(finished.set_result)
            recorded = await asyncio.wrap_future(finished)
            if isinstance(recorded, str):
                await watcher.tell(error=recorded)
                return
            self._recordings[recorded.name] = recorded
            await watcher.tell(recorded=recorded.name)

    async def _change_source(self, watcher: Watcher, stage: Stage, file: bytes) -> None:
        try:
            async with self._opening:
                portrait = await asyncio.to_thread(self._opened, file)
        except (MetaPortraitError, OSError) as error:
            await watcher.tell(error=str(error))
            return
        stage.order(lambda performer: performer.show(portrait))
        await watcher.tell(source=portrait.name)

    def _opened(self, file: bytes) -> OpenedPortrait:
        """What a page has sent, read as other photos are."""
        options = self._options
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            path = Path(name, "picture")
            path.write_bytes(file)
            try:
                if not is_still(path):
                    raise MediaError(f"{path} is not a picture: choose a photo")
                return open_portrait(self._engine, path, size=options.size, turn=options.turn)
            except MetaPortraitError as error:
                raise type(error)(str(error).replace(str(path), "that file")) from None


def _response(status: HTTPStatus, body: bytes, kind: str) -> Response:
    headers = Headers(
        {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",  # the address is the key
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": POLICY,
        }
    )
    return Response(status.value, status.phrase, headers, body)
