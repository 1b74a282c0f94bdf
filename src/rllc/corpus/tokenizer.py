"""Byte-level BPE: trained on the corpus, or given. BOS is the one special token of a trained one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rllc.core.errors import RllcError
from rllc.core.files import LARGEST, parse_json, read_text
from rllc.corpus.settings import LARGEST_VOCABULARY, SMALLEST_VOCABULARY

BOS = "<|bos|>"
_USUAL_BOS = (BOS, "<|endoftext|>", "<s>", "<|begin_of_text|>", "<bos>", "[BOS]", "[CLS]")
_BATCH_CHARACTERS = 1_000_000  # the library's encodings take some hundred bytes a token while they live


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocabulary` tokens: BOS (0), the 256 bytes, then merges that occur at least twice.

    Equal texts in equal order give an equal tokenizer. Raises RllcError where the vocabulary is smaller than the bytes need,
    or larger than the text allows.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise RllcError(
            f"A vocabulary of {vocabulary} is too small for byte-level tokens.", f"Use at least {SMALLEST_VOCABULARY}: 256 bytes and BOS."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=[BOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    _one_thread()
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocabulary:
        raise RllcError(
            f"A vocabulary of {vocabulary} was asked for, but this text allows only {reached} tokens.",
            f"Set vocabulary to {reached} or less, or add text.",
        )
    return parse_tokenizer(tokenizer.to_str())


def parse_tokenizer(text: str) -> Tokenizer:
    """A tokenizer from its json, with literal special tokens in a text read as plain text, and neither padding nor cutting.

    A freshly parsed one also has an empty cache: one that was trained twice encodes some words with its former merges.
    """
    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """A given `tokenizer.json`. Raises RllcError where it is missing or no tokenizer."""
    if not path.is_file():
        raise RllcError(f"There is no tokenizer at {path}.", "Give the path of a tokenizer.json, or leave `tokenizer` empty to train one.")
    try:
        tokenizer = parse_tokenizer(read_text(path, 10 * LARGEST))
        size = vocabulary_size(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception for what it cannot parse, and a panic of its own kind
        raise RllcError(f"{path} is not a tokenizer: {str(error)[:300]}.", "Give a tokenizer.json as the tokenizers library writes it.") from error
    if size > LARGEST_VOCABULARY:
        raise RllcError(f"The tokenizer {path} has ids up to {size - 1:,}.", f"Give one whose ids stay below {LARGEST_VOCABULARY:,}.")
    return tokenizer


def bos_id(tokenizer: Tokenizer, name: str = "") -> int:
    """The id of the beginning-of-sequence token: the one called `name`, or a usual one. Raises RllcError where there is none."""
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}
    for candidate in (name,) if name else _USUAL_BOS:
        if candidate in special:
            return special[candidate]
    wanted = f"no special token {name!r}" if name else "no beginning-of-sequence token of a usual name"
    raise RllcError(
        f"The tokenizer has {wanted}; it has {', '.join(map(repr, special)) or 'none at all'}.", "Name one of its special tokens as `bos`."
    )


def special_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of tokens that no text contains, in order."""
    return tuple(sorted(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id, which is what an embedding must hold."""
    return max(tokenizer.get_vocab().values()) + 1


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """Token ids of each text, without special tokens, in order; many are encoded at a time."""
    _one_thread()
    batch: list[str] = []
    size = 0
    for number, text in enumerate(texts, 1):
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS or number == len(texts):
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int64)
            batch, size = [], 0


def printable_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    r"""One printable string for every id: a space reads ␣, a line end ⏎, a tab ⇥, and bytes that are no character by themselves read \xNN."""
    byte_level = "ByteLevel" in json.dumps(parse_json(tokenizer.to_str())["decoder"])
    special = set(special_ids(tokenizer))
    pieces = []
    for i in range(vocabulary_size(tokenizer)):
        piece = tokenizer.id_to_token(i)
        if piece is None:
            pieces.append(f"⟨{i}⟩")
        elif i in special:
            pieces.append(piece)
        else:
            pieces.append(_printable(_piece_bytes(piece) if byte_level else piece.replace("▁", " ").encode()))
    return tuple(pieces)


def shown(text: str) -> str:
    """A text as `printable_tokens` writes it.

    >>> shown("a b")
    'a␣b'
    """
    return _printable(text.encode())


_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def _printable(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    shown = []
    for c in text:
        if "\udc80" <= c <= "\udcff":  # an undecodable byte, as surrogateescape marks it
            shown.append(f"\\x{ord(c) - 0xDC00:02x}")
        else:
            shown.append(_SHOWN.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()))
    return "".join(shown)


def _piece_bytes(piece: str) -> bytes:
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in piece)


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-in of every byte in a byte-level vocabulary (Radford et al. 2019): itself, or the next character from U+0100 on."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(itself)]
    return {chr(b): b for b in itself} | {chr(0x100 + n): b for n, b in enumerate(others)}


_BYTES = _byte_alphabet()


def _one_thread() -> None:
    """Keep the tokenizers library to one thread, unless whoever runs this has set TOKENIZERS_PARALLELISM.

    Its threads outlive the call: a later fork of the process would be warned of, and could wait for ever on a lock they held.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
