"""Renames, joins and checks tensors on their way from a released checkpoint into our networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from metaportrait_cli.weights.store import check_tensors

KeyMap = dict[str, tuple[str, ...]]
"""Our key -> the released keys whose tensors, equally wide, joined along the first axis, make it"""


def apply_key_map(
    state: Mapping[str, Tensor],
    key_map: KeyMap,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    unused: Collection[str] = (),
    where: str,
) -> dict[str, Tensor]:
    """Tensors under our names, in float32.

    ``shapes`` are our network's. The released file must hold exactly the keys of the map and
    those ``unused`` (known, without influence on the output), in the right shapes; else
    WeightsError in the file's own names.
    """
    wanted = {key: tuple(state[key].shape) if key in state else () for key in unused}
    for key, sources in key_map.items():
        first, *rest = shapes[key] or (1,)
        wanted |= dict.fromkeys(sources, (first // len(sources), *rest) if shapes[key] else ())
    check_tensors(
        found={key: tuple(value.shape) for key, value in state.items()},
        wanted=wanted,
        where=where,
    )
    return {
        key: torch.cat([state[source].float() for source in sources])
        if len(sources) > 1
        else state[sources[0]].float().contiguous()
        for key, sources in key_map.items()
    }
