"""`pip-dagster replay`: check that the recorded features and model still give the stored scores."""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.failures import Unanswered
from pip_dagster.cli.options import json_option, show_keys_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.replay.recorded_rows import RecordedRow
    from pip_dagster.replay.replay import Replay

_SHOWN = 50


@click.command()
@click.argument("pipeline")
@partition_selection("to replay")
@click.option("--scoring", "scoring_id", help="A scoring by its id instead of the live one; see `lineage`.")
@click.option("--key", "keys", multiple=True, help="Show this row; a JSON list if the key has several columns.")
@click.option("--all", "every", is_flag=True, help="Replay every live partition.")
@click.option("--sample", type=click.IntRange(min=1), help="Replay this many live partitions, evenly spread.")
@click.option("--record", "recorded", is_flag=True, help="Record in the audit what it found; the scorecard counts it.")
@show_keys_option
@json_option
@click.pass_obj
def replay(
    project: Project,
    pipeline: str,
    scoring_id: str | None,
    keys: tuple[str, ...],
    every: bool,
    sample: int | None,
    recorded: bool,
    show_keys: bool,
    as_json: bool,
    selected: Selection,
) -> None:
    """Score the recorded features of PARTITION, or of A..B, with the recorded model, and compare with what is stored.

    Exit code 0: identical to the bit. 1: a partition differs. 2: none differs, but one cannot be replayed.
    """
    if every or sample:
        if selected or scoring_id or keys:
            raise click.UsageError("--all and --sample cannot be combined with a partition, --scoring or --key.")
    elif not (selected or scoring_id):
        raise click.UsageError("Name a partition, a --scoring or --all.")
    from pip_dagster.replay import recall
    from pip_dagster.replay.replay import replay as replay_scorings
    from pip_dagster.warehouse.connect import workspace

    try:
        declared = find_pipeline(project, pipeline)
        with workspace(threads=1) as con:
            entries = recall.find(con, declared, partitions=selected.bounds, scoring_id=scoring_id, sample=sample)
        results = list(replay_scorings(declared, entries, keys=keys, progress=progress))
    except PipelineError as error:
        raise Unanswered(f"cannot replay: {error}") from error
    results.sort(key=lambda each: (each.entry.partition_start, each.entry.scoring_id))
    verdicts: Counter[str] = Counter(each.verdict for each in results)
    private = declared.spec.privacy is not None
    for each in results:
        if each.comparison and private and not show_keys:
            each.comparison.examples.clear()
    if recorded and results:
        _record(declared, results, verdicts)
    if as_json:
        show_json({"pipeline": pipeline, "verdicts": verdicts, "partitions": [_plain(each) for each in results]})
    else:
        _show(pipeline, results, verdicts, examples=private and show_keys)
    unknown = [key for key in keys if all(_absent(row) for each in results for row in each.rows if row.key == key)]
    if unknown:
        echo(f"Error: no row has the key {'that you named' if private else ', '.join(unknown)}.", err=True)
    sys.exit(1 if verdicts["differs"] else 2 if verdicts["cannot replay"] or unknown else 0)


def _record(pipeline: Pipeline, results: Sequence[Replay], verdicts: Counter[str]) -> None:
    """Have the audit hold what the replays found; they pass if all are equal to the bit."""
    from pip_dagster.ledger.exercise import Exercise, record_exercise

    first, last = results[0].entry.partition_key, results[-1].entry.partition_key
    found = ", ".join(f"{plural(count, 'partition')} {verdict}" for verdict, count in sorted(verdicts.items()))
    span = first if first == last else f"{first}..{last}"
    done = Exercise("replay", span, {*verdicts} == {"identical"}, found)
    record_exercise(pipeline.project, pipeline.spec.name, done, by=whoami())


def _absent(row: RecordedRow) -> bool:
    return row.features is None and row.stored is None


def _plain(each: Replay) -> dict[str, Any]:
    entry, found = each.entry, each.comparison
    return {
        "partition": entry.partition_key,
        "scoring_id": entry.scoring_id,
        "model": f"{entry.model_name} v{entry.model_version}",
        "verdict": each.verdict,
        "reasons": each.reasons,
        "not_evaluated": each.not_evaluated,
        "rows": found
        and asdict(found) | {"equal": found.equal, "max_ulps": found.max_ulps, "max_absolute": found.max_absolute},
        "engine_then": each.engine_then,
        "engine_now": each.engine_now,
        "engine_differences": {name: {"then": a, "now": b} for name, (a, b) in each.engine_differences.items()},
        "keys": [asdict(row) for row in each.rows],
    }


def _show(pipeline: str, results: Sequence[Replay], verdicts: Counter[str], *, examples: bool = False) -> None:
    columns = [
        *("partition", "verdict", Heading("model", optional=True), "compared", "equal", "differing"),
        # The reasons below name them.
        *(Heading(name, optional=True) for name in ("missing", "extra", "ULPs", "absolute", "engine")),
    ]
    # If not all fit, those that are not identical come first.
    chosen = sorted(results, key=lambda each: each.verdict == "identical")[:_SHOWN]
    shown = [each for each in results if any(each is other for other in chosen)]
    show_table(f"{pipeline}: replayed", columns, (_line(each) for each in shown))
    if len(shown) < len(results):
        echo(f"{plural(len(results) - len(shown), 'more partition')}: list them all with --json.")
    for each in shown:
        for reason in each.reasons:
            echo(f"{each.entry.partition_key} {each.verdict}: {reason}.")
        if examples and each.comparison:
            from pip_dagster.replay.replay import named

            for kind, (example, *_) in each.comparison.examples.items():
                echo(f"{each.entry.partition_key}, a row that is {kind}: {named(example)}.")
        if each.not_evaluated:
            echo(
                f"{each.entry.partition_key}: {', '.join(each.not_evaluated)} not evaluated again: this scoring is "
                "from before the SQL of decisions was recorded. The stored values have the recorded digest."
            )
    if len(results) == 1:
        for when, engine in (("Scored with", results[0].engine_then), ("Replayed with", results[0].engine_now)):
            echo(f"{when} {', '.join(f'{name} {value}' for name, value in sorted(engine.items()))}.")
    for each in shown:
        for row in each.rows:
            _show_row(each, row)
    rows = sum(each.comparison.equal for each in results if each.comparison)
    counted = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(verdicts.items()))
    echo(f"Partitions: {counted}. Equal to the bit: {plural(rows, 'row')}.")


def _line(each: Replay) -> list[Any]:
    found, engine = each.comparison, each.engine_differences
    counts = [found.compared, found.equal, found.differing, found.missing, found.extra] if found else [None] * 5
    changed = ", ".join(f"{name} {then} → {now}" for name, (then, now) in engine.items())
    return [
        each.entry.partition_key,
        each.verdict,
        f"{each.entry.model_name} v{each.entry.model_version}",
        *counts,
        found and found.max_ulps,
        found and found.max_absolute,
        changed or "the same",
    ]


def _show_row(each: Replay, row: RecordedRow) -> None:
    if _absent(row):
        return
    title = f"{each.entry.partition_key}, key {row.key}"
    kept = " (quarantined: not scored)" if row.quarantined else ""
    if row.arm:
        echo(f"{title}: {row.arm} decides about it" + (", by these scores" if row.live else ", not by these scores"))
    echo(f"{title}: recorded features{kept}")  # as the title of a table it would be wrapped
    show_table(None, ["feature", "value"], (row.features or {}).items())
    stored, replayed = row.stored or {}, row.replayed or {}
    if stored or replayed:
        names = dict.fromkeys([*stored, *replayed])
        lines = ([name, _bits(stored.get(name)), _bits(replayed.get(name))] for name in names)
        echo(f"{title}: scores, with their bits as float32")
        show_table(None, ["score", "stored", "replayed"], lines)


def _bits(value: Any) -> Any:
    return f"{value!r} 0x{struct.pack('>f', value).hex()}" if isinstance(value, float) else value
