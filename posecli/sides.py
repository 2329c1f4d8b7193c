"""Left and right in the names of keypoints, whatever the style of the names."""

import re
from collections.abc import Callable, Sequence

# Words for left and right, anywhere in a name.
_WORDS = (
    ("left", "right"),
    ("links", "rechts"),
    ("gauche", "droite"),
    ("izquierda", "derecha"),
    ("izquierdo", "derecho"),
    ("sinistra", "destra"),
    ("sinistro", "destro"),
    ("esquerda", "direita"),
    ("esquerdo", "direito"),
    ("左", "右"),
)
# Abbreviations as separate parts of a name: l_eye, eye.L, "L Shoulder", LShoulder, kneeRt.
_PARTS = (("l", "r"), ("lt", "rt"), ("lft", "rgt"), ("li", "re"), ("izq", "der"), ("sx", "dx"))
# In parts of two letters one is a side and the other one of these: front, hind, back, fore, middle, upper, lower ...
_OTHERS = "fhbmuaei"
# Stems of names like rank or lsho, whose first or last letter is a side.
_STEMS = re.compile(
    "ank|kne|hip|sho|elb|wri|eye|ear|han|foo|fee|toe|hee|paw|leg|arm|thi|shi|cal|thu|ind|fin|wing|horn|che|nos|bro|"
    "mou|jaw|nec|clav|scap|pelv|fem|tib|tar|hoof|hock|stif|knu|pal|sol|bigt|smallt"
)
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]", re.UNICODE)

Swap = Callable[[str], tuple[str, str] | None]


def find_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs (left, right) of indices of names that differ only in their side.

    Styles are tried in this order: words (left_eye, eyeLeft), parts of a name (LEye, eye.L, paw1LH), a letter at the
    beginning or end (rank, eyel). The last one needs three pairs in the set, or a stem that is a part of the body: nail
    and nair are not a pair. Nor are l and r among keypoints named by the letters of the alphabet.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name, place)
    free = set(places)
    pairs: list[tuple[int, int]] = []
    for swap, glued in ((_swap_words, False), (_swap_parts, False), (_swap_first, True), (_swap_last, True)):
        found = _pairs_of(free, swap)
        if glued and len(found) < 3 and not any(_is_stem(name, swap) for name, _ in found):
            continue
        if swap is _swap_parts:
            found = [pair for pair in found if not _is_of_alphabet(pair[0], names)]
        for left, right in found:
            free -= {left, right}
            pairs.append((places[left], places[right]))
    return tuple(sorted(pairs))


def _pairs_of(names: set[str], swap: Swap) -> list[tuple[str, str]]:
    """(left, right) names of which one is the other with sides swapped."""
    # Compared ignoring letter case and separators: L_Eye and r_eye are a pair.
    readings: dict[str, list[str]] = {}
    for name in names:
        readings.setdefault(_plain(name), []).append(name)
    found = []
    for name in sorted(names):
        swapped = swap(name)
        if swapped is None or swapped[0] != "left":
            continue
        others = [other for other in readings.get(_plain(swapped[1]), []) if other != name]
        if len(others) == 1 and len(readings[_plain(name)]) == 1:
            found.append((name, others[0]))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip()).casefold()


def side_of(name: str) -> str:
    """'left' or 'right' where the name contains the word, else 'middle'."""
    parts: list[str] = _SPLIT.findall(name)
    for part in (part.casefold() for part in parts):
        if part in ("left", "right"):
            return part
    for side in ("left", "right"):
        if name.casefold().startswith(side):
            return side
    return "middle"


def _swap_words(name: str) -> tuple[str, str] | None:
    """(side, mirrored name) by the words for left and right in the name, all of which are swapped."""
    lower = name.casefold()
    for left, right in _WORDS:
        if left not in lower and right not in lower:
            continue
        first = min((lower.find(word), side) for word, side in ((left, "left"), (right, "right")) if word in lower)
        swapped = re.sub(f"{left}|{right}", lambda m, a=left, b=right: b if m[0] == a else a, lower)  # type: ignore[misc]
        return first[1], swapped
    return None


def _swap_parts(name: str) -> tuple[str, str] | None:
    """The same by a separate part of the name (by punctuation or letter case) that denotes a side."""
    # The part nearest to an end denotes the side: in "R leg L2" the first one.
    spans = [m.span() for m in _SPLIT.finditer(name)]
    order = sorted(range(len(spans)), key=lambda i: (min(i, len(spans) - 1 - i), i))
    for place in order:
        first, last = spans[place]
        part = name[first:last]
        swapped = _swap_part(part)
        if swapped is not None:
            side, other = swapped
            return side, name[:first] + other + name[last:]
    return None


def _swap_part(part: str) -> tuple[str, str] | None:
    lower = part.casefold()
    for left, right in _PARTS:
        if lower == left:
            return "left", right
        if lower == right:
            return "right", left
    # LH, FR, but neither HIND nor RHIND: two letters, for side and position.
    if len(lower) == 2:
        for at, beside in ((0, 1), (1, 0)):
            if lower[at] in "lr" and lower[beside] in _OTHERS:
                side, other = ("left", "r") if lower[at] == "l" else ("right", "l")
                return side, lower[:at] + other + lower[at + 1 :]
    return None


def _is_of_alphabet(name: str, names: Sequence[str]) -> bool:
    """Whether the letter is part of an enumeration, not a side: kp_l beside kp_k and kp_m."""
    for span in (m.span() for m in _SPLIT.finditer(name)):
        if name[span[0] : span[1]].casefold() == "l":
            before, after = re.escape(name[: span[0]]), re.escape(name[span[1] :])
            alike = re.compile(f"{before}([a-z]){after}", re.IGNORECASE)
            letters = {found[1].casefold() for other in names if (found := alike.fullmatch(other))}
            return len(letters - set("lrmc")) > 1
    return False


def _swap_first(name: str) -> tuple[str, str] | None:
    if len(name) < 3 or name[0] not in "lrLR" or not name[1].isalpha():
        return None
    side, other = ("left", "r") if name[0] in "lL" else ("right", "l")
    return side, other + name[1:]


def _swap_last(name: str) -> tuple[str, str] | None:
    if len(name) < 3 or name[-1] not in "lrLR" or not name[-2].isalpha():
        return None
    side, other = ("left", "r") if name[-1] in "lL" else ("right", "l")
    return side, name[:-1] + other


def _is_stem(name: str, swap: Swap) -> bool:
    rest = (name[1:] if swap is _swap_first else name[:-1]).casefold()
    return _STEMS.match(rest) is not None
