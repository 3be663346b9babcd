"""Whether a result's face is where it should be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology


def landmark_distance(
    result: NDArray[np.float32], wanted: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean distance of face points in percent of the distance between the pupils, (T,).

    Siarohin et al., NeurIPS 2019 (AKD), with points found in the result again: (T, 478, 3) both,
    depth ignored. The detector's own noise is about 1.
    """
    eyes = wanted[:, [iris[0] for iris in topology.IRISES], :2]
    unit = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)
    distance = np.linalg.norm(result[..., :2] - wanted[..., :2], axis=-1).mean(-1)
    return (100 * distance / unit).astype(np.float32)
