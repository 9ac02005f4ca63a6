"""Which packages are missing here, and how to bring them where none can be installed.

    python benchmarks/wheels.py

Knows nothing but Python's own library (from 3.11 on, to say what is missing), so that it runs on a
bare machine. A folder ``wheels`` beside the checkout's pyproject.toml is used as it is: what lies
in it is unpacked, and found by ``import``.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "wheels"
# of the tests on a GPU, and of the comparisons
ALSO = (
    *("pytest", "pytest-xdist", "beartype", "hypothesis", "soundfile", "soxr", "av"),
    *("opencv-python-headless", "kornia", "kornia_rs"),
)
OF_TORCH = ("torchvision", "timm", "kornia")  # whose own needs would bring PyTorch again
PLACE = "SIMILITUDE_WHEELS"  # in the environment: they are unpacked there, if there were any
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?(?:[^>]*>=\s*([\d.]+))?")


def missing(also: Sequence[str] = ALSO) -> list[str]:
    """Requirements that are not met here: of the package itself, and some of its extras."""
    if sys.version_info < (3, 11):  # which cannot read the list of them
        return []
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    wanted = {name: least for name, least in map(_parsed, extras) if name in also}
    wanted |= {name: "" for name in also if name not in wanted}
    wanted |= dict(map(_parsed, project["dependencies"]))
    return [
        f"{name}>={least}" if least else name
        for name, least in wanted.items()
        if not _is_there(name, least)
    ]


def _parsed(requirement: str) -> tuple[str, str]:
    found = _REQUIREMENT.match(requirement)
    assert found is not None
    return found[1], found[2] or ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_there(name: str, least: str) -> bool:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version.partition("+")[0])[:3]]


def commands(packages: Sequence[str]) -> Iterator[str]:
    """Shell commands, for another machine, that download wheels which fit this Python."""
    machine = platform.machine()
    glibc = int((platform.libc_ver()[1] or "2.17").split(".")[1])
    # pip takes no tag for those below it
    tags = [f"manylinux_2_{n}_{machine}" for n in range(glibc, 16, -1)]
    where = " ".join(f"--platform {tag}" for tag in (*tags, f"manylinux2014_{machine}"))
    python = f"--python-version {sys.version_info[0]}.{sys.version_info[1]} --implementation cp"
    download = f"python3 -m pip download --only-binary=:all: {python} {where} -d wheels"
    alone = [p for p in packages if _parsed(p)[0] in OF_TORCH]
    others = [p for p in packages if p not in alone]
    if others:
        yield f"{download} {' '.join(repr(p) for p in others)}"
    if alone:
        yield f"{download} --no-deps {' '.join(repr(p) for p in alone)}"


def tell() -> list[str]:
    """Print what is missing, if anything, and how to bring it; the requirements."""
    packages = missing()
    if packages:
        print(f"Not installed here: {', '.join(packages)}. Where pip reaches nothing, download on")
        print("another machine, and put the folder wheels beside pyproject.toml:\n")
        for command in commands(packages):
            print(f"    {command}")
        print(flush=True)
    return packages


def unpack() -> None:
    """Let this process, and those that it starts, find what lies in the folder of wheels."""
    if PLACE in os.environ:
        return
    wanted = {_plain(_parsed(requirement)[0]) for requirement in missing()}
    # pip brings what they need too, of which another version may be here: that one stays
    names = {file: file.name.partition("-")[0] for file in sorted(WHEELS.glob("*.whl"))}
    wheels = [f for f, n in names.items() if _plain(n) in wanted or not _is_there(n, "")]
    if not wheels:
        return
    place = tempfile.mkdtemp(prefix="similitude-wheels-")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, "--target", place, *map(str, wheels)], check=True)
    os.environ[PLACE] = place
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.path.insert(0, place)
    importlib.invalidate_caches()


def prepare() -> None:
    """Make the package and what it needs importable, or end with what is missing."""
    is_first = PLACE not in os.environ
    unpack()
    os.environ.setdefault(PLACE, "")
    source = str(ROOT / "src")
    if source not in os.environ.get("PYTHONPATH", ""):
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        sys.path.insert(0, source)
    if is_first:
        tell()
    try:
        import similitude.training.step  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"{error}: see above what must lie beside it") from error


if __name__ == "__main__":
    unpack()
    if not tell():
        print("Everything is installed here.")
