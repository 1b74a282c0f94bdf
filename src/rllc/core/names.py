"""Names of what is measured: heads, parts of the weights, data, cells. Frozen, hashable, printable, parseable."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rllc.core.errors import RllcError

# A number has nine digits at most: more name nothing, and Python refuses to read thousands of them.
_HEAD = re.compile(r"^(?:(\d{1,9}):(\d{1,9})|[Ll](\d{1,9})[Hh](\d{1,9}))$", re.ASCII)
_GROUP = re.compile(r"^(\d{1,9}):g(\d{1,9})$", re.ASCII)
_RANDOM = re.compile(r"^(\d{1,9})\.random(\d{1,9})$", re.ASCII)
_HEAD_PIECE = re.compile(r"^(.+)\.([QKVO])$")
_LAYER = re.compile(r"^(\d{1,9})\.(attn|mlp)$", re.ASCII)
_DATA = re.compile(r"(?P<name>[\w.-]+)(?:/(?P<split>train|heldout))?(?:\^(?P<nbeta>[0-9]{1,9}(?:\.[0-9]{1,9})?))?")
_QUOTED = 100  # characters of a text in an error
_WHOLE = ("embed", "unembed", "full")


@dataclass(frozen=True, order=True)
class Head:
    """One attention head, counted from zero.

    >>> str(Head.parse("L1H6"))
    '1:6'
    """

    layer: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read "1:6", "L1H6" or "l1h6". Raises RllcError for anything else."""
        match = _HEAD.match(text.strip())
        if not match:
            raise RllcError(f"{text[:_QUOTED]!r} does not name an attention head.", 'Write layer:head, such as "1:6", or "L1H6".')
        a, b, c, d = match.groups()
        return cls(int(a or c or 0), int(b or d or 0))

    def __str__(self) -> str:
        return f"{self.layer}:{self.index}"


@dataclass(frozen=True, order=True)
class Atom:
    """One indivisible part. `kind` is head, group, random, attn, mlp, embed, unembed, full or tensor.

    `head` counts the groups for kind "group", and the draws for kind "random"; `piece` is one of Q, K, V, O for a slice of a head or group and empty
    otherwise; `tensor` names a tensor for kind "tensor".
    """

    kind: str
    layer: int = -1
    head: int = -1
    piece: str = ""
    tensor: str = ""

    def __str__(self) -> str:
        if self.kind in ("head", "group"):
            return f"{self.layer}:{'g' * (self.kind == 'group')}{self.head}" + (f".{self.piece}" if self.piece else "")
        if self.kind in ("attn", "mlp", "random"):
            return f"{self.layer}.{self.kind}" + (str(self.head) if self.kind == "random" else "")
        return f"={self.tensor}" if self.kind == "tensor" else self.kind


@dataclass(frozen=True, order=True)
class Part:
    """A part of the weights: one atom or a union of them, kept in canonical order without repetition.

    Grammar: `1:6` a head, `1:6.Q` a head's query (also K, V, O), `1:g2` the heads that share keys and values 2 with them (also `1:g2.K`), `1.attn`,
    `1.mlp`, `embed`, `unembed`, `full`, `=blocks.0.attn.W_Q` any tensor by name, `1.random0` as many single weights as a head holds, drawn among
    those of all heads of the layer, and `a+b` the union.

    >>> str(Part.parse("1:6 + L0H1"))
    '0:1+1:6'
    """

    atoms: tuple[Atom, ...]

    def __post_init__(self) -> None:
        if not self.atoms:
            raise RllcError("A part of a model needs at least one piece.", "Name a head, such as 1:6, or another part.")
        object.__setattr__(self, "atoms", tuple(sorted(set(self.atoms))))

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read a part expression. Raises RllcError where it is none."""
        return cls(tuple(_parse_atom(piece.strip(), text) for piece in text.split("+")))

    @classmethod
    def of_head(cls, layer: int, index: int) -> Part:
        """The part that is one whole head."""
        return cls((Atom("head", layer, index),))

    @property
    def head(self) -> Head | None:
        """The head, where the part is exactly one whole head."""
        atom = self.atoms[0]
        if len(self.atoms) == 1 and atom.kind == "head" and not atom.piece:
            return Head(atom.layer, atom.head)
        return None

    def __str__(self) -> str:
        return "+".join(str(atom) for atom in self.atoms)


def _parse_atom(text: str, whole: str) -> Atom:
    if text in _WHOLE:
        return Atom(text)
    if text.startswith("=") and re.fullmatch(r"=[A-Za-z_][\w.]*", text):
        return Atom("tensor", tensor=text[1:])
    if match := _LAYER.match(text):
        return Atom(match[2], int(match[1]))
    if match := _RANDOM.match(text):
        return Atom("random", int(match[1]), int(match[2]))
    piece = ""
    if match := _HEAD_PIECE.match(text):
        text, piece = match[1], match[2]
    if _HEAD.match(text):
        head = Head.parse(text)
        return Atom("head", head.layer, head.index, piece)
    if match := _GROUP.match(text):
        return Atom("group", int(match[1]), int(match[2]), piece)
    raise RllcError(
        f"{whole[:_QUOTED]!r} is not a part of a model.",
        "Write a head 1:6, a piece of it 1:6.Q, a group 1:g2, 1.attn, 1.mlp, embed, unembed, full, =tensor.name, random weights 1.random0, or a+b.",
    )


@dataclass(frozen=True, order=True)
class DataKey:
    """Which data: a domain or mixture of the experiment by name, and the split it is drawn from.

    `elsewhere` names the data that the draws of its chains are evaluated on, where that is another; `nbeta` is the inverse temperature nβ of the
    posterior, where it is not the experiment's.
    """

    name: str
    split: str = "train"
    elsewhere: str = ""
    nbeta: float = 0.0

    def __str__(self) -> str:
        drawn = self.name if self.split == "train" else f"{self.name}/{self.split}"
        drawn += f"^{self.nbeta:.9f}".rstrip("0").rstrip(".") if self.nbeta else ""
        return f"{drawn}@{self.elsewhere}" if self.elsewhere else drawn

    @property
    def sampled(self) -> DataKey:
        """The data that the chains move by."""
        return replace(self, elsewhere="")

    @property
    def text(self) -> DataKey:
        """The data alone, whatever the temperature of the chains that move by it: what decides their minibatches."""
        return DataKey(self.name, self.split)

    def at(self, elsewhere: str) -> DataKey:
        """The same chains evaluated on other data; on their own where that is named or nothing is."""
        other = str(DataKey.parse(elsewhere)) if elsewhere else ""
        return replace(self, elsewhere="" if other == str(self.sampled) else other)

    @classmethod
    def parse(cls, text: str) -> DataKey:
        """Read "code", "code/heldout", "code@prose": sampled on code, evaluated on prose; or "code^10": sampled at nβ = 10.

        >>> DataKey.parse("code/heldout").split
        'heldout'
        >>> str(DataKey.parse("code@prose/train"))
        'code@prose'
        >>> DataKey.parse("code^10").nbeta
        10.0
        """
        drawn, at, elsewhere = text.partition("@")
        found = _DATA.fullmatch(drawn)
        nbeta = float(found["nbeta"] or 0) if found else 0.0
        if found is None or (found["nbeta"] and not nbeta) or "@" in elsewhere or "^" in elsewhere or (at and not elsewhere):
            raise RllcError(
                f"{text[:_QUOTED]!r} does not name data.", 'Write a domain or mixture, such as "code", "code/heldout", or "code^10" for nβ = 10.'
            )
        return cls(found["name"], found["split"] or "train", nbeta=nbeta).at(elsewhere)


@dataclass(frozen=True, order=True)
class Cell:
    """The unit of record: one part, at one checkpoint, on one kind of data. Sampler and seed belong to the run's key."""

    step: int
    data: DataKey
    part: Part

    def __str__(self) -> str:
        return f"step {self.step}, {self.data}, {self.part}"
