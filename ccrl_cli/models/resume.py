"""Large files of the hub, begun in one command and gone on with in the next.

The hub's library begins a file anew in every process. Here its bytes go to a file beside the
place they are meant for, named by checksum; that file stays when a download breaks, the rest is
asked for the next time, and it moves into the hub's cache when its checksum is right: among the
blobs, to which the library links, or to its place in the snapshot where there are no links.
"""

from __future__ import annotations

from pathlib import Path

from ccrl_cli.errors import IntegrityError
from ccrl_cli.files import move
from ccrl_cli.models.cache import preparing
from ccrl_cli.models.packages import file_sha256
from ccrl_cli.reporting import Reporter

#: The hub sends larger files through its own protocol alone; the library fetches those.
MAX_BYTES = 50 * 1000**3


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
    """Append what is missing of a file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    with part.open("ab") as stream:
        if stream.tell() > size:
            stream.truncate(0)
            stream.seek(0)
        if stream.tell() == size:
            return
        http_get(
            hf_hub_url(name, file, revision=commit),
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=size,
        )
