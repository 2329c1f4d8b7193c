"""What a killed run leaves is read back to the bit, and no further than it stands."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.errors import UsageError
from posecli.results.journal import Journal, read_journal
from posecli.tracking.choose import person_choice
from posecli.types import Poses


def poses(count: int, seed: int = 0, *, ids: bool = False, joints: int = 17) -> Poses:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(0, 300, shape).astype(np.float32)

    return Poses(
        draw(count, joints, 2),
        draw(count, joints, 2),
        draw(count, joints),
        draw(count, 4),
        draw(count),
        draw(count),
        np.arange(1, count + 1) if ids else None,
    )


def same(a: Poses, b: Poses) -> bool:
    names = ("keypoints", "std", "scores", "boxes", "box_scores", "person_scores")
    equal = all(
        np.array_equal(getattr(a, n), getattr(b, n)) and getattr(a, n).dtype == getattr(b, n).dtype for n in names
    )
    ids = [None if p.track_ids is None else p.track_ids.tolist() for p in (a, b)]
    return equal and ids[0] == ids[1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99), st.booleans(), st.booleans()), max_size=6))
def test_what_is_written_is_recalled_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, bool, bool]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    written = [(poses(n, seed, ids=ids), detected) for n, seed, ids, detected in rows]
    journal = Journal(path, "key")
    assert journal.lookup(0) is None
    for index, (found, detected) in enumerate(written):
        journal.append(3 * index, found, detected, Fraction(index, 30))
    journal.close()
    assert [float(time) for time, _ in read_journal(path)] == pytest.approx([i / 30 for i in range(len(rows))])
    again = Journal(path, "key")
    for index, (found, detected) in enumerate(written):
        known = again.lookup(3 * index)
        assert known is not None and same(known[0], found) and known[1] == detected
    assert again.lookup(3 * len(rows)) is None
    again.remove()
    assert not path.exists()


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_line_cut_short_is_cut_off_and_written_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    journal = Journal(path, "key")
    for index in range(3):
        journal.append(index, poses(2, index))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    journal = Journal(path, "key")
    assert journal.lookup(0) is not None and journal.lookup(1) is not None and journal.lookup(2) is None
    assert journal.lookup(1) is None  # once the end is reached, nothing is known any more
    journal.append(2, poses(2, 2))
    journal.close()
    assert path.read_bytes() == whole


def test_another_key_or_another_order_of_frames_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for key in ("one", "two"):
        journal = Journal(path, key)
        assert journal.lookup(0) is None
        journal.append(0, poses(1))
        journal.append(1, poses(1, 1))
        journal.close()
    journal = Journal(path, "two")
    assert journal.lookup(5) is None
    journal.append(5, poses(1, 5))
    journal.close()
    assert [same(found, poses(1, 5)) for _, found in read_journal(path)] == [True]


def test_who_is_kept() -> None:
    people = poses(4, ids=True)
    people.boxes[:] = [[0, 0, 10, 10], [0, 0, 30, 30], [0, 0, 20, 20], [5, 5, 6, 6]]
    kept = {text: person_choice(text)(people).track_ids for text in ("all", "largest", "2", "9", "id:3", "id:7")}
    assert {text: None if ids is None else ids.tolist() for text, ids in kept.items()} == {
        "all": [1, 2, 3, 4],
        "largest": [2],
        "2": [2, 3],
        "9": [1, 2, 3, 4],
        "id:3": [3],
        "id:7": [],
    }
    assert len(person_choice("id:1")(poses(2))) == 0  # no track ids
    for text in ("", "0", "first", "id:0", "id:x", "-1"):
        with pytest.raises(UsageError, match="--person"):
            person_choice(text)
