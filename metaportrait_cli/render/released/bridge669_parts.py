"""Where the parts of the 669-point layout lie on the 478-point mesh: the table of the bridge.

Each part is a run of points of the layout on the person's left (image right), and a guide line on
the mesh along which they lie, evenly spaced. The other side follows by mirror symmetry. Which part
is which was read from the layout's connectivity, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Stop = int | tuple[int, float, float, float]
"""A mesh point, or one moved by (outward, up, back) in units of the face's width, height, width"""


@dataclass(frozen=True)
class Part:
    name: str
    points: tuple[int, ...]
    guide: tuple[Stop, ...]
    other: tuple[Stop, ...] = field(default=())
    """A second guide; the part runs between the two"""
    share: float = 0.5
    """Of the second guide"""
    exact: bool = False
    """One stop per point, instead of even spacing along the guide"""
    closed: bool = False


_LOWER_LID = (263, 249, 390, 373, 374, 380, 381, 382, 362)
_UPPER_LID = (362, 398, 384, 385, 386, 387, 388, 466, 263)
_IRIS = (473,) * 9
_UPPER_LIP = ((0, 267, 269, 270, 409, 291), (13, 312, 311, 310, 415, 308))
_LOWER_LIP = ((291, 375, 321, 405, 314, 17), (308, 324, 318, 402, 317, 14))
_BROW = ((417, 285, 295, 282, 283, 276), (417, 336, 296, 334, 293, 300))
_FOREHEAD = (
    (9, 336, 296, 334, 293, 300),
    (151, 337, 299, 333, 298, 301),
    (10, 338, 297, 332, 284, 251),
)
_MOUTH_RING = (327, 423, 426, 436, 432, 422, 424, 418, 421, 200)
_CHEEK_RING = (168, 465, 357, 350, 349, 348, 347, 346, 352, 376, 433, 416, 364, 394, 395, 369, 175)

# Where parts share a point, the earlier part places it: the better known ones come first.
PARTS: tuple[Part, ...] = (
    Part("lower lid", (191, 34, 33, 32, 193, 192, 23, 35), _LOWER_LID),
    Part("upper lid", (35, 184, 31, 30, 190, 29, 191), _UPPER_LID),
    Part("lower inner lid", (236, 82, 240, 87, 86, 238, 239), _LOWER_LID, _IRIS, 0.08),
    Part("upper inner lid", (239, 237, 85, 84, 83, 235, 236), _UPPER_LID, _IRIS, 0.08),
    Part(
        "below eye",
        (21, 232, 22, 36, 79, 78, 231, 234, 80),
        (359, 255, 339, 254, 253, 252, 256, 341, 463),
    ),
    Part(
        "above eye",
        (80, 233, 81, 62, 77, 230, 76, 229, 21),
        (463, 414, 286, 258, 257, 259, 260, 467, 359),
    ),
    Part(
        "lower orbit",
        (175, 20, 15, 16, 180, 18, 174, 19, 201),
        (446, 261, 448, 449, 450, 451, 452, 453, 464),
    ),
    Part(
        "upper orbit",
        (201, 181, 179, 178, 177, 17, 176, 182, 175),
        (464, 413, 441, 442, 443, 444, 445, 342, 446),
    ),
    Part("upper outer lip", (657, 1, 204, 209, 218, 60, 61), _UPPER_LIP[0]),
    Part("lower outer lip", (61, 43, 219, 220, 202, 88), _LOWER_LIP[0]),
    Part("upper inner lip", (637, 68, 222, 66, 67, 223, 75), _UPPER_LIP[1]),
    Part("lower inner lip", (75, 73, 72, 71, 228, 660), _LOWER_LIP[1]),
    Part("upper middle lip", (636, 69, 65, 64, 221, 63, 227), *_UPPER_LIP),
    Part("lower middle lip", (227, 226, 70, 225, 224, 74), *_LOWER_LIP),
    Part("brow", (167, 9, 6, 7, 207, 48, 49, 206, 164, 162, 198, 196, 208, 50, 186), *_BROW),
    Part("nose bridge", (653, 632, 630, 644, 654), (8, 168, 6, 195, 4), exact=True),
    Part("under nose", (654, 655, 656, 628, 629), (4, 1, 19, 94, 2), exact=True),
    Part("philtrum", (629, 633, 640, 657), (2, 164, 0)),
    Part("chin", (639, 661, 638, 643), (200, 199, 175, 152), exact=True),
    Part("forehead", (634, 658, 631, 659, 653), (9, 8)),
    Part("side of nose", (644, 119, 2, 242, 158, 89, 3, 159), (195, 281, 363, 360, 279)),
    Part("nose tip", (654, 26, 5, 28, 185, 159), (4, 275, 440, 344, 279)),
    Part("nose wing", (159, 4, 157, 165, 629), (279, 358, 327, 326, 2), exact=True),
    Part(
        "nostril",
        (0, 100, 189, 255, 161, 102, 27, 101, 160, 254),
        (250, 458, 459, 309, 392, 289, 305, 290),
        closed=True,
    ),
    Part("philtrum ridge", (165, 122, 1), (326, 393, 267)),
    Part("mouth ring", (157, 37, 210, 56, 214, 215, 44, 57, 216, 203, 639), _MOUTH_RING),
    Part(
        "outer cheek ring",
        (632, 163, 194, 183, 195, 51, 58, 59, 217, 45, 38, 46, 241, 638),
        _CHEEK_RING,
    ),
    Part(
        "inner cheek ring",
        (630, 8, 10, 168, 169, 13, 12, 170, 11, 14, 171, 172, 173, 661),
        _MOUTH_RING,
        _CHEEK_RING,
    ),
    Part("under eye", (167, 24, 166, 186), (417, 453, 449, 276), exact=True),
    Part("face side", (110, 25, 187, 188, 103, 104, 643), (251, 454, 361, 397, 379, 377, 152)),
    Part("temple", (186, 261, 257, 110), (300, 301, 298, 251), exact=True),
    Part(
        "forehead row 1",
        (634, 42, 39, 53, 52, 211, 47, 41, 199, 267, 266, 111, 261),
        *_FOREHEAD[:2],
    ),
    Part(
        "forehead row 2",
        (635, 212, 197, 54, 55, 213, 205, 200, 40, 260, 259, 258, 257),
        *_FOREHEAD[1:],
    ),
    Part(
        "forehead row 3",
        (641, 90, 91, 92, 243, 93, 244, 245, 268, 109, 108, 107, 110),
        _FOREHEAD[2],
    ),
    # From here on the mesh shows nothing: a rough head of usual proportions.
    Part(
        "crown",
        (411, 247, 248, 249, 250, 251, 252, 98, 253, 99),
        (
            (10, 0.0, 0.3, 0.2),
            (338, 0.05, 0.28, 0.25),
            (332, 0.05, 0.22, 0.35),
            (251, 0.12, 0.12, 0.4),
            (389, 0.12, 0.02, 0.3),
        ),
    ),
    Part("above ear", (99, 118, 274, 116, 115, 269, 25), ((389, 0.12, 0.02, 0.3), 454)),
    Part(
        "behind ear",
        (99, 262, 263, 113, 114, 264),
        ((389, 0.12, 0.02, 0.3), (454, 0.14, 0.0, 0.4), (361, 0.1, 0.0, 0.4)),
    ),
    Part("below ear", (187, 270, 276, 277, 264), (361, (361, 0.1, 0.0, 0.4))),
    Part("neck side", (264, 265), ((361, 0.1, 0.0, 0.4), (397, 0.06, -0.1, 0.4)), exact=True),
    Part("jaw row", (103, 272, 273, 120, 117), (379, (397, 0.0, -0.06, 0.15))),
    Part("jaw link", (117, 271, 188), ((397, 0.0, -0.06, 0.15), 397)),
    Part(
        "under the jaw",
        (662, 106, 256, 105, 112, 275, 121, 265),
        ((152, 0.0, -0.06, 0.1), (379, 0.0, -0.08, 0.2), (397, 0.06, -0.1, 0.4)),
    ),
    Part(
        "neck",
        (642, 95, 94, 96, 97, 279, 278, 246, 265),
        ((152, 0.0, -0.3, 0.2), (379, 0.05, -0.25, 0.25), (397, 0.06, -0.1, 0.4)),
    ),
    Part(
        "outer ear",
        (149, 284, 283, 285, 126, 129, 281, 125, 282, 280),
        (
            (454, 0.02, 0.08, 0.15),
            (454, 0.1, 0.14, 0.3),
            (454, 0.16, 0.0, 0.35),
            (454, 0.06, -0.14, 0.2),
            (454, 0.0, -0.18, 0.1),
        ),
    ),
    Part(
        "inner ear",
        (301, 148, 128, 127, 123, 124),
        ((454, 0.03, 0.05, 0.15), (454, 0.1, 0.02, 0.25), (454, 0.03, -0.1, 0.15)),
    ),
)

# Iris rim, clockwise in the image from the top: centre, outer, inner, upper, lower mesh point.
IRIS_POINTS = (150, 302, 303, 304, 305, 306, 151, 307, 152, 153, 154, 308, 155, 156, 309, 310)
IRIS_CENTRE, IRIS_OUTER, IRIS_INNER, IRIS_UPPER, IRIS_LOWER = 473, 474, 476, 475, 477
