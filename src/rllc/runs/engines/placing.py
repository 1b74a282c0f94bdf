"""Files of a run for nodes that do not see its folder: each goes once into Ray's object store, and from there once to every node that needs it."""

from __future__ import annotations

import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllc.core import digest
from rllc.runs.engines.job import Files
from rllc.runs.engines.ray_worker import Delivery

_PIECE = 64 * 2**20  # bytes of an object
STORED = 2 * 2**30  # bytes that are kept in the object store for nodes that come later
KEPT = 20 * 2**30  # bytes that a node keeps on its disk beside what is being read


class Placing:
    """What lies where.

    Args:
        here: the node that the run folder is on, whose workers read it in place.
        put: puts a piece into the object store and gives a reference to it.
        stored: most bytes in the object store.
        kept: most bytes on a node.
    """

    def __init__(self, here: str, put: Callable[[Any], Any], stored: int = STORED, kept: int = KEPT) -> None:
        self._here, self._put, self._most_stored, self._most_kept = here, put, stored, kept
        self._token, self._deliveries = uuid.uuid4().hex[:12], 0
        self._stored: OrderedDict[Path, list[Any]] = OrderedDict()
        self._nodes: dict[str, _Node] = {}

    def begin(self, node: str, files: Files[Any] | None, work: Any) -> Delivery | None:
        """What a worker of that node must be given with a work; None where it reads the files in place. `end` tells that it has done with them."""
        if files is None or node == self._here:
            return None
        there = self._nodes.setdefault(node, _Node())
        inside = _place_of(files.root)
        wanted = {path: _name(path, files.root) for path in files.of(work)}
        missing = [(name, self._pieces(path)) for path, name in wanted.items() if name not in there.sizes]
        there.reading.update(wanted.values())
        for path, name in wanted.items():
            if name in there.sizes:
                there.sizes.move_to_end(name)
            else:
                there.coming[name] = path.stat().st_size
        self._deliveries += 1
        return Delivery(self.folder(node), inside, self._deliveries, tuple(missing), tuple(there.excess(self._most_kept)))

    def end(self, node: str, files: Files[Any] | None, work: Any, arrived: bool) -> None:
        """A worker of that node is done with a work; where it `arrived`, its files lie there now."""
        if files is None or node not in self._nodes:
            return
        there = self._nodes[node]
        for path in files.of(work):
            name = _name(path, files.root)
            there.reading[name] -= 1
            if arrived and name in there.coming:
                there.sizes[name] = there.coming.pop(name)

    def folder(self, node: str) -> str:
        """The name of a node's folder."""
        return f"{self._token}-{node[:12]}"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that have a folder."""
        return tuple(self._nodes)

    def _pieces(self, path: Path) -> Sequence[Any]:
        if path not in self._stored:
            with path.open("rb") as stream:
                self._stored[path] = [self._put(np.frombuffer(piece, dtype=np.uint8)) for piece in iter(lambda: stream.read(_PIECE), b"")]
        self._stored.move_to_end(path)
        pieces, bytes_stored = self._stored[path], sum(other.stat().st_size for other in self._stored if other.exists())
        while bytes_stored > self._most_stored and len(self._stored) > 1:
            gone, _ = self._stored.popitem(last=False)  # a worker that was given its pieces holds them
            bytes_stored -= gone.stat().st_size if gone.exists() else 0
        return pieces


def _place_of(root: Path) -> str:
    """Where the files of a run folder lie in a node's: those of another one are others, whatever they are called."""
    return digest.of_bytes(str(root.absolute()).encode())[:12]


def _name(path: Path, root: Path) -> str:
    return f"{_place_of(root)}/{path.relative_to(root)}"


class _Node:
    def __init__(self) -> None:
        self.sizes: OrderedDict[str, int] = OrderedDict()  # what lies there, the longest unused first
        self.coming: dict[str, int] = {}
        self.reading: Counter[str] = Counter()

    def excess(self, most: int) -> list[str]:
        """Files to be dropped: nobody reads them, and they are too much."""
        dropped: list[str] = []
        for name in list(self.sizes):
            if sum(self.sizes.values()) <= most:
                break
            if self.reading[name] <= 0:
                del self.sizes[name]
                dropped.append(name)
        return dropped
