"""What a change of light does to a source's colours.

Skin in the shade is redder. A fold that opens becomes as bright as the skin around it, and gets its
colour; hair over the skin stays as it is, for it does not open. A highlight that goes leaves skin,
not grey: it gets the colour of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.render.shading.skin import DARKEST, Map

REDDENING: Final = 0.9
"""Over people a channel's light changes so much more or less than all light does, as a multiple of
how much darker or brighter, as a logarithm, skin is in it."""
FOLD: Final = (0.03, 0.1)
"""How much darker than the skin around, as a logarithm, a place is that counts as a fold: from the
second on it gets the colour from around."""
UNFOLDED: Final = 1.5
"""Times what the network lightens is shown in a source's fold: it tells roughly where a fold is, so
just there it lightens too little. Of people kept aside 1 to 4 % less of the change is missing; with
2 hardly less is, and they look less like themselves."""
GLARE: Final = (0.1, 0.3)
"""How much brighter than the face's skin, as a logarithm, a place is whose colour is the light's:
from the second on it darkens towards the face's colour."""
STAYING: Final = 0.5
"""Of a change on a highlight: it wanders over folding skin more than it goes."""
HAIR: Final = (0.35, 0.6)
"""How much darker hair is: from the second on it gets no lighter."""
BRIGHTER: Final = 0.1
"""Most by which skin may become brighter than it is around, as a logarithm"""
LEAST, GREATEST = 0.3, 2.0
"""Of a channel's share in a change"""
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Tint:
    """Of one source, on a grid (G, G) over its crop."""

    shade: Map
    """(G, G, 3) how much more red, green and blue change than all light, where it gets darker"""
    opened: Map
    """(G, G, 3) the same where it gets lighter"""
    room: Map
    """(G, G) how much lighter it may get, as a logarithm"""
    unfolding: Map
    """(G, G) times what lightens is shown"""
    lightest: NDArray[np.uint8]
    """(G, G, 3) what lightened skin may become: a bright pixel of a dark place has less room than
    its place, a lid's skin that was folded away has none"""

    @classmethod
    def of(cls, crop: NDArray[np.uint8], on_skin: NDArray[np.bool_], *, wide: float) -> Tint:
        """Of a crop (S, S, 3); `on_skin` (G, G) is where the mesh is, `wide` cells are around."""
        small = cv2.resize(crop, on_skin.shape[::-1], interpolation=cv2.INTER_AREA)
        colour = np.log(np.maximum(small.astype(np.float32), DARKEST))  # (G, G, 3)
        light = np.log(np.maximum(small @ LUMA, DARKEST))
        skin = on_skin.astype(np.float32)
        skin *= 1 - _hair(_around(light, skin, wide) - light)
        around = _around(colour, skin, wide)
        missing = around - colour
        fold = _around(light, skin, wide) - light
        middle = (skin[..., None] * colour).sum((0, 1)) / max(float(skin.sum()), 1e-3)
        overall = np.log(np.exp(middle) @ LUMA)
        reddened = np.clip(1 + REDDENING * (overall - middle), 0.5, 1.5)
        glare = light - overall
        fading = np.clip((colour - middle) / np.maximum(glare, FOLD[1])[..., None], LEAST, GREATEST)
        part = smoothstep((glare - GLARE[0]) / (GLARE[1] - GLARE[0]))[..., None]
        shade = (part * STAYING * fading + (1 - part) * reddened).astype(np.float32)
        share = smoothstep((fold - FOLD[0]) / (FOLD[1] - FOLD[0]))[..., None]
        towards = np.clip(missing / np.maximum(fold, FOLD[0])[..., None], LEAST, GREATEST)
        room = (np.maximum(fold, 0) + BRIGHTER) * (1 - _hair(fold))
        return cls(
            shade=shade,
            opened=(share * towards + (1 - share) * shade).astype(np.float32),
            room=room.astype(np.float32),
            unfolding=(1 + (UNFOLDED - 1) * share[..., 0]).astype(np.float32),
            lightest=np.exp(around + BRIGHTER).clip(0, 255).astype(np.uint8),
        )

    def of_change(self, change: Map) -> Map:
        """What a change of light (G, G), a logarithm, is for red, green and blue (G, G, 3)."""
        lighter = np.clip(change * self.unfolding, 0, self.room)
        parts = ((lighter, self.opened), (np.minimum(change, 0), self.shade))
        return cv2.add(*(cv2.multiply(cv2.merge([by] * 3), share) for by, share in parts))


def _hair(darker: Map) -> Map:
    return smoothstep((darker - HAIR[0]) / (HAIR[1] - HAIR[0]))


def _around(values: Map, weight: Map, sigma: float) -> Map:
    """Weighted means of values (G, G) or (G, G, 3) around each place."""
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    weighted = values * (weight if values.ndim == 2 else weight[..., None])
    held = cv2.GaussianBlur(weighted, (0, 0), sigma)
    share = np.maximum(share, 1e-3)
    return held / (share if values.ndim == 2 else share[..., None])
