"""`live`: from the command's options to pages that watch, until the user ends it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from metaportrait_cli.errors import UsageError
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.live.performer import open_portrait
from metaportrait_cli.pipeline.live.server import LiveOptions, LiveServer


def run_live(
    source: Path | None,
    options: LiveOptions,
    *,
    ready: Callable[[str], None],
    on_notice: Callable[[str], None],
    portrait: Path | None = None,
    weights: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Serves until it is interrupted; `ready` gets the page's address once it is there.

    Raises the errors of `metaportrait_cli.errors` for what can't be opened.
    """
    if (source is None) == (portrait is None):
        raise UsageError("give either `source` or `portrait`")
    if not _is_loopback(options.host):
        on_notice(
            f"`host` {options.host}: whoever reaches this machine and has the page's address can"
            " watch and send pictures; the connection is not encrypted"
        )
    with Engine(weights, device=device, precision=precision) as engine:
        opened = open_portrait(
            engine, source, portrait=portrait, size=options.size, turn=options.turn
        )
        server = LiveServer(engine, opened, options)

        async def serve() -> None:
            await server.run(ready=ready, until=asyncio.Event())

        with suppress(KeyboardInterrupt):  # the way to end it
            asyncio.run(serve())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
