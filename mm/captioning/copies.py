"""Images of equal content, of which one is asked and the others get its text."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from mm.captioning.batching import cores
from mm.captioning.log import Row
from mm.captioning.sources import Item, Source
from mm.errors import ImageError

if TYPE_CHECKING:
    from mm.captioning.job import Job

_AT_ONCE = 64  # images whose bytes may be in memory together


def find_copies(
    source: Source, job: "Job", wanted: set[str], rows: Callable[[], Iterable[Row]], known: dict[str, Row]
) -> dict[str, str]:
    """Which images share the text of an earlier one: those with the same bytes and the same question.

    Reads every image of the source (of this shard) once. One that cannot be read is no copy of anything.

    Args:
        source: of the images.
        job: what is asked of them.
        wanted: ids of those that are to be done.
        rows: gives what is done already, each time from the start.
        known: is given the rows that copies are to be made of and that are there.

    Returns:
        Id of a copy -> id of its original.
    """
    done = {str(row["id"]) for row in _originals(rows())}
    originals: dict[bytes, str] = {}
    copies: dict[str, str] = {}
    for identity, key in _keys(source, job):
        if key is None or (identity not in wanted and identity not in done):
            continue
        original = originals.setdefault(key, identity)
        if original != identity and identity in wanted:
            copies[identity] = original
    needed = done.intersection(copies.values())
    known.update((row["id"], row) for row in _originals(rows()) if row["id"] in needed)
    return copies


def _originals(rows: Iterable[Row]) -> Iterator[Row]:
    """Texts that a model gave; not copies, nor lines of another program."""
    return (row for row in rows if row.get("id") and row.get("error", "") is None and "copy_of" not in row)


def _keys(source: Source, job: "Job") -> Iterator[tuple[str, bytes | None]]:
    """Id and key of each image, in order."""
    from mm.captioning.prepare import ask

    def key(item: Item) -> tuple[str, bytes | None]:
        try:
            digest = hashlib.blake2b(item.read(), digest_size=16)
            digest.update(ask(job.task, item).encode("utf-8", errors="surrogateescape"))
        except (ImageError, OSError):
            return item.id, None
        return item.id, digest.digest()

    items = (item for item in source.items() if job.holds(item.id))
    with ThreadPoolExecutor(min(8, 2 * cores()), thread_name_prefix="mm-copies") as threads:
        while some := list(islice(items, _AT_ONCE)):
            yield from threads.map(key, some)
