"""What pyproject.toml cannot say: the wheel carries the demo's project, which is beside the package in a clone."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# The folder's name is that of no Python module: nothing can import the demo from an installation.
DEMO = "pip_dagster/scaffold/demo-project"
PARTS = ("flights", "data/flight_delay")


class BuildWithDemo(build_py):
    """Copies the demo's project beside the package's modules; `pip-dagster demo` writes it into an empty folder."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, DEMO)
        shutil.rmtree(target, ignore_errors=True)
        for part in PARTS:
            shutil.copytree(part, target / part, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithDemo})
