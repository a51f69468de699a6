"""Packages on a Ray cluster: a `runtime_env`'s local folders, uploaded as Ray's own client does."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from airflow.sdk.exceptions import AirflowFailException
from pathspec import GitIgnoreSpec

import paliflow
from paliflow.operators.hook import RayJobHook

_SHIPPED = ("configs", "storage", "model", "metrics", "jobs")
"""What of Paliflow a job imports."""
_LEFT_OUT = (".git", ".venv", "venv", "__pycache__")
"""Ray's RAY_RUNTIME_ENV_DEFAULT_EXCLUDES: of a `working_dir`, never uploaded."""


async def with_uploads(ray: RayJobHook, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Uploads what `working_dir` and `py_modules` name on this machine.

    Returns:
        The `runtime_env` with the packages' URIs in their place.

    Raises:
        AirflowFailException: a path is not there, or is nothing that Ray takes.
        RayJobError: Ray could not be reached.
    """
    excludes = list(runtime_env.get("excludes") or ())
    result = dict(runtime_env)
    folder: Any = runtime_env.get("working_dir")
    if _is_local(folder):
        result["working_dir"] = await ray.upload(*_working_dir(Path(folder), excludes))
    if modules := runtime_env.get("py_modules"):
        result["py_modules"] = [
            await ray.upload(*_py_module(Path(module), excludes)) if _is_local(module) else module
            for module in modules
        ]
    return result


def paliflow_package() -> tuple[str, bytes]:
    """Paliflow as it is on this machine, without what Airflow alone needs.

    A zip that is imported as it lies, and no wheel: that one Ray would install with all that it
    depends on, on every node. It has the metadata in which a job finds its version.

    Returns:
        The package's name, which its content decides, and its content.
    """
    files = [_renamed(_entry(Path(paliflow.__file__), Path(paliflow.__file__).parent), "paliflow")]
    for name in _SHIPPED:
        spec = find_spec(f"paliflow.{name}")
        assert spec
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        inside = _files(folder, folder, ["__pycache__"])
        files += [_renamed(entry, f"paliflow/{name}") for entry in inside]
    about_it = distribution("paliflow")
    # An egg-info, which lies in a source tree, calls it otherwise.
    metadata = about_it.read_text("METADATA") or about_it.read_text("PKG-INFO") or ""
    about = ZipInfo(f"paliflow-{version('paliflow')}.dist-info/METADATA")
    return zipped([*files, (about, metadata.encode())])


def _renamed(entry: tuple[ZipInfo, bytes], folder: str) -> tuple[ZipInfo, bytes]:
    info, data = entry
    info.filename = f"{folder}/{info.filename}"
    return info, data


def zipped(files: Iterable[tuple[ZipInfo, bytes]]) -> tuple[str, bytes]:
    """Zips files; the same files have the same name on the cluster.

    Returns:
        The package's name, which its content decides, and its content.
    """
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as package:
        for info, data in files:
            info.date_time = (1980, 1, 1, 0, 0, 0)
            package.writestr(info, data, ZIP_DEFLATED)
    return _named(content.getvalue())


def _named(content: bytes) -> tuple[str, bytes]:
    return f"_ray_pkg_{hashlib.sha1(content).hexdigest()}.zip", content


def _is_local(path: Any) -> bool:
    return bool(path) and "://" not in str(path)


def _working_dir(path: Path, excludes: list[str]) -> tuple[str, bytes]:
    if path.is_dir():
        return zipped(_files(path, path, [*_LEFT_OUT, *excludes]))
    if path.is_file() and path.suffix == ".zip":
        return _named(path.read_bytes())
    raise _missing("working_dir", path, "a folder or a .zip")


def _py_module(path: Path, excludes: list[str]) -> tuple[str, bytes]:
    path = path.absolute()
    if path.is_dir():
        return zipped(_files(path, path.parent, excludes))
    if path.is_file() and path.suffix == ".py":
        return zipped([_entry(path, path.parent)])
    if path.is_file() and path.suffix == ".whl":
        return path.name, path.read_bytes()
    raise _missing("py_modules", path, "a folder, a .py file or a .whl")


def _missing(field: str, path: Path, wanted: str) -> AirflowFailException:
    said = f"runtime_env: {field}={str(path)!r}: on this worker that is not {wanted}"
    return AirflowFailException(f"{said}; give one, or the URI of a package")


def _files(folder: Path, root: Path, excludes: Iterable[str]) -> Iterator[tuple[ZipInfo, bytes]]:
    """The files below a folder, named relative to `root`, and folders that are empty."""

    def walk(
        path: Path, excluded: tuple[Callable[[Path], bool], ...]
    ) -> Iterator[tuple[ZipInfo, bytes]]:
        if any(is_excluded(path) for is_excluded in excluded):
            return
        if path.is_file():
            yield _entry(path, root)
        elif path.is_dir():
            for name in (".gitignore", ".rayignore"):
                if (path / name).is_file():
                    excluded = (*excluded, _matcher(path, (path / name).read_text().split("\n")))
            inside = sorted(path.iterdir())
            if not inside and path != folder:
                yield _entry(path, root)
            for inner in inside:
                yield from walk(inner, excluded)

    yield from walk(folder, (_matcher(folder, excludes),))


def _matcher(folder: Path, patterns: Iterable[str]) -> Callable[[Path], bool]:
    spec = GitIgnoreSpec.from_lines(patterns)
    return lambda path: spec.match_file(path.relative_to(folder).as_posix())


def _entry(path: Path, root: Path) -> tuple[ZipInfo, bytes]:
    info = ZipInfo.from_file(path, path.relative_to(root).as_posix(), strict_timestamps=False)
    return info, b"" if path.is_dir() else path.read_bytes()
