"""A verified Booster that scores exactly as registered, for production, golden rows and gates alike."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from pip_dagster.plural import plural
from pip_dagster.registry.booster_signature import BoosterSignature
from pip_dagster.registry.engines.xgboost.gpu import Batches, GpuError, to_device, to_host
from pip_dagster.registry.engines.xgboost.model_file import written_by
from pip_dagster.registry.errors import InvalidModel, SignatureMismatch

if TYPE_CHECKING:
    import numpy as np
    import xgboost as xgb

    from pip_dagster.registry.engines.xgboost.numeric_splits import NumericSplits

# From this many rows numeric splits save more than they cost to derive. The cost grows with the trees as scoring does,
# but one thread pays it; the number is for two threads.
_MANY_ROWS = 100_000
# Each process checks on this many rows that they score as the Booster does.
_TRIED_ROWS = 1024


class BoosterPredictor:
    """Scores matrices in the manifest's feature order."""

    def __init__(
        self, booster: xgb.Booster, signature: BoosterSignature, *, nthread: int, device: str, subject: str
    ) -> None:
        """Wrap a Booster that is known to be safe."""
        _check_features(booster, signature, subject)
        parameters: dict[str, Any] = {"nthread": nthread, "device": device}
        if signature.objective == "multi:softmax":
            # The same trees; the class alone would hide the probabilities.
            parameters["objective"] = "multi:softprob"
        booster.set_param(parameters)
        self.signature: BoosterSignature = signature
        self.subject = subject
        self._booster = booster
        self._nthread = nthread
        self._batches = Batches() if device != "cpu" else None
        self.gpu_failure: GpuError | None = None  # partitions in progress must then be scored again
        # In place is fastest, but gblinear does not support it, and 3.2's dart differs from DMatrix in the last bits.
        self._in_place = signature.booster == "gbtree" and booster_name(booster) == "gbtree"
        self._by_category = any(feature.type == "category" for feature in signature.features)
        self._rows_scored = 0
        self._numeric: NumericSplits | None = None
        self._numeric_tried = False

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Score float32 (rows, features) in manifest order, categories as codes, NaN for missing; last, an offset.

        Returns float32, (rows,) for one output, else (rows, outputs), exactly as XGBoost computes them. The caller has
        refused infinite values.

        Raises:
            InvalidModel: the scores have an unexpected shape.
            SignatureMismatch: the matrix has another shape.
        """
        return self._checked(X, margin=False)

    def margin(self, X: np.ndarray) -> np.ndarray:
        """The scores before the objective's link function, in the shapes of `predict`."""
        return self._checked(X, margin=True)

    def _checked(self, X: np.ndarray, *, margin: bool) -> np.ndarray:
        import numpy as np

        shape = self._shape_for(X)
        if len(X) == 0:
            return np.empty(shape, dtype=np.float32)
        scores = self._score(np.ascontiguousarray(X, dtype=np.float32), margin=margin)
        if scores.shape != shape:
            raise InvalidModel(f"{self.subject}: XGBoost gave scores of shape {scores.shape}, expected {shape}")
        return scores

    def _shape_for(self, X: np.ndarray) -> tuple[int, ...]:
        features, outputs = len(self.signature.features), len(self.signature.outputs)
        features += self.signature.offset is not None
        if X.ndim != 2 or X.shape[1] != features:
            raise SignatureMismatch(f"{self.subject} takes a matrix of (rows, {features}), got {X.shape}")
        return (len(X),) if outputs == 1 else (len(X), outputs)

    def contributions(self, X: np.ndarray) -> np.ndarray:
        """Exact SHAP contributions of each feature to the margin, for a matrix as `predict` takes it.

        Returns float32, (rows, features + 1) for one output, else (rows, outputs, features + 1). The last of the
        features + 1 is the base; together they sum to the margin, the score before the objective's link function
        (log-odds for a probability). Never approximate. A row costs hundreds of times its prediction.

        Raises:
            InvalidModel: XGBoost has none for this kind of model.
            SignatureMismatch: the matrix has another shape.
        """
        import numpy as np
        import xgboost as xgb

        shape = (*self._shape_for(X), len(self.signature.features) + 1)
        if len(X) == 0:
            return np.empty(shape, dtype=np.float32)
        matrix = self._matrix(np.ascontiguousarray(X, dtype=np.float32))
        try:
            found = self._booster.predict(matrix, pred_contribs=True, iteration_range=self.signature.iteration_range)
        except xgb.core.XGBoostError as error:
            raise InvalidModel(
                f"{self.subject}: XGBoost {xgb.__version__} cannot explain its scores: {first_line(error)}; "
                "remove `explanations` from the declaration"
            ) from error
        if found.shape != shape:
            raise InvalidModel(f"{self.subject}: XGBoost gave contributions of shape {found.shape}, expected {shape}")
        return found

    def gains(self) -> dict[str, float]:
        """Each feature's share of the total gain of the splits that score; empty for a linear model."""
        import numpy as np

        if booster_name(self._booster) == "gblinear":
            return {}
        scored = self.signature.iteration_range
        booster = self._booster[scored[0] : scored[1]] if scored[1] else self._booster
        found = {each: float(np.sum(gain)) for each, gain in booster.get_score(importance_type="total_gain").items()}
        total, names = sum(found.values()), [feature.name for feature in self.signature.features]
        return {names[int(place[1:])]: gain / total for place, gain in found.items()} if total > 0 else {}

    def _score(self, X: np.ndarray, *, margin: bool) -> np.ndarray:
        if self._batches is None:
            return self._score_on_cpu(X, margin)
        try:
            return self._batches.score(lambda part: self._score_on_gpu(part, margin), X)
        except GpuError as error:
            self.gpu_failure = error
            raise

    def _score_on_gpu(self, X: np.ndarray, margin: bool) -> np.ndarray:
        import numpy as np

        rounds = self.signature.iteration_range
        features, offset = self._parts(X)
        there = to_device(features) if self._in_place else None
        if there is None:  # from numpy, XGBoost would build the same DMatrix and warn each time
            return self._booster.predict(self._matrix(X), iteration_range=rounds, output_margin=margin)
        return to_host(
            self._booster.inplace_predict(
                there,
                iteration_range=rounds,
                missing=np.nan,
                predict_type="margin" if margin else "value",
                base_margin=offset,
            )
        )

    def _score_on_cpu(self, X: np.ndarray, margin: bool) -> np.ndarray:
        import numpy as np

        rounds = self.signature.iteration_range
        if self._in_place:
            X, offset = self._parts(X)
            wanted = "margin" if margin else "value"
            numeric = self._numeric_splits(X)
            if numeric is not None and numeric.faster(X):
                return numeric.predict(X, iteration_range=rounds, predict_type=wanted, base_margin=offset)
            return self._booster.inplace_predict(
                X, iteration_range=rounds, predict_type=wanted, missing=np.nan, base_margin=offset
            )
        return self._booster.predict(self._matrix(X), output_margin=margin, iteration_range=rounds)

    def _numeric_splits(self, X: np.ndarray) -> NumericSplits | None:
        """The same trees in their faster form, once many rows were scored; None before, and if there is none.

        Without categories they gain nothing until a value is missing.
        """
        import numpy as np

        self._rows_scored += len(X)
        many = self._rows_scored >= _MANY_ROWS * max(1, self._nthread // 2)
        if many and not self._numeric_tried and (self._by_category or np.isnan(X).any()):
            from pip_dagster.registry.engines.xgboost.numeric_splits import NumericSplits

            self._numeric_tried = True
            wrong: object = "scores differ"
            try:
                numeric = NumericSplits.of(self._booster, self._nthread)
                if numeric is None or numeric.agrees(self._booster, X[:_TRIED_ROWS], self.signature.iteration_range):
                    self._numeric, wrong = numeric, None
            except Exception as error:  # whatever it is, XGBoost can score the model itself
                wrong = error
            if wrong:
                warnings.warn(
                    f"{self.subject}: its splits cannot be converted to comparisons of numbers ({wrong}), so XGBoost "
                    "scores the model itself, which takes longer; please report this",
                    stacklevel=2,
                )
        return self._numeric

    def _parts(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The features, where what training called missing is NaN, and the base margin."""
        import numpy as np

        offset = None
        if self.signature.offset is not None:
            X, offset = np.ascontiguousarray(X[:, :-1]), np.ascontiguousarray(X[:, -1])
        if self.signature.missing is not None:
            X = np.where(np.float32(self.signature.missing) == X, np.float32(np.nan), X)
        return X, offset

    def _matrix(self, X: np.ndarray) -> xgb.DMatrix:
        import numpy as np
        import xgboost as xgb

        features, offset = self._parts(X)
        return xgb.DMatrix(
            features,
            base_margin=offset,
            missing=np.nan,
            feature_types=self._booster.feature_types,
            nthread=self._nthread,
        )


def load_booster(data: bytes, subject: str) -> xgb.Booster:
    """Load a model from bytes whose digest was checked, or inside the probe.

    Raises:
        InvalidModel: XGBoost cannot load it, or is older than the version that wrote it.
    """
    import xgboost as xgb

    writer = written_by(data)
    running = tuple(int(part) for part in xgb.__version__.split(".")[:2])
    if writer is not None and writer[:2] > running:
        # Not only caution: 3.2 loads a dart model of 3.4 without an error and scores it without its tree weights.
        raise InvalidModel(
            f"{subject} was written by XGBoost {'.'.join(map(str, writer))}, newer than the {xgb.__version__} here; an "
            f"older version may score it wrongly without an error: install xgboost>={writer[0]}.{writer[1]}, or train "
            "with this one"
        )
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(data))
    except (xgb.core.XGBoostError, ValueError, KeyError, UnicodeError) as error:
        hint = ""
        if writer is not None and writer < (3, 4, 0) <= running:
            hint = (
                f". XGBoost {'.'.join(map(str, writer))} wrote it, and garbles non-ASCII categories: if it has some, "
                "train again on integer codes with feature type 'c', and register with the category lists"
            )
        raise InvalidModel(f"{subject}: XGBoost {xgb.__version__} cannot load it: {first_line(error)}{hint}") from error
    return booster


def booster_name(booster: xgb.Booster) -> str:
    """gbtree, dart or gblinear, as the running XGBoost sees it (3.4 loads dart as gbtree)."""
    return str(json.loads(booster.save_config())["learner"]["gradient_booster"]["name"])


def first_line(error: Exception) -> str:
    """An XGBoost error without its C++ stack."""
    return str(error).split("Stack trace:")[0].strip().replace("\n", " ")


def _check_features(booster: xgb.Booster, signature: BoosterSignature, subject: str) -> None:
    names = [feature.name for feature in signature.features]
    if booster.num_features() != len(names):
        raise SignatureMismatch(
            f"{subject}: the Booster takes {plural(booster.num_features(), 'feature')}, its manifest lists {len(names)}"
        )
    if booster.feature_names is not None and booster.feature_names != names:
        raise SignatureMismatch(
            f"{subject}: the Booster's features are {booster.feature_names}, its manifest's {names}"
        )
    types = booster.feature_types or ["q"] * len(names)
    for feature, kind in zip(signature.features, types, strict=True):
        if (kind == "c") != (feature.type == "category"):
            raise SignatureMismatch(
                f"{subject}: feature {feature.name!r} is {feature.type} in the manifest, {kind!r} in the Booster"
            )
    # Columns go by position from here on: a DMatrix refuses names with [, ] or <, which R and one-hot encoders give.
    booster.feature_names = None
