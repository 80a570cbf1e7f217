"""The 28 tests of the ML Test Score (Breck and others, 2017): what is evidence of each, and how long it holds.

An automatic point needs evidence; a declaration alone is none. The tests of training take a signed statement only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pip_dagster.plural import plural
from pip_dagster.scorecard import data, infrastructure, model, monitored
from pip_dagster.scorecard.found import Found
from pip_dagster.scorecard.records import Records

Section = Literal["data", "model", "infrastructure", "monitoring"]
SECTIONS: tuple[Section, ...] = ("data", "model", "infrastructure", "monitoring")

STATED, PROVEN = 0.5, 1.0
# The longest that a statement holds.
STATEMENT_DAYS = 366
_OLDEST = plural(monitored.OLDEST_TRAINING.days, "day")


@dataclass(frozen=True)
class ScoreTest:
    """One of the 28.

    Attributes:
        name: By which `--state` names it.
        section: One of the four.
        title: What is tested.
        counts: What is evidence of it; empty where nothing is kept that could be.
        days: How long the evidence holds.
        earn: What would earn the point, a sentence.
        find: Finds the evidence; None where a statement is all that can be.
        of_version: Whether a statement is about the live version, and ends with it.
    """

    name: str
    section: Section
    title: str
    earn: str
    counts: str = ""
    days: int | None = None
    find: Callable[[Records], Found] | None = None
    of_version: bool = False


def _stated(name: str, section: Section, title: str, *, of_version: bool = True) -> ScoreTest:
    earn = f"Only a signed statement counts: `pip-dagster scorecard PIPELINE --state {name} --why TEXT`."
    return ScoreTest(name, section, title, earn, of_version=of_version)


TESTS: tuple[ScoreTest, ...] = (
    ScoreTest(
        *("schema", "data", "Features have a schema of expectations"),
        "Declare `quality` with expectations of the features, and run.",
        "expectations of the features that judged the newest live partition, and no critical one that it breaks",
        *(35, data.schema),
    ),
    _stated("useful", "data", "Every feature is useful"),
    _stated("cost", "data", "No feature costs more than it is worth", of_version=False),
    ScoreTest(
        *("meta_level", "data", "Features keep to the rules on what may be used"),
        "Run the declared feature SQL, with a model that uses neither key nor outcome.",
        "the extraction of the newest live partition by the declared SQL, which can read declared sources only, with a "
        "version that has neither the outcome nor the key among its features",
        *(35, data.meta_level),
    ),
    ScoreTest(
        *("privacy", "data", "The data has privacy controls"),
        "`pip-dagster erase --subject ID --why TEXT` erases a person, if only a test subject.",
        "an erasure or a purge of this pipeline that ended and was verified in every place",
        *(366, data.privacy),
    ),
    _stated("time_to_add", "data", "A new feature can be added quickly", of_version=False),
    ScoreTest(
        *("feature_code", "data", "The code of the features is tested"),
        "`pip-dagster prove-point-in-time PIPELINE PARTITION --record` records a proof.",
        "a recorded proof that the declared SQL gives the same features from the rows known at each cut-off",
        *(90, data.feature_code),
    ),
    ScoreTest(
        *("reviewed", "model", "The specification of the model is reviewed"),
        "Name the reviewers' keys in `scoring.required_signers`; `pip-dagster models sign` signs the version.",
        "signatures of all `scoring.required_signers` on the version, from its registration on",
        *(366, model.reviewed),
        of_version=True,
    ),
    _stated("offline_online", "model", "Metrics offline and online agree"),
    _stated("tuned", "model", "Parameters of training are tuned"),
    ScoreTest(
        *("staleness", "model", "The effect of staleness is known"),
        "Declare `labels`; `pip-dagster performance PIPELINE --evaluate` measures each partition.",
        "evaluations of 28 partitions or more by the live version, and the trend of its metric over them",
        *(90, model.staleness),
        of_version=True,
    ),
    ScoreTest(
        *("simpler", "model", "A simpler model is not better"),
        "Declare `labels`; `pip-dagster performance PIPELINE --evaluate` compares with the base rate.",
        "evaluations of 7 partitions or more by the live version, better than a constant score",
        *(90, model.simpler),
        of_version=True,
    ),
    ScoreTest(
        *("slices", "model", "Quality is sufficient in all slices"),
        "Name the columns in `gates.segments`; monitoring judges them where labels are declared.",
        "segments that monitoring judged by labels with no performance alarm, or a passed gate `segment_metric`",
        *(90, model.slices),
        of_version=True,
    ),
    _stated("inclusion", "model", "The model is tested for inclusion"),
    _stated("reproducible", "infrastructure", "Training is reproducible"),
    _stated("unit_tested", "infrastructure", "The specification of the model is unit-tested"),
    ScoreTest(
        *("integration", "infrastructure", "The pipeline is integration-tested"),
        "Declare expectations of sources, features and predictions, and run.",
        "the newest live partition, from its sources to live rows by the present declaration, with expectations of "
        "sources, features and predictions that judged it",
        *(35, infrastructure.integration),
    ),
    ScoreTest(
        *("validated", "infrastructure", "Quality is validated before the model serves"),
        "Promote the next version with `pip-dagster models promote`, with `labels` declared.",
        "a gate report that passed, by labels too, before the recorded move of the alias to the live version",
        *(366, infrastructure.validated),
        of_version=True,
    ),
    ScoreTest(
        *("debuggable", "infrastructure", "Single predictions can be debugged"),
        "`pip-dagster replay PIPELINE PARTITION --record` records a replay; `explanations` store reasons.",
        "a recorded replay that is equal to the bit, or reasons of rows of the newest live partition",
        *(90, infrastructure.debuggable),
    ),
    ScoreTest(
        *("canary", "infrastructure", "Models are tested by a canary"),
        "Declare `scoring.canary`, and let the next version be one before it is promoted.",
        "partitions of which the live version scored a share as a canary, without having been stopped",
        *(90, infrastructure.canary),
        of_version=True,
    ),
    ScoreTest(
        *("rollback", "infrastructure", "Models can be rolled back"),
        "`pip-dagster models rollback PIPELINE` of one partition is a drill.",
        "a rollback that the audit records",
        *(180, infrastructure.rollback),
    ),
    ScoreTest(
        *("dependencies", "monitoring", "Changes of dependencies are noticed"),
        "Declare `alerts`; the next notification that is delivered is evidence.",
        "the record of libraries and sources of the newest live partition, and a delivered notification",
        *(90, monitored.dependencies),
    ),
    ScoreTest(
        *("invariants", "monitoring", "Data invariants hold"),
        "Declare `quality` with expectations of sources or features, and run.",
        "expectations of sources or features that judged the newest live partition, and no critical one that it breaks",
        *(35, monitored.invariants),
    ),
    ScoreTest(
        *("skew", "monitoring", "Features are those of training"),
        "Declare `monitoring`; `pip-dagster alarms` names what is in alarm.",
        "a judgement of the newest live partition against training, with no drift in alarm",
        *(35, monitored.skew),
    ),
    ScoreTest(
        *("not_stale", "monitoring", "The model is not stale"),
        "Train on newer data, and register with the training window.",
        f"a training window that ended {_OLDEST} before the newest live partition or later",
        *(35, monitored.not_stale),
    ),
    ScoreTest(
        *("stable", "monitoring", "The model is numerically stable"),
        "Score a partition; the guard refuses what is infinite.",
        "scorings with finite scores only",
        *(monitored.STABLE_FOR.days, monitored.stable),
    ),
    ScoreTest(
        *("speed", "monitoring", "Speed has not regressed"),
        "Declare `monitoring` and score 16 partitions; `pip-dagster alarms` names what is slow.",
        "the rule of operations that judged the cost of 16 live partitions or more, with no open alarm",
        *(35, monitored.speed),
    ),
    ScoreTest(
        *("quality", "monitoring", "Prediction quality has not regressed"),
        "Declare `labels` and `monitoring`; `pip-dagster performance PIPELINE --evaluate` measures.",
        "evaluations of 21 partitions or more that monitoring compared, with no performance alarm",
        *(35, monitored.quality),
    ),
)


def named(name: str) -> ScoreTest:
    """The test of this name."""
    return next(each for each in TESTS if each.name == name)
