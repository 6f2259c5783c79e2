"""What the assembler says of each kernel (`-Xptxas -v`): registers and spilled bytes, per architecture."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

_ENTRY = re.compile(r"Compiling entry function '(?P<name>[^']+)' for '(?P<arch>[^']+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
# nvcc gives the anonymous namespace a name with a digest of the path.
_ANONYMOUS = re.compile(r"_GLOBAL__N__\w+?::|\(anonymous namespace\)::")


@dataclass(frozen=True, order=True)
class KernelUse:
    """Of one kernel on one architecture; memory in bytes per thread, shared memory per block."""

    kernel: str
    arch: str
    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int

    @property
    def spills(self) -> bool:
        """Whether values were put into memory for want of registers."""
        return self.spill_store_bytes > 0 or self.spill_load_bytes > 0


def parse(output: str) -> list[KernelUse]:
    """The kernels in nvcc's output, with mangled names, in order of appearance.

    Raises:
        ValueError: an entry has no figures; the assembler speaks another way than this knows.
    """
    found: list[KernelUse] = []
    for part in re.split(r"(?=ptxas info\s+: Compiling entry function)", output):
        entry = _ENTRY.search(part)
        if entry is None:
            continue
        stack, used, shared = _STACK.search(part), _USED.search(part), _SHARED.search(part)
        if stack is None or used is None:
            raise ValueError(f"ptxas: no figures for {entry['name']} ({entry['arch']}) in {part!r}")
        found.append(
            KernelUse(
                kernel=entry["name"],
                arch=entry["arch"],
                registers=int(used[1]),
                stack_bytes=int(stack[1]),
                spill_store_bytes=int(stack[2]),
                spill_load_bytes=int(stack[3]),
                shared_bytes=int(shared[1]) if shared else 0,
            )
        )
    return found


def readable(names: Iterable[str]) -> dict[str, str]:
    """Mangled names to what a person reads: no namespaces, no arguments. Without c++filt they stay as they are."""
    mangled = sorted(set(names))
    tool = shutil.which("c++filt")
    if tool is None or not mangled:
        return {name: name for name in mangled}
    shown = subprocess.run(
        [tool], input="\n".join(mangled), capture_output=True, text=True, check=True
    ).stdout
    return {name: _short(text) for name, text in zip(mangled, shown.splitlines(), strict=True)}


def _short(text: str) -> str:
    text = _ANONYMOUS.sub("", text).replace("datahall::", "").removeprefix("void ")
    return re.sub(r"\((?:int|bool|unsigned int)\)", "", text).split("(")[0]


def table(kernels: Iterable[KernelUse]) -> str:
    """For people: one line per kernel and architecture, those that spill first."""
    lines = [f"{'registers':>9} {'spilled':>8} {'shared':>8}  {'arch':<7} kernel"]
    for use in sorted(kernels, key=lambda use: (not use.spills, use)):
        spilled = use.spill_store_bytes + use.spill_load_bytes
        lines.append(f"{use.registers:>9} {spilled:>8} {use.shared_bytes:>8}  {use.arch:<7} {use.kernel}")
    return "\n".join(lines)
