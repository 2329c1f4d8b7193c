"""Zip files from elsewhere: their list of members is checked before anything is unpacked, and only into memory."""

import zipfile
from pathlib import PurePosixPath
from typing import IO

from posecli.errors import DataError
from posecli.weights.header import shown

# No member may be unpacked to more than so many times its size in the file; weights shrink by a tenth at most.
LARGEST_RATIO = 50
MOST_MEMBERS = 100_000


def open_archive(file: IO[bytes], where: str) -> zipfile.ZipFile:
    """A zip file whose members can be read with read_member. The caller closes the file.

    where: the file, for messages. Raises DataError where it is damaged, where a member's name leads out of the
    archive or stands twice, and where it would be unpacked to far more than the file holds.
    """
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
        file.seek(0, 2)
        size = file.tell()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, OSError, MemoryError) as error:
        raise DataError(f"{where}: a zip file that is damaged or cut off ({_one_line(error)})") from error
    if len(members) > MOST_MEMBERS:
        raise DataError(f"{where}: a zip file of {len(members)} members, more than any model has")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in (parts or ("",))[0] or "\0" in name:
            raise DataError(f"{where}: its member {shown(name)} leads out of the archive")
        if name in seen:
            raise DataError(f"{where}: its member {shown(name)} stands in it twice")
        seen.add(name)
        if member.flag_bits & 1:
            raise DataError(f"{where}: its member {shown(name)} is encrypted")
        if member.file_size > LARGEST_RATIO * member.compress_size + 1000:
            raise DataError(
                f"{where}: its member {shown(name)} would be unpacked from {member.compress_size} bytes "
                f"to {member.file_size}"
            )
    if sum(member.compress_size for member in members) > size:
        raise DataError(f"{where}: members that share bytes: a zip bomb")
    return archive


def read_member(archive: zipfile.ZipFile, name: str, where: str, most: int | None = None) -> bytes:
    """A member's bytes, of which the list of members told the number. Raises DataError where it is damaged or absent.

    most: the most bytes that such a member has.
    """
    try:
        member = archive.getinfo(name)
        if most is not None and member.file_size > most:
            raise DataError(f"{where}: its member {shown(name)} has {member.file_size} bytes, more than {most}")
        with archive.open(member) as opened:
            data = opened.read(member.file_size + 1)
    except KeyError:
        raise DataError(f"{where}: it has no member {shown(name)}") from None
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise DataError(f"{where}: its member {shown(name)} is damaged ({_one_line(error)})") from error
    except Exception as error:  # zlib.error and those of other decompressors have no common base
        raise DataError(f"{where}: its member {shown(name)} is damaged ({_one_line(error)})") from error
    if len(data) != member.file_size:
        raise DataError(f"{where}: its member {shown(name)} is cut off")
    return data


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode()[:100]
