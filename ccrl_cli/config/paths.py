"""What a path or a folder's name in a profile may be, so that it is one on every system."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)


def without_controls(path: str | None) -> str | None:
    r"""Return a path, or refuse one with control characters.

    In double quotes TOML reads ``\b`` and ``\f`` as such, and so it does those of ``"D:\bert"``.

    Raises:
        ValueError: it holds one.
    """
    if path is not None and (found := _CONTROL.search(path)):
        raise ValueError(
            f"a path holds no control character such as {found[0]!r}; write a path with "
            "backslashes in single quotes, or write it with /"
        )
    return path


def portable_name(name: str) -> str:
    """Return the name of a folder, or refuse one that Windows does not have.

    Raises:
        ValueError: it is a device there, or ends with a dot, which Windows leaves out.
    """
    if _DEVICE.fullmatch(name):
        raise ValueError("Windows keeps this name for a device; choose another")
    if name.endswith("."):
        raise ValueError("Windows leaves out a dot at the end of a name; leave it out too")
    return name
