"""What `weights` names: the registry of renderers, each opened on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from metaportrait_cli.devices import check_names, choose, keep_freed_memory, plainly_cpu
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.weights import architectures, resolve
from metaportrait_cli.weights.download import sha256_of
from metaportrait_cli.weights.tensors import read_header

if TYPE_CHECKING:
    import torch

COPY: Final = "copy"
NONE: Final = "none"
DEFAULT: Final = "compact"
"""The bundled networks"""

# Renderers without weights: their module's `without_weights(on_notice)` gives a Rendering. These
# are names.
PLAIN: Final = {
    NONE: "warped",
    COPY: "copied",
}
# Renderers of files: their module's `from_file(opening)` does. These are architectures.
OF_FILES: Final = {
    architectures.COMPACT: "compact",
    architectures.RELEASED: "released.portrait",
    architectures.FEWSHOT: "fewshot",
    architectures.MEGA: "mega.portrait",
    architectures.STUDENT: "painted.student",
}


def check_usable(name: str, *, device: str, precision: str) -> None:
    """Raises at once, before anything is loaded, what `rendering_named` would for a name, for a
    file that is no weights, and for a device that isn't there."""
    check_names(device, precision)
    if name not in PLAIN:
        _usable_file(name)
    if device not in ("auto", "cpu"):
        choose(device, precision)


def _usable_file(name: str) -> tuple[Path, str]:
    """The file, and its architecture."""
    path = resolve(Path(name) if Path(name).exists() else name)
    architecture = read_header(path).architecture
    if architecture not in OF_FILES:
        raise WeightsError(f"{path}: holds {architecture}, which can't animate a portrait")
    return path, architecture


def rendering_named(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    deltas: Mapping[str, torch.Tensor] | None = None,
    check: Callable[[Path | None], None] = lambda _path: None,
    on_notice: Callable[[str], None] = lambda _text: None,
    on_progress: Progress = silent,
) -> Rendering:
    """`none` is the analytic warp, `copy` the source itself; else a name, path or `hf://` spec.

    `check` may refuse the file before it is read, or `None` where there is none; for the rest see
    `Opening`. Raises `UsageError` for unknown settings and `WeightsError` for weights that can't
    be had or used.
    """
    check_names(device, precision)
    if name in PLAIN:
        check(None)
        return import_module(f"metaportrait_cli.render.{PLAIN[name]}").without_weights(on_notice)
    path, architecture = _usable_file(name)
    check(path)
    # torch takes seconds to import, and not all need it.
    chosen, exactness = "cpu", "float32"
    if not plainly_cpu(device, precision):
        chosen, dtype = choose(device, precision)
        exactness = str(dtype).removeprefix("torch.")
    if chosen == "cpu" and architecture != architectures.COMPACT:
        keep_freed_memory()
    opening = Opening(
        path=path,
        device=chosen,
        precision=exactness,
        exact=precision != "auto",
        deltas=deltas or {},
        on_notice=on_notice,
        on_progress=on_progress,
    )
    module = import_module(f"metaportrait_cli.render.{OF_FILES[architecture]}")
    rendering: Rendering = module.from_file(opening)
    return replace(rendering, weights={path.name: sha256_of(path)})
