"""Random changes of weights files: read, or refused in one line."""

import json
import os
import random
import struct
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.detect import load_detector
from posecli.errors import PosecliError
from posecli.pose.loading import load_network
from posecli.weights.files import HEADER_KEY, save_weights
from tests.weights_factory import model_file, one_line, raw_file

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, part in parts for found in _places(part, (*place, key)))]


def _put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copied = list(value) if isinstance(value, list) else dict(value)
    copied[place[0]] = _put(value[place[0]], place[1:], new)
    return copied


@cache
def whole_bytes(kind: str) -> tuple[bytes, int]:
    """A whole file, and where its tensors begin."""
    path = Path(f"{os.environ.get('TMPDIR', '/tmp')}/posecli-{os.getpid()}-{kind}.safetensors")
    save_weights(path, *model_file(kind))
    content = path.read_bytes()
    path.unlink()
    return content, 8 + struct.unpack("<Q", content[:8])[0]


def read_it(path: Path, kind: str) -> None:
    try:
        if kind == "pose":
            load_network(path)
        else:
            load_detector("person", weights=path, device="cpu", runtime="torch")
    except PosecliError as error:
        one_line(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["pose", "detector"]), chance=st.integers(0, 10**9), value=VALUES)
def test_any_value_in_the_header_is_one_line_or_fits(tmp_path: Path, kind: str, chance: int, value: Any) -> None:
    content, start = whole_bytes(kind)
    described = json.loads(content[8:start])
    header = json.loads(described["__metadata__"][HEADER_KEY])
    places = _places(header)
    changed = _put(header, random.Random(chance).choice(places), value)
    described["__metadata__"][HEADER_KEY] = json.dumps(changed)
    read_it(raw_file(tmp_path / "x.safetensors", json.dumps(described).encode(), content[start:]), kind)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["pose", "detector"]), chance=st.integers(0, 10**9), how=st.integers(0, 3))
def test_any_change_of_bytes_is_one_line_or_fits(tmp_path: Path, kind: str, chance: int, how: int) -> None:
    content, start = whole_bytes(kind)
    choose = random.Random(chance)
    data = bytearray(content)
    if how == 0:
        del data[choose.randrange(len(data)) :]
    elif how == 1:
        data[:8] = choose.randbytes(8)
    else:
        for _ in range(choose.randrange(1, 6)):
            data[choose.randrange(start if how == 2 else len(data))] ^= 1 << choose.randrange(8)
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    read_it(path, kind)
