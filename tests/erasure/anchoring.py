"""A project whose audit is anchored."""

from pip_dagster.registry.signing import keygen

ANCHORS = (
    '[tool.pip_dagster.anchors]\nkey = "anchor.pem"\nsigners = ["anchor.pub.pem"]\n'
    '[tool.pip_dagster.anchors.places]\narchive = {file = "archive/audit.ndjson"}\n'
)


def declare_anchors(tiny):
    """A key, and a file as the only place."""
    keygen(tiny.root / "anchor")
    with (tiny.root / "pyproject.toml").open("a") as file:
        file.write(ANCHORS)
