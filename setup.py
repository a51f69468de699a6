"""What pyproject.toml cannot say: a wheel leaves the tests out, an editable install has them.

Tests import `paliflow.tests`, and so do the Ray workers and child processes that they start, so
that the package has to be importable where Paliflow is developed.
"""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithoutTests(build_py):
    """Copies all packages but `paliflow.tests`; an editable install copies none of them."""

    def finalize_options(self) -> None:
        """Reads the packages from pyproject.toml."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [name for name in self.packages if "tests" not in name.split(".")]


setup(cmdclass={"build_py": BuildWithoutTests})
