"""How often each claim gets each verdict where the answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rllc.analysis.analyse import analyse
from rllc.analysis.comparisons import VERDICTS, Claim
from rllc.analysis.planted_evidence import World, alike, planted_evidence, typeless
from rllc.analysis.settings import AnalysisSettings

_ATTENTION = ("type-previous-token", "type-current-token", "type-induction")
LEAN = AnalysisSettings(methods=("kmeans",), preprocessing=("raw",), max_clusters=3, resamples=20, permutations=100)


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on one claim in one world over many draws."""

    claim: str
    world: str
    draws: int
    counts: tuple[int, ...]  # of "seen", "not seen", "cannot tell"

    def share(self, verdict: str) -> float:
        """Share of the draws with this verdict."""
        return self.counts[[*VERDICTS].index(verdict)] / self.draws


def judged(world: World, seed: int, settings: AnalysisSettings = LEAN) -> tuple[Claim, ...]:
    """The claims of one draw of one world.

    In "false" and in "chance" heads differ, so that `differentiation` is judged where they are all alike; and in "false" they have types, so that the
    claims that there are such are judged where no score reaches its threshold.
    """
    evidence = planted_evidence(world, seed)
    found = {claim.id: claim for claim in analyse(evidence, settings, seed, pairs=False).claims}
    if world in ("false", "chance"):
        found |= _only(("differentiation",), analyse(alike(evidence, seed), settings, seed, pairs=False).claims)
    if world == "false":
        found |= _only(_ATTENTION, analyse(typeless(evidence), settings, seed, pairs=False).claims)
    return tuple(found.values())


def _only(names: tuple[str, ...], claims: Sequence[Claim]) -> dict[str, Claim]:
    return {claim.id: claim for claim in claims if claim.id in names}


def verdict_rates(worlds: Sequence[World], draws: int, seed: int = 0, settings: AnalysisSettings = LEAN) -> tuple[Verdicts, ...]:
    """The table: claims in the order of the paper, and for each its verdicts in each world."""
    counts: dict[tuple[str, str], list[int]] = {}
    for world in worlds:
        for draw in range(draws):
            for claim in judged(world, seed * 1_000_003 + draw, settings):
                counts.setdefault((claim.id, world), [0] * len(VERDICTS))[VERDICTS.index(claim.verdict)] += 1
    names = dict.fromkeys(claim for claim, _ in counts)
    return tuple(Verdicts(name, world, draws, tuple(counts[name, world])) for name in names for world in worlds)
