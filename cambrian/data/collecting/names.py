"""Names from outside: what may become the name of a picture or of a file."""

from __future__ import annotations

import re
import unicodedata

from cambrian.interfaces import RecordError

_MAX_NAME_BYTES = 240
"""What a tar header of the shards holds beside its directory's separator."""
_DRIVE = re.compile(r"^[A-Za-z]:")


def clean_name(name: str, *, prefix: str = "") -> str:
    """The name with forward slashes and without empty or `.` parts, in composed Unicode.

    Raises:
        RecordError: `unsafe-path`, it is absolute, climbs out of its folder, or has a character that no path should
            have; `name-too-long`.
    """
    text = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or _DRIVE.match(text) or ".." in parts or not parts:
        raise RecordError("unsafe-path", f"{name!r} does not stay inside its folder")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise RecordError("unsafe-path", f"{name!r} has a control character or half a character")
    cleaned = prefix + "/".join(parts)
    if len(cleaned.encode()) > _MAX_NAME_BYTES:
        raise RecordError("name-too-long", f"{cleaned[:40]!r}... has more than {_MAX_NAME_BYTES} bytes")
    return cleaned
