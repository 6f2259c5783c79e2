"""Adds the native library to the wheel; pyproject.toml has the rest.

An editable installation has none (`available()` says so): CPU tests need no compiler.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOM = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOM))  # a build backend leaves the project's own folder out

from native_build import library  # noqa: E402


class BuildLibrary(build_ext):
    """Builds by native_build instead of setuptools' own compiler commands, which know no nvcc."""

    def run(self) -> None:
        """Builds all extensions, of which there is one; none for an editable installation."""
        if not self.editable_mode:
            super().run()

    def build_extension(self, ext: Extension) -> None:
        """Builds the library and its report into the wheel."""
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        work = Path(self.build_temp).resolve()
        library.build(ROOM / "csrc", output=output, work=work)

    def get_outputs(self) -> list[str]:
        """What goes into the wheel."""
        if self.editable_mode:
            return []
        return [*super().get_outputs(), str(Path(self.build_lib, "datahall_kernels", library.REPORT))]

    def get_output_mapping(self) -> dict[str, str]:
        """What an editable installation links to: nothing."""
        return {}


setup(
    ext_modules=[Extension("datahall_kernels._native", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": BuildLibrary},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
