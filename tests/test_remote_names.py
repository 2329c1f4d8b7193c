"""Addresses, names and versions of files at them, without a run."""

from typing import Any

import fsspec
from hypothesis import given
from hypothesis import strategies as st

from posecli.media.inputs import find_inputs
from posecli.remote import is_remote, remote_file, safe_parts, without_file_scheme, without_password


def test_names_of_a_store_that_lists_any_key() -> None:
    class Store(fsspec.AbstractFileSystem):
        async_impl = True
        _find = None

        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            return {"name": path, "type": "directory"}

        def find(self, path: str, **kwargs: Any) -> dict[str, Any]:
            keys = ("../../e.jpg", "a/../../f.jpg", "/abs/x.jpg", "a//b.jpg", ".hidden/c.jpg", "d.jpg.part", "e/")
            return {f"{path}/{key}": {"size": 1, "ETag": key} for key in keys}

    fsspec.register_implementation("keys", Store, clobber=True)
    names = [item.name for item in find_inputs(["keys://in"])]
    assert names == ["__/__/e.jpg", "a/b.jpg", "a/__/__/f.jpg", "abs/x.jpg"]


@given(st.text())
def test_parts_of_any_name_are_safe(name: str) -> None:
    parts = safe_parts(name)
    assert not {"", ".", ".."} & {*parts}
    assert not any(c in part for part in parts for c in "/\\\0")


def test_which_texts_are_addresses() -> None:
    assert all(map(is_remote, ("s3://b/a.jpg", "GS://b", "sftp://u:p@h/x", "memory://x")))
    texts = ("a.jpg", "http://h/a.mp4", "rtsp://h/1", "file:///a.jpg", "webcam:0", "C:/a.jpg", "-", "a b://x")
    assert not any(map(is_remote, texts))
    assert without_file_scheme("file:///a b.jpg") == "/a b.jpg"
    assert without_password("sftp://u:pw@h/x") == "sftp://u@h/x"


def test_versions() -> None:
    first = remote_file("s3://b/a", {"size": 3, "ETag": '"x"', "LastModified": 1})
    assert first.version == remote_file("s3://b/a", {"size": 3, "ETag": "x", "LastModified": 2}).version
    assert first.version != remote_file("s3://b/a", {"size": 3, "ETag": '"y"'}).version
    assert remote_file("ftp://b/a", {"size": 3}).version is None
