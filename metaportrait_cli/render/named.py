"""What `--weights` names: the renderer, the enhancer after it if there is one, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from metaportrait_cli.devices import check_names, choose
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.pipeline.person.portrait_file import Portrait
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.copied import CopyRenderer
from metaportrait_cli.render.protocol import Enhancer, Renderer
from metaportrait_cli.render.warped import WarpRenderer

COPY = "copy"
NONE = "none"
DEFAULT = "compact"
"""The bundled networks"""


@dataclass(frozen=True)
class Rendering:
    """A renderer ready for use, what follows it, and the sha256 of each file it was read from."""

    renderer: Renderer
    enhancer: Enhancer | None = None
    weights: dict[str, str] = field(default_factory=dict)


def rendering_named(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    person: Portrait | None = None,
    on_notice: Callable[[str], None] = lambda _text: None,
    on_progress: Progress = silent,
) -> Rendering:
    """`none` is the analytic warp, `copy` the source itself; else a name, path or `hf://` spec.

    A `person` brings adapted weights, and must have been made for those that are named.

    `on_notice` hears what the user should know of these weights, `on_progress` of what takes long
    before the first frame. Raises `UsageError` for unknown
    settings and `WeightsError` for weights that can't be had or used.
    """
    check_names(device, precision)
    if name in (NONE, COPY):
        if person is not None:
            person.base.check(None, portrait=person.source.path)
        return Rendering(WarpRenderer() if name == NONE else CopyRenderer())
    # Networks need torch, which takes seconds to import; the analytic warp doesn't.
    from metaportrait_cli.convert.released import ARCHITECTURE as RELEASED  # noqa: PLC0415
    from metaportrait_cli.devices import keep_freed_memory  # noqa: PLC0415
    from metaportrait_cli.render.compact import ARCHITECTURE as COMPACT  # noqa: PLC0415
    from metaportrait_cli.render.compact import open_compact  # noqa: PLC0415
    from metaportrait_cli.render.released.portrait import open_released  # noqa: PLC0415
    from metaportrait_cli.weights import resolve  # noqa: PLC0415
    from metaportrait_cli.weights.store import read_header  # noqa: PLC0415

    path = resolve(Path(name) if Path(name).exists() else name)
    if person is not None:
        person.base.check(path, portrait=person.source.path)
    architecture = read_header(path).architecture
    chosen, dtype = choose(device, precision)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if chosen == "cpu":
        keep_freed_memory()
    renderer: Renderer
    enhancer: Enhancer | None = None
    if architecture == RELEASED:
        renderer, enhancer = open_released(
            path, device=chosen, dtype=dtype, on_notice=on_notice, on_progress=on_progress
        )
    elif architecture == COMPACT:
        deltas = person.deltas if person is not None else {}
        renderer = open_compact(path, deltas=deltas, device=chosen, dtype=dtype)
    else:
        raise WeightsError(f"{path}: holds {architecture}, which can't animate a portrait")
    return Rendering(renderer, enhancer, {path.name: digest})
