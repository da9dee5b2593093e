"""Checks of the computer: disk, memory, processor, text encoding, temporary folder."""

from __future__ import annotations

import codecs
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import FrozenSet, Iterator

from ..docker import Docker, data_root, find_docker
from .facts import Facts, Place
from .findings import EVERYTHING, Finding, Purpose, needs

GIB = 1 << 30
BUILD_NEEDED = 1 * GIB
"""A U-YNet's float, quantized and compiled model, and a short clip's pictures."""

IMAGE_NEEDED = 30 * GIB
"""The vendor's images are 10 to 20 GiB, unpacked beside their archive."""

MEMORY_WANTED = 4 * GIB


def check_disk(facts: Facts) -> Iterator[Finding]:
    """Space for the build folder and for docker's images."""
    build = shlex.quote(str(facts.request.build_dir))
    folder = facts.request.build_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    yield _space(
        "disk",
        facts.host.free_bytes(folder),
        f"in {folder} (build folder)",
        BUILD_NEEDED,
        f"du -sh {build}  # make room, or: --build-dir ELSEWHERE",
        EVERYTHING,
    )
    if facts.place is not Place.HOST or not facts.card_matters:
        return
    found = find_docker(facts.host)
    if found.state is Docker.READY:
        root = data_root(facts.host, found.path)
        if facts.host.exists(root):
            free = facts.host.free_bytes(facts.host.at(root))
            where = f"in {root} (docker's images)"
            # An image that is there already needs no more room.
            yield _space("docker's disk", free, where, IMAGE_NEEDED, "docker system df", needs())


def _space(
    name: str, free: int, where: str, wanted: int, fix: str, needed: FrozenSet[Purpose]
) -> Finding:
    seen = f"{free / GIB:.1f} GiB free {where}"
    if free >= wanted:
        return Finding(name, True, seen)
    return Finding(name, False, f"{seen}, {wanted / GIB:g} GiB are wanted", fix, needed)


def check_memory(facts: Facts) -> Iterator[Finding]:
    """Memory that is available."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", facts.host.read("/proc/meminfo"), re.MULTILINE)
    if found is None:
        yield Finding("memory", None, "/proc/meminfo does not tell")
        return
    free = int(found.group(1)) * 1024
    seen = f"{free / GIB:.1f} GiB available"
    if free < MEMORY_WANTED:
        seen += f", {MEMORY_WANTED / GIB:g} GiB are wanted"
    fix = "deepfake-fpga run --threads 1  # or close other programs"
    yield Finding("memory", free >= MEMORY_WANTED, seen, fix)


def check_processor(facts: Facts) -> Iterator[Finding]:
    """Instructions that make the simulated card quick."""
    text = facts.host.read("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if flags is None:
        yield Finding("processor", None, "/proc/cpuinfo does not tell its instructions")
        return
    have = set(flags.group(1).split())
    cores = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    if have & {"avx512_vnni", "avx_vnni"}:
        speed = "8-bit dot products (VNNI): the device sim is quick"
    elif "avx2" in have:
        speed = "AVX2 without VNNI: the device sim is slower, the numbers are the same"
    else:
        speed = "no AVX2: the device sim is slow, the numbers are the same"
    yield Finding("processor", True, f"{cores} cores, {speed}")


def check_text(facts: Facts) -> Iterator[Finding]:
    """Whether names and messages with accents come through."""
    env = facts.host.env
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    mode = env.get("PYTHONUTF8") == "1" or env.get("PYTHONIOENCODING", "").lower()[:4] == "utf-"
    encoding = locale.partition(".")[2].partition("@")[0]
    try:
        good = mode or (bool(encoding) and codecs.lookup(encoding).name == "utf-8")
    except LookupError:
        good = False
    # From 3.7 on Python itself takes C and POSIX for UTF-8.
    good = good or locale in ("", "C", "POSIX")
    yield Finding(
        "text encoding",
        good,
        locale or "no locale set (Python takes UTF-8)",
        "export LC_ALL=C.UTF-8",
    )


def check_temporary(facts: Facts) -> Iterator[Finding]:
    """Whether the temporary folder takes files."""
    folder = facts.host.env.get("TMPDIR") or "/tmp"
    path = Path(facts.host.at(folder))
    try:
        handle, name = tempfile.mkstemp(prefix="deepfake-fpga-", dir=str(path))
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        seen = f"{folder} takes no file: {error.strerror}"
        yield Finding("temporary folder", False, seen, "export TMPDIR=$HOME/tmp", EVERYTHING)
        return
    yield Finding("temporary folder", True, folder)
