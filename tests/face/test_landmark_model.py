"""What the landmark network is shown."""

import cv2
import numpy as np

from metaportrait_cli.face.landmark_model import SIDE, FaceSquare, _Cutting


def test_a_square_is_cut_as_of_the_whole_picture() -> None:
    random = np.random.default_rng(0)
    cutting = _Cutting()
    for height, width in [(90, 160), (160, 90)]:
        for _ in range(20):
            picture = random.integers(0, 256, (height, width, 3), np.uint8)
            centre = random.uniform(-0.3, 1.3, 2) * (width, height)
            square = FaceSquare(centre, random.uniform(10, 300), random.normal())
            expected = cv2.warpAffine(
                picture,
                square.to_picture(),
                (SIDE, SIDE),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            assert (cutting(picture, square.to_picture()) == expected).all()
