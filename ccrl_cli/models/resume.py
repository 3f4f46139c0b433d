"""Large files of the hub, begun in one command and gone on with in the next.

The hub's library begins a file anew in every process. Here its bytes go to a file beside the
place they are meant for, named by checksum; that file stays when a download breaks, the rest is
asked for the next time, and it moves into the hub's cache when its checksum is right: among the
blobs, to which the library links, or to its place in the snapshot where there are no links.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from ccrl_cli.errors import IntegrityError
from ccrl_cli.files import move
from ccrl_cli.models.cache import preparing
from ccrl_cli.models.packages import file_sha256
from ccrl_cli.reporting import Reporter

#: The hub sends larger files through its own protocol alone; the library fetches those.
MAX_BYTES = 50 * 1000**3

#: Times that a connection may break without a byte before the command gives up.
_TRIES = 5
_SECONDS_BETWEEN_TRIES = 1.0


def part_path(storage: Path, sha256: str) -> Path:
    """Return where the bytes of an unfinished file lie, in the folder of its repository."""
    return storage / "parts" / f"{sha256}.part"


def fetch_large(
    storage: Path, name: str, file: str, *, commit: str, sha256: str, size: int, reporter: Reporter
) -> bool:
    """Bring one large file of a model into the hub's cache, going on where it broke off.

    Args:
        storage: folder of the repository in the cache.
        name: the repository.
        file: name of the file.
        commit: its revision.
        sha256: checksum that the hub states, by which the cache names the file too.
        size: bytes of the file.
        reporter: told when another process is fetching it.

    Returns:
        Whether it was fetched and checked here; False leaves it to the hub's library.

    Raises:
        IntegrityError: the bytes differ from the checksum; they are removed.
    """
    if size > MAX_BYTES:
        return False
    from huggingface_hub.file_download import are_symlinks_supported

    blob = storage / "blobs" / sha256
    storage.mkdir(parents=True, exist_ok=True)
    linked = are_symlinks_supported(storage)
    place = blob if linked else storage / "snapshots" / commit / file
    with preparing(blob, reporter):
        if not place.exists() or place.stat().st_size != size:
            part = part_path(storage, sha256)
            part.parent.mkdir(parents=True, exist_ok=True)
            if blob.exists() and not part.exists():  # cut, or to be copied from
                move(blob, part)
            _continue(part, name, file, commit, size)
            if file_sha256(part) != sha256:
                part.unlink()
                raise IntegrityError(
                    f"{file} of {name} differs from the checksum that the hub states",
                    hint=f"it was removed; download it again: ccrl download {name}",
                )
            place.parent.mkdir(parents=True, exist_ok=True)
            move(part, place)
    return True


def _continue(part: Path, name: str, file: str, commit: str, size: int) -> None:
    """Append what is missing of a file; a connection that breaks is tried again a few times."""
    import httpx
    from huggingface_hub import hf_hub_url

    tries = _TRIES
    with part.open("ab") as stream:
        if stream.tell() > size:
            _empty(stream)
        while (first := stream.tell()) < size:
            try:
                _append_rest(stream, hf_hub_url(name, file, revision=commit))
            except httpx.TransportError:
                if tries == 0:
                    raise
                time.sleep(_SECONDS_BETWEEN_TRIES)
            tries = _TRIES if stream.tell() > first else tries - 1
            if tries < 0:
                raise OSError(f"{file} ends after {first} of {size} bytes")


def _append_rest(stream: IO[bytes], url: str) -> None:
    """Append what a server sends from here on; the file is begun anew where it sends all."""
    from huggingface_hub import constants, get_session

    utils: Any = import_module("huggingface_hub.utils")
    # As it is: positions in a compressed answer would be others.
    wanted = {"Range": f"bytes={stream.tell()}-", "Accept-Encoding": "identity"}
    headers = utils.build_hf_headers() | wanted
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        utils.hf_raise_for_status(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            _empty(stream)
        for piece in response.iter_bytes():
            stream.write(piece)


def _empty(stream: IO[bytes]) -> None:
    stream.truncate(0)
    stream.seek(0)
