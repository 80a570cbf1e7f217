"""Why a model's scores differ from those of training: each known cause is tried, and named if it explains them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.registry.engines import objective_of
from pip_dagster.registry.engines.protocol import Engine, MarginPredictor
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.training_scores import differ, float_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pip_dagster.registry.calibration import Calibration

_SENTINELS = (-999.0, -9999.0, -99999.0, -99.0, -1.0, 0.0, 99.0, 999.0, 9999.0, 99999.0)
_ROWS = 1000
# Every number of rounds is tried with models up to this size and number; with others only all rounds.
_LARGEST, _MOST_ROUNDS = 2**22, 400
_UNKNOWN = (
    "No known cause explains all of it. Check that training scored these very rows in this order, with this file, and "
    "how it built its matrix: the value of `missing`, a base margin, iteration_range, the lists of categories."
)


@dataclass(frozen=True)
class Causes:
    """The model that scored `X`, the encoded `sample`, and the ways to score it otherwise."""

    engine: Engine
    data: bytes
    signature: Signature
    sample: pa.Table
    X: np.ndarray
    calibration: Calibration | None = None

    def __call__(self, theirs: np.ndarray, differing: np.ndarray) -> str:
        """The likely cause that training's scores `theirs` differ in these rows, as the end of an error."""
        import numpy as np

        chosen = np.unique(np.concatenate([differing[:_ROWS], np.arange(min(_ROWS, len(theirs)))]))
        part = Causes(
            self.engine, self.data, self.signature, self.sample.take(chosen), self.X[chosen], self.calibration
        )
        wanted = theirs[chosen]
        own = part.predict()
        if wanted.shape[1] == 1 < own.shape[1]:
            return _UNKNOWN
        for cause, score in part.hypotheses(wanted):
            found = score()
            if found.shape == wanted.shape and not differ(found, wanted).any():
                return f"Likely cause: {cause}."
        ours = self.predict()
        if not differ(np.sort(ours, axis=0), np.sort(theirs, axis=0)).any():
            return "Likely cause: the same scores, in another order of the rows."
        return _UNKNOWN

    def hypotheses(self, theirs: np.ndarray) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        """What may be different in training, with the scores that would follow."""
        yield from self._of_the_output()
        yield from self._of_missing()
        yield from self._of_offset(theirs)
        yield from self._of_categories()
        yield from self._of_rounds()

    def predict(self, X: np.ndarray | None = None, **changes: Any) -> np.ndarray:
        """The scores as float64 (rows, outputs), under another signature if it has `changes`."""
        return float_columns(self._load(**changes).predict(self.X if X is None else X))

    def _load(self, **changes: Any) -> MarginPredictor:
        return self.engine.load(self.data, self.signature.model_copy(update=changes), subject="the model", nthread=1)

    def _of_the_output(self) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        import numpy as np

        yield (
            "they are margins (output_margin=True), and the model scores by its objective's link; give the scores of "
            "predict()",
            lambda: float_columns(self._load().margin(self.X)),
        )
        if self.signature.task == "binary":
            yield (
                "they are probabilities, and this objective scores log-odds; give the scores of predict()",
                lambda: 1 / (1 + np.exp(-float_columns(self._load().margin(self.X)))),
            )
        if (calibration := self.calibration) is not None:
            yield (
                "they are calibrated, and are compared with the raw scores; give those of predict()",
                lambda: calibration.apply(self.predict()).astype(np.float64),
            )

    def _of_missing(self) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        import numpy as np

        if self.signature.missing is not None:
            # What was encoded as missing cannot be restored from the matrix.
            from pip_dagster.registry.encoding import encode

            without = self.signature.model_copy(update={"missing": None})
            yield (
                f"training did not count {self.signature.missing:g} as missing; omit --missing",
                lambda: self.predict(encode(self.sample, without), missing=None),
            )
        features = self.X[:, : len(self.signature.features)]
        for value in _SENTINELS:
            if (features == np.float32(value)).any():
                yield (
                    f"training counted {value:g} as missing; declare it with --missing={value:g}",
                    lambda value=value: self.predict(missing=value),  # type: ignore[misc]
                )

    def _of_offset(self, theirs: np.ndarray) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        import numpy as np

        if self.signature.offset is not None:
            yield (
                "training had no offset; omit --offset",
                lambda: self.predict(self.X[:, :-1], offset=None),
            )
        link = objective_of(self.signature).link
        if theirs.shape[1] > 1 or link not in ("identity", "logistic", "exponential"):
            return
        features = self.X[:, : len(self.signature.features)]

        def scored(offset: np.ndarray) -> np.ndarray:
            return self.predict(np.column_stack([features, offset.astype(np.float32)]), offset="offset")

        # Without a base margin of zero the margin would hold the base score.
        zero = np.column_stack([features, np.zeros(len(features), dtype=np.float32)])
        margin = float_columns(self._load(offset="offset").margin(zero))[:, 0]
        with np.errstate(all="ignore"):
            wanted = theirs[:, 0]
            if link != "identity":
                wanted = np.log(wanted) if link == "exponential" else np.log(wanted / (1 - wanted))
            constant = float(np.median(wanted - margin))
        if np.isfinite(constant):
            yield (
                f"training had a constant base margin of {constant:.6g}; add it as a column and declare --offset",
                lambda: scored(np.full(len(features), constant)),
            )
        for name, values in self._numeric_columns():
            with np.errstate(all="ignore"):
                candidates = ((name, values), (f"log({name})", np.log(values)))
            for text, offset in candidates:
                if np.isfinite(offset.astype(np.float32)).all():
                    yield (
                        f"training had the base margin {text}; declare a column with it as --offset",
                        lambda offset=offset: scored(offset),  # type: ignore[misc]
                    )

    def _numeric_columns(self) -> Iterator[tuple[str, np.ndarray]]:
        import numpy as np
        import pyarrow as pa

        for name in dict.fromkeys(self.sample.column_names):
            if self.sample.column_names.count(name) == 1:
                kind = self.sample.column(name).type
                if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                    yield name, np.asarray(self.sample.column(name).to_numpy(), dtype=np.float64)

    def _of_categories(self) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        import numpy as np

        X, several = self.X.copy(), []
        for i, feature in enumerate(self.signature.features):
            if feature.categories is None or list(feature.categories) == sorted(feature.categories):
                continue
            places = np.array([sorted(feature.categories).index(each) for each in feature.categories])
            present = ~np.isnan(self.X[:, i])
            X[present, i] = places[self.X[present, i].astype(np.int64)]
            alone = self.X.copy()
            alone[:, i] = X[:, i]
            several.append(feature.name)
            yield _sorted_lists([feature.name]), lambda alone=alone: self.predict(alone)  # type: ignore[misc]
        if len(several) > 1:
            yield _sorted_lists(several), lambda: self.predict(X)

    def _of_rounds(self) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        used = self.signature.iteration_range[1]
        yield (
            f"training used all rounds, and the registered version the first {used}, up to the Booster's "
            "best_iteration; score with iteration_range in training, or remove that attribute",
            lambda: self.predict(iteration_range=(0, 0)),
        )
        if len(self.data) <= _LARGEST and used <= _MOST_ROUNDS:
            for rounds in range(used - 1, 0, -1):
                yield (
                    f"training used the first {rounds} of the rounds, and the registered version {used}; save "
                    f"booster[:{rounds}], or set its best_iteration to {rounds - 1}",
                    lambda rounds=rounds: self.predict(iteration_range=(0, rounds)),  # type: ignore[misc]
                )


def _sorted_lists(names: list[str]) -> str:
    return (
        f"training had the categories of {', '.join(map(repr, names))} in sorted order; give the lists in the order of "
        "training's codes with --categories"
    )
