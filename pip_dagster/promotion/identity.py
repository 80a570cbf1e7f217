"""Gates on the model itself: it reads what the pipeline has, and scores as it was registered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pip_dagster.errors import DeclarationError, RegistryError
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.plural import plural
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.golden import largest_difference
from pip_dagster.registry.load import load_predictor
from pip_dagster.registry.signing import verify_signers
from pip_dagster.registry.version import ModelVersion
from pip_dagster.statistics.gate_result import GateResult


def signature_gate(
    candidate: ModelVersion,
    champion: ModelVersion | None,
    columns: Mapping[str, str] | None,
    *,
    where: str,
    required_signers: Sequence[str] = (),
    root: Path = Path(),
) -> GateResult:
    """Whether the candidate can take the champion's place.

    Its Booster is its manifest's; its features are in the newest stored feature table with types that can mean them
    (`columns`), or, where nothing is stored, in the champion's signature; its outputs are the champion's; and whoever
    must have signed it has.
    """
    problems = []
    try:
        load_predictor(candidate, nthread=1)
    except RegistryError as error:
        problems.append(str(error))
    if columns is not None:
        against = "the newest stored features"
        try:
            encode_model(candidate.manifest, columns, where=where)
        except DeclarationError as error:
            problems.append(f"{error} If the feature SQL has changed, materialize a partition's features first.")
    elif champion is not None:
        against = f"the signature of v{champion.version}"
        problems.extend(_against_champion(candidate, champion))
    else:
        against = "nothing: no features are stored, no version is promoted"
    if champion is not None and candidate.manifest.outputs != champion.manifest.outputs:
        problems.append(
            f"it gives {', '.join(candidate.manifest.outputs)}, v{champion.version} gives "
            f"{', '.join(champion.manifest.outputs)}: who reads the predictions would miss columns"
        )
    try:
        verify_signers(candidate, required_signers, root)
    except RegistryError as error:
        problems.append(str(error))
    features = len(candidate.manifest.features)
    text = "; ".join(problems) or f"fits {against} with {plural(features, 'feature')}"
    if candidate.manifest.verified:
        text += f"; {candidate.manifest.verified}"
    return GateResult("signature", not problems, float(len(problems)), 0.0, text, {"problems": problems})


def _against_champion(candidate: ModelVersion, champion: ModelVersion) -> list[str]:
    known = {feature.name: feature.type for feature in champion.manifest.features}
    problems = []
    offset = candidate.manifest.offset
    if offset is not None and offset not in {champion.manifest.offset, *known}:
        problems.append(f"the offset {offset!r} is not a column that v{champion.version} takes, and none is stored")
    for feature in candidate.manifest.features:
        if feature.name not in known:
            problems.append(f"feature {feature.name!r} is not among those of v{champion.version}, and none is stored")
        elif known[feature.name] != feature.type:
            problems.append(
                f"feature {feature.name!r} is {feature.type}, in v{champion.version} it is {known[feature.name]}"
            )
    return problems


def golden_gate(candidate: ModelVersion, *, threads: int, tolerance: float = 0.0) -> GateResult:
    """Whether the golden rows get the scores they were registered with: bit for bit, on the CPU as at registration.

    `tolerance` counts only where another version of the engine registered them. It passes where erasures left none.
    """
    engine = engine_named(candidate.manifest.engine)
    registered_by, running = candidate.manifest.xgboost_version, engine.version()
    allowed = tolerance if registered_by != running else 0.0
    try:
        difference = largest_difference(candidate, load_predictor(candidate, nthread=threads))
    except RegistryError as error:
        return GateResult("golden_rows", False, None, allowed, str(error))
    if difference is None:
        text = "erasures left no golden row, so that the scores of registration cannot be compared"
        return GateResult("golden_rows", True, None, allowed, text, judged=False)
    passed = difference <= allowed  # False for NaN
    if difference == 0:
        text = "every golden row is scored as at registration, bit for bit"
    else:
        text = (
            f"golden scores are off by up to {difference:.3g}, at most {allowed:g} is allowed (registered by "
            f"{engine.matrix.title} {registered_by}, this is {running})"
        )
    return GateResult("golden_rows", passed, difference, allowed, text)
