"""What files of ours say they hold: the names that a renderer is found by, known without torch."""

from __future__ import annotations

from typing import Final

COMPACT: Final = "compact"
"""Networks of flow, mouth and eyes, any of them."""
COMPACT_SR: Final = "compact_sr"
"""Temporal super-resolution; also the name of its part, and of its file in the manifest."""
RELEASED: Final = "metaportrait-released"
"""The paper's networks, converted."""
FEWSHOT: Final = "fewshot"
"""Few-shot talking heads: embedder and generator."""
MEGA: Final = "mega"
"""MegaPortraits: the base model, and its enhancer if there is one."""
GAZE: Final = "mega-gaze"
"""What tells how eyes look, for the training of those."""
STUDENT: Final = "student"
"""One person, learnt from another renderer: network and portrait in one file."""
PORTRAIT: Final = "portrait"
"""One person; not weights, but a file beside them."""
