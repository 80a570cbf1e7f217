"""Models: immutable versions, their manifests, and the aliases that point at them.

Importing this package loads no XGBoost, pandas or Arrow: status commands read manifests only.
"""

from __future__ import annotations

from pip_dagster.errors import InvalidName, RegistryError
from pip_dagster.registry.aliases import AliasChange
from pip_dagster.registry.errors import (
    AliasConflict,
    CorruptRegistry,
    DigestMismatch,
    InvalidModel,
    InvalidSample,
    ModelNotFound,
    RegistryBusy,
    SignatureMismatch,
    UnsafeModelFile,
)
from pip_dagster.registry.manifest import Feature, Histogram, Manifest, Signature
from pip_dagster.registry.store import Registry
from pip_dagster.registry.version import ModelVersion

__all__ = [
    "AliasChange",
    "AliasConflict",
    "CorruptRegistry",
    "DigestMismatch",
    "Feature",
    "Histogram",
    "InvalidModel",
    "InvalidName",
    "InvalidSample",
    "Manifest",
    "ModelNotFound",
    "ModelVersion",
    "Registry",
    "RegistryBusy",
    "RegistryError",
    "Signature",
    "SignatureMismatch",
    "UnsafeModelFile",
]
