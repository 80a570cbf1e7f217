"""The definitions of a project, and of several in one code location."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError
from pip_dagster.orchestration.dagster_private import (
    is_code_server,
    project_root,
    suppress_dagster_warnings,
    without_component_tree,
    without_component_types,
)


@suppress_dagster_warnings
def load_project(path_within_project: Path) -> dg.Definitions:
    """What `dg.load_from_defs_folder` loads; quicker in a run.

    Dagster adds the schema of every component type that is installed, for the UI's page of components. The code server
    serves that page; in the process of a run, this leaves the schemas out.
    """
    tree = dg.ComponentTree.for_project(path_within_project)
    return tree.build_defs() if is_code_server() else without_component_types(tree)


def merge_projects(*projects: dg.Definitions) -> dg.Definitions:
    """One code location's definitions from those of several projects, each from `load_project`.

    Each pipeline keeps its own project: warehouse, registry and published files. `dg.Definitions.merge` refuses two
    component trees; here the first project keeps its own, which is what the UI's page of components shows.

    Raises:
        DeclarationError: two projects define one asset, or have one warehouse.
    """
    owners: dict[object, str] = {}
    for number, definitions in enumerate(projects, 1):
        root = project_root(definitions)
        place = str(root) if root else f"definitions {number}"
        keys: list[object] = [key for asset in definitions.assets or () for key in getattr(asset, "keys", ())]
        keys += [asset.key for asset in definitions.assets or () if isinstance(asset, dg.AssetSpec)]
        for key in keys:
            if key in owners:
                raise DeclarationError(
                    f"{owners[key]} and {place} both define the asset {_shown(key)}, and a code location has an asset "
                    "once. Rename the pipeline in one of them, or load each project as a code location of its own."
                )
        owners |= dict.fromkeys(keys, place)
        warehouse = Project.at(root).warehouse if root else place
        if warehouse in owners:
            raise DeclarationError(
                f"{owners[warehouse]} and {place} have one warehouse, {warehouse}. Give each its own in "
                "[tool.pip_dagster], and unset PIP_DAGSTER_WAREHOUSE, which holds for both."
            )
        owners[warehouse] = place
    first, *others = projects
    return dg.Definitions.merge(first, *map(without_component_tree, others))


def _shown(key: object) -> str:
    return key.to_user_string() if isinstance(key, dg.AssetKey) else str(key)
