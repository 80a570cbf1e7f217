"""Reference histograms: how features and scores were distributed in the training sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.registry.manifest import Feature, Histogram, Signature

if TYPE_CHECKING:
    import numpy as np

# Twenty bins of 5 %: the usual grain of PSI, coarse enough for a sample of some hundred rows.
MAX_EDGES = 20


def feature_reference(X: np.ndarray, signature: Signature) -> dict[str, Histogram]:
    """One histogram a feature, from the encoded sample, so of the float32 values that the model sees."""
    return {
        feature.name: _categories(X[:, i], feature) if feature.categories is not None else numeric(X[:, i])
        for i, feature in enumerate(signature.features)
    }


def score_reference(scores: np.ndarray, signature: Signature) -> dict[str, Histogram]:
    """One histogram an output."""
    columns = scores.reshape(len(scores), len(signature.outputs))
    return {output: numeric(columns[:, i]) for i, output in enumerate(signature.outputs)}


def numeric(values: np.ndarray) -> Histogram:
    """A histogram with up to 20 edges; see Histogram for which bin holds an edge.

    Many distinct values: edges at the 5 %, 10 %, … 95 % quantiles. Few (flags, counts): edges halfway between them and
    half a step outside, so that each value has a bin and an unseen value falls into another.
    """
    import numpy as np

    present = values[~np.isnan(values)].astype(np.float64)
    missing = int(len(values) - len(present))
    if len(present) == 0:
        return Histogram(edges=(), counts=(0,), missing=missing)
    distinct = np.unique(present)
    if len(distinct) < MAX_EDGES:
        steps = np.diff(distinct)
        half = float(np.min(steps)) / 2 if len(steps) else 0.5
        edges = np.unique(np.concatenate([[distinct[0] - half], distinct[:-1] + steps / 2, [distinct[-1] + half]]))
    else:
        edges = np.unique(np.quantile(present, np.arange(1, MAX_EDGES) / MAX_EDGES, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    return Histogram(
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
        missing=missing,
        mean=float(present.mean()),
        sd=float(present.std()),
    )


def _categories(codes: np.ndarray, feature: Feature) -> Histogram:
    import numpy as np

    labels = feature.categories or ()
    present = codes[~np.isnan(codes)].astype(np.int64)
    counts = np.bincount(present, minlength=len(labels))
    return Histogram(
        edges=(),
        counts=tuple(int(count) for count in counts),
        missing=int(len(codes) - len(present)),
        labels=labels,
    )
