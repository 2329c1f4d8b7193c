"""The colours of sides and of ids, the same in drawings and in the gallery."""

import re

from posecli.keypoints import KeypointSet

Colour = tuple[int, int, int]

# RGB, from the Okabe-Ito palette, which colour-blind people can distinguish: left blue, right orange.
COLOURS: dict[str, Colour] = {"left": (0, 158, 255), "right": (255, 140, 0), "middle": (64, 220, 120)}

# Visible on black and on white; neighbours differ in hue and lightness.
ID_COLOURS: tuple[Colour, ...] = (
    (255, 122, 26),
    (46, 170, 255),
    (246, 208, 48),
    (196, 110, 255),
    (48, 204, 126),
    (255, 92, 158),
    (0, 196, 196),
    (226, 62, 56),
    (168, 208, 60),
    (112, 122, 255),
    (222, 162, 112),
    (178, 178, 190),
)

# Names of keypoints of faces in the published sets.
_NUMBERED = re.compile(r"(?:face|kpt)-\d+")


def id_colour(track_id: int) -> Colour:
    """The colour of a track id, RGB; colours repeat after twelve ids."""
    return ID_COLOURS[(track_id - 1) % len(ID_COLOURS)]


def tint(colour: Colour, towards: Colour, share: float) -> Colour:
    """The colour interpolated towards another; share in [0, 1]."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, towards, strict=True))
    return red, green, blue


def side_colours(track_id: int | None) -> dict[str, Colour]:
    """Colours of left, right and middle: fixed ones, or shades of an id's, the right side lighter."""
    if track_id is None:
        return COLOURS
    colour = id_colour(track_id)
    return {"left": colour, "middle": colour, "right": tint(colour, (255, 255, 255), 0.5)}


def drawn_side(keypoint_set: KeypointSet, index: int) -> str:
    """The side in whose colour a keypoint is drawn.

    The pairs of the published sets' faces, whose keypoints are numbered, do not tell which one is the left one.
    """
    return "middle" if _NUMBERED.fullmatch(keypoint_set.names[index]) else keypoint_set.side(index)


def limb_side(keypoint_set: KeypointSet, limb: tuple[int, int]) -> str:
    """The side that a limb belongs to: that of its ends where they agree, or of the one that has a side."""
    sides = {drawn_side(keypoint_set, i) for i in limb} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def css(colour: Colour) -> str:
    """The colour in CSS and SVG notation."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
