"""What goes into convolutions of the bundled networks, as measured on people they learnt from."""

from __future__ import annotations

import json
from functools import cache

from metaportrait_cli.weights.manifest import bundled_folder

RANGES = "ranges.json"


@cache
def known_ranges() -> dict[str, float]:
    """The largest that goes into a convolution, by the key of its weights; others have none."""
    try:
        listed = json.loads((bundled_folder() / RANGES).read_text())
        return {key: float(value) for part in listed.values() for key, value in part.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # then all is computed with fractions
