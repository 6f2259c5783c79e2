"""Compiles csrc/ into the one native library, and writes down what the assembler said of each kernel.

One library serves every torch from 2.11 on (stable ABI), every Python from 3.11 on (limited API) and every GPU from
compute capability 8.0 on: machine code for the A100, H100 and B200 families, and PTX that the driver translates for
what comes after the H100. It needs nothing at load time but libtorch_cpu.so, which every torch has.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from native_build import fatbinary, ptxas, toolkit
from native_build.toolkit import BuildError, Toolkit

# gencode's two halves: the virtual architecture, and what becomes of it.
TARGETS = (
    ("compute_80", "sm_80"),
    ("compute_90a", "sm_90a"),
    ("compute_100", "sm_100"),
    ("compute_90", "compute_90"),
)
ARCHITECTURES = tuple(sorted(code for _, code in TARGETS))
LIMITED_API = "0x030b0000"
REPORT = "build_report.json"
_EXPORTS = "{ global: PyInit__native; local: *; };\n"


def build(sources: Path, *, output: Path, work: Path) -> Path:
    """Builds `output` from the folder `sources`, and REPORT beside it.

    Args:
        sources: csrc/.
        output: the library to write.
        work: a folder for what comes between.

    Returns:
        The report's path.

    Raises:
        BuildError: a compiler failed (its words are in the text), or the library is not what was asked for.
    """
    tools = toolkit.find()
    work.mkdir(parents=True, exist_ok=True)
    cuda, cpp = sorted(sources.glob("*.cu")), sorted(sources.glob("bindings/*.cpp"))
    objects = [work / f"{source.name}.o" for source in (*cuda, *cpp)]
    commands = [_nvcc(tools, source, work / f"{source.name}.o") for source in cuda]
    commands += [cpp_command(tools, source.relative_to(sources), work / f"{source.name}.o") for source in cpp]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda command: _run(command, sources), commands))
    exports = work / "exports.map"
    exports.write_text(_EXPORTS)
    output.parent.mkdir(parents=True, exist_ok=True)
    _run(_link(tools, objects, exports, output), sources)
    found = fatbinary.architectures(output)
    if found != ARCHITECTURES:
        raise BuildError(f"{output}: has code for {', '.join(found)}; it must be {', '.join(ARCHITECTURES)}")
    return _write_report(tools, said[: len(cuda)], output)


def _nvcc(tools: Toolkit, source: Path, target: Path) -> list[str]:
    generate = [f"-gencode=arch={virtual},code={code}" for virtual, code in TARGETS]
    host = "-Xcompiler=-fPIC,-fvisibility=hidden"
    return [
        *(str(tools.nvcc), "-std=c++20", "-O3", host, *generate, "-Werror=all-warnings", "-Xptxas=-v"),
        *("--compress-mode=size", "-c", source.name, "-o", str(target)),
    ]


def cpp_command(tools: Toolkit, source: Path, target: Path, *, defines: Sequence[str] = ()) -> list[str]:
    """How C++ is compiled, for torch's stable ABI; the last word is the object file."""
    headers = (tools.torch / "include", tools.cuda / "include", tools.python_headers)
    return [
        *(os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden"),
        *("-Wall", "-Wextra", "-Werror", f"-DPy_LIMITED_API={LIMITED_API}", "-DUSE_CUDA"),
        f"-DTORCH_TARGET_VERSION={toolkit.TORCH_TARGET_VERSION}",
        # Its headers name themselves in errors.
        f"-ffile-prefix-map={tools.torch}=torch",
        *(f"-D{define}" for define in defines),
        *(argument for folder in headers for argument in ("-isystem", str(folder))),
        *("-c", str(source), "-o", str(target)),
    ]


def _link(tools: Toolkit, objects: list[Path], exports: Path, output: Path) -> list[str]:
    return [
        *(os.environ.get("CXX", "g++"), "-shared", "-o", str(output), *map(str, objects)),
        *(f"-L{tools.cuda / 'lib'}", "-lcudart_static", f"-L{tools.torch / 'lib'}", "-ltorch_cpu"),
        *("-ldl", "-lrt", "-lpthread", f"-Wl,--version-script={exports}", "-Wl,-s"),
    ]


def _run(command: list[str], folder: Path) -> str:
    # In the sources' folder and by bare names, so that no path of this machine gets into the library.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _write_report(tools: Toolkit, said: list[str], output: Path) -> Path:
    uses = [use for text in said for use in ptxas.parse(text)]
    names = ptxas.readable(use.kernel for use in uses)
    kernels = sorted(replace(use, kernel=names[use.kernel]) for use in uses)
    report = output.with_name(REPORT)
    content = {
        "nvcc": tools.nvcc_version,
        "torch_headers": tools.torch_version,
        "architectures": ARCHITECTURES,
        "kernels": [asdict(use) for use in kernels],
    }
    report.write_text(json.dumps(content, indent=1) + "\n")
    return report
