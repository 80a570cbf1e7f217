"""Splits by category as thresholds on few numbers: the sets of codes that go right, covered by chains.

Sets of which each holds the one before, a chain, are thresholds on one number: how many of them hold a code. The fewest
chains that cover all sets are what a maximum matching leaves (Dilworth 1950, Fulkerson 1956).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Sets of a feature's categories that are compared with each other, and codes in them: beyond, that takes too long.
_MOST_SETS, _MOST_CODES = 2048, 4096
# For each feature: the codes that go right, -1 for a missing one, and the nodes that split so.
Sets = Mapping[int, Mapping[tuple[int, ...], list[int]]]


@dataclass(frozen=True)
class Chains:
    """The columns that replace one category feature."""

    feature: int
    counts: np.ndarray  # float32 (codes + 2, chains): how many sets of a chain hold a code; any other; a missing one

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """The row of `counts` for each code. XGBoost truncates a fraction, and an unknown code is in no set."""
        import numpy as np

        known = len(self.counts) - 2
        outside = ~((codes >= 0) & (codes < known))
        found = np.where(outside, known, codes).astype(np.intp)
        found[np.isnan(codes)] = known + 1
        return found


def cover_sets(all_sets: Sets, most: int) -> tuple[list[Chains], dict[int, tuple[int, float]]]:
    """Columns of chains, and for each split by category its column and threshold; none if they are more than `most`."""
    import numpy as np

    found: list[Chains] = []
    in_chain: dict[int, tuple[int, float]] = {}
    column = 0
    for feature, of_set in sorted(all_sets.items()):
        codes = max((right[-1] for right in of_set if right), default=-1) + 1
        if len(of_set) > _MOST_SETS or codes > _MOST_CODES:
            return [], {}
        held = np.zeros((len(of_set), codes + 2), dtype=np.float32)
        for row, right in enumerate(of_set):
            held[row, list(right)] = 1  # -1, a missing value, is the last
        chains = _cover(held)
        if column + len(chains) > most:
            return [], {}
        sets = list(of_set.values())
        for chain in chains:
            for place, row in enumerate(chain):
                in_chain |= dict.fromkeys(sets[row], (column, len(chain) - place - 0.5))
            column += 1
        found.append(Chains(feature, np.stack([held[chain].sum(axis=0) for chain in chains], axis=1)))
    return found, in_chain


def _cover(held: np.ndarray) -> list[list[int]]:
    """The fewest chains of sets, each set within the next, that hold all `held` (sets, elements), which differ."""
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    within = (held @ (1 - held).T) == 0  # row's set within column's
    np.fill_diagonal(within, val=False)
    following = maximum_bipartite_matching(csr_matrix(within), perm_type="column").tolist()
    chains = []
    for row in sorted(set(range(len(held))) - set(following)):
        chain = []
        while row != -1:
            chain.append(row)
            row = following[row]
        chains.append(chain)
    return chains
