"""The asset `<name>/report` of a monitored pipeline: the page, rebuilt by a schedule of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.errors import DeclarationError
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import predictions_key, report_key
from pip_dagster.orchestration.links import docs, report_link
from pip_dagster.orchestration.metadata import digests

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

# Where the pipeline has no schedule, or one without a plain hour.
_DAILY = "0 6 * * *"


def report_definitions(pipeline: Pipeline, declared: Monitoring) -> dg.Definitions:
    """The asset, its job and its schedule."""
    spec = pipeline.spec
    asset = _asset(pipeline)
    job = dg.define_asset_job(
        f"{spec.name}_report_job",
        selection=dg.AssetSelection.assets(report_key(spec)),
        description=f"The report of {spec.name}.",
        executor_def=dg.in_process_executor,
    )
    # The pipeline's own schedule takes a failed tick up again; a report is whole each time.
    own = spec.schedule
    cron = declared.report.schedule or default_cron(own.cron if own else None)
    status = declared.report.status or (own.status if own else "stopped")
    try:
        schedule = dg.ScheduleDefinition(
            name=f"{spec.name}_report_schedule",
            cron_schedule=cron,
            execution_timezone=(own.time_zone if own else None) or spec.partitions.time_zone,
            job=job,
            description=f"Rebuild the report of {spec.name}.",
            default_status=dg.DefaultScheduleStatus(status.upper()),
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise DeclarationError(
            f"Pipeline {spec.name}: monitoring.report.schedule {cron!r} never ticks; expected minute (0-59), hour "
            "(0-23), day (1-31), month (1-12) and weekday (0-6 from Sunday), such as '0 7 * * *'."
        ) from error
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule])


def default_cron(cron: str | None) -> str:
    """An hour after a schedule that ticks at one hour before 23, on its days; else daily at six."""
    fields = cron.split() if cron else []
    if len(fields) == 5 and fields[0].isdigit() and fields[1].isdigit() and int(fields[1]) < 23:
        return " ".join([fields[0], str(int(fields[1]) + 1), *fields[2:]])
    return _DAILY


def _asset(pipeline: Pipeline) -> dg.AssetsDefinition:
    spec = pipeline.spec

    @dg.asset(
        key=report_key(spec),
        deps=[predictions_key(spec)],
        group_name=spec.name,
        owners=list(spec.owners),
        kinds={"html"},
        metadata={**report_link(pipeline), **docs(pipeline, "report")},
        description=f"How {spec.name} is doing: one self-contained page. Also by `pip-dagster report {spec.name}`.",
    )
    def report() -> dg.MaterializeResult[Any]:
        with as_failure():
            metadata = write_report(pipeline)
        return dg.MaterializeResult(metadata=metadata)

    return report


def write_report(pipeline: Pipeline) -> dict[str, dg.MetadataValue]:
    """Write the page and its JSON into the project's folder of reports; what the UI shows of them.

    Raises:
        PipelineError: nothing can be read, or the files cannot be written.
    """
    from pip_dagster.reporting.collect import collect
    from pip_dagster.reporting.files import digest, write
    from pip_dagster.reporting.page import to_html, to_json

    content = collect(pipeline)
    folder = pipeline.project.reports / pipeline.spec.name
    page, data = to_html(content).encode(), to_json(content).encode()
    written = write(folder / "report.html", page)
    write(folder / "report.json", data)
    verdict = content.verdict
    return {
        "verdict": dg.MetadataValue.text(f"{verdict.state}: {verdict.sentence}"),
        "what to do": dg.MetadataValue.text(verdict.action or "nothing now"),
        "open this file": dg.MetadataValue.path(str(written)),  # browsers do not follow links to files
        "since": dg.MetadataValue.text(verdict.since or "none"),
        "alarms": dg.MetadataValue.int(sum(each.status != "resolved" for each in content.alarms)),
        "partitions": dg.MetadataValue.int(content.period.partitions),
        "size (kB)": dg.MetadataValue.int(round(len(page) / 1000)),
        "digests": digests({"page": digest(page), "ledger head": content.origin.ledger_head}),
    }
