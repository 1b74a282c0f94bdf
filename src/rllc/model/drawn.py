"""Which single weights a size-matched random part holds: the control beside the heads of a layer. Torch-free.

The weights of a layer's heads are dealt out anew, tensor by tensor, to as many parts as there are heads. So each random part holds exactly as many
numbers of W_Q, of W_K and so on as a head does, and those of one deal share none: what sets them apart from heads is only that their weights do not
belong together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.core import seeds

if TYPE_CHECKING:
    from jaxtyping import Int

_ROOT = 0  # not the experiment's seed: a name means the same weights in every run


def dealt(tensor: str, sizes: tuple[int, ...], number: int) -> Int[NDArray[np.int64], " d"]:
    """The places, ascending, in a flattened tensor [H, ...] that the random part of this number holds: one in H of them.

    They follow from the tensor's name, its sizes and the number alone, and so are the same at every checkpoint. Numbers 0 to H - 1 are one deal,
    H to 2 H - 1 the next.

    >>> sorted(np.concatenate([dealt("blocks.0.attn.W_O", (2, 3, 1), n) for n in range(2)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    deal, hand = divmod(number, sizes[0])
    return _hands(tensor, sizes, deal)[hand]


@lru_cache(maxsize=64)
def _hands(tensor: str, sizes: tuple[int, ...], deal: int) -> Int[NDArray[np.int64], "H d"]:
    # Sorted by uniform numbers, which generators promise to keep equal over versions, as they do not their permutations.
    order = np.argsort(seeds.generator(_ROOT, "random part", tensor, deal).random(int(np.prod(sizes))), kind="stable")
    return np.sort(order.reshape(sizes[0], -1), axis=1)
