"""Several verified models that score together: a row by its segment's model, in an ensemble by all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pip_dagster.registry.combine import is_additive, linked, mean
from pip_dagster.registry.composite import Member, Term
from pip_dagster.registry.engines import objective_of
from pip_dagster.registry.engines.protocol import MarginPredictor
from pip_dagster.registry.errors import InvalidModel, SignatureMismatch
from pip_dagster.registry.manifest import Signature

if TYPE_CHECKING:
    import numpy as np


class CompositePredictor:
    """Scores matrices in the composite's feature order; where it has segments, a last column is the segment's number.

    A category's code is its place in the composite's joined list, and is translated to each member's own; a category
    that a member was not trained on is a missing value to it. An ensemble's score is its members' weighted mean in
    float64, summed in the declared order and rounded to float32 once; a single member's scores are unchanged.

    It has no `margin`: a composite cannot be a member of another, and rows of different segments share no link.
    """

    def __init__(self, members: Sequence[MarginPredictor], signature: Signature, *, subject: str) -> None:
        """Wrap the members' predictors, in the order of `signature.composite.members`."""
        assert signature.composite
        self.signature = signature
        self.subject = subject
        self._composite = signature.composite
        self._members = tuple(members)
        self._inputs = tuple(_Input(signature, member) for member in self._composite.members)
        self._columns = len(signature.features) + self._composite.routes

    @property
    def gpu_failure(self) -> Exception | None:
        """The first that a member reports."""
        return next((member.gpu_failure for member in self._members if member.gpu_failure), None)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Score float32 (rows, features), or (rows, features + 1) with segments. As `Predictor.predict`.

        Raises:
            SignatureMismatch: the matrix has another shape, or a row's segment does not exist.
        """
        import numpy as np

        outputs = len(self.signature.outputs)
        shape = (len(X),) if outputs == 1 else (len(X), outputs)
        return self._by_segment(X, self._score_terms, np.empty(shape, dtype=np.float32))

    def contributions(self, X: np.ndarray) -> np.ndarray:
        """Exact SHAP contributions, as `Predictor.contributions`: of a row's own member; of an ensemble, their mean.

        Raises:
            InvalidModel: a mean of probabilities has no contributions that add up to it.
        """
        import numpy as np

        if not is_additive(self._composite):
            raise InvalidModel(
                f"{self.subject}: a mean of scores has no exact contributions, because those of its members add up to "
                "their margins; compose it with `combine: margin`, or remove `explanations` from the declaration"
            )
        features, outputs = len(self.signature.features), len(self.signature.outputs)
        shape = (len(X), features + 1) if outputs == 1 else (len(X), outputs, features + 1)
        return self._by_segment(X, self._explain_terms, np.zeros(shape, dtype=np.float32))

    def gains(self) -> dict[str, float]:
        """The mean of the members' shares, of those that have splits."""
        shares = [found for member in self._members if (found := member.gains())]
        names = dict.fromkeys(name for found in shares for name in found)
        return {name: sum(found.get(name, 0.0) for found in shares) / len(shares) for name in names}

    def _by_segment(
        self, X: np.ndarray, of_terms: Callable[[Sequence[Term], np.ndarray], np.ndarray], result: np.ndarray
    ) -> np.ndarray:
        import numpy as np

        if X.ndim != 2 or X.shape[1] != self._columns:
            raise SignatureMismatch(f"{self.subject} takes a matrix of (rows, {self._columns}), got {X.shape}")
        if not self._composite.routes:
            return of_terms(self._composite.segments[0].terms, X)
        done = 0
        for number, segment in enumerate(self._composite.segments):
            rows = np.flatnonzero(X[:, -1] == number)
            done += len(rows)
            if len(rows):
                result[rows] = of_terms(segment.terms, X if len(rows) == len(X) else X[rows])
        if done != len(X):
            raise SignatureMismatch(f"{self.subject}: {len(X) - done} of {len(X)} rows belong to no segment")
        return result

    def _score_terms(self, terms: Sequence[Term], X: np.ndarray) -> np.ndarray:
        import numpy as np

        if len(terms) == 1:
            return self._members[terms[0].member].predict(self._inputs[terms[0].member].of(X))
        by_margin = self._composite.combine == "margin"
        found = [self._of(term, X, margin=by_margin) for term in terms]
        combined = mean(found, [term.weight for term in terms])
        if by_margin:
            combined = linked(combined, objective_of(self._composite.members[terms[0].member].signature).link)
        with np.errstate(over="ignore"):  # an infinite score refuses the partition
            return combined.astype(np.float32)

    def _of(self, term: Term, X: np.ndarray, *, margin: bool) -> np.ndarray:
        member, taken = self._members[term.member], self._inputs[term.member].of(X)
        return member.margin(taken) if margin else member.predict(taken)

    def _explain_terms(self, terms: Sequence[Term], X: np.ndarray) -> np.ndarray:
        import numpy as np

        found = []
        for term in terms:
            own = self._members[term.member].contributions(self._inputs[term.member].of(X))
            spread = np.zeros((*own.shape[:-1], len(self.signature.features) + 1), dtype=np.float32)
            spread[..., self._inputs[term.member].positions] = own[..., :-1]
            spread[..., -1] = own[..., -1]
            found.append(spread)
        if len(found) == 1:
            return found[0]
        return mean(found, [term.weight for term in terms]).astype(np.float32)


class _Input:
    """Translates the composite's matrix to a member's: its columns in its order, its codes for categories."""

    def __init__(self, signature: Signature, member: Member) -> None:
        import numpy as np

        places = {feature.name: i for i, feature in enumerate(signature.features)}
        self.positions = [places[feature.name] for feature in member.signature.features]
        self._codes: dict[int, np.ndarray] = {}
        for i, feature in enumerate(member.signature.features):
            joined = signature.features[self.positions[i]].categories
            if feature.categories != joined and joined is not None:
                own: dict[str | None, float] = {
                    category: code for code, category in enumerate(feature.categories or ())
                }
                # The last place is for a missing value.
                self._codes[i] = np.array([own.get(each, np.nan) for each in (*joined, None)], dtype=np.float32)
        self._whole = self.positions == list(range(len(signature.features)))

    def of(self, X: np.ndarray) -> np.ndarray:
        """The member's matrix, float32 (rows, its features)."""
        import numpy as np

        width = len(self.positions)
        taken = X[:, :width] if self._whole else X[:, self.positions]
        if self._codes:
            taken = taken.copy()
        for i, codes in self._codes.items():
            column = taken[:, i]
            taken[:, i] = codes[np.where(np.isnan(column), len(codes) - 1, column).astype(np.int64)]
        return taken
