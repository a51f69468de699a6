"""Roots: the folders and prefixes that a file of names may lead to, links resolved."""

import errno
import os
from collections.abc import Collection
from urllib.parse import unquote

from paliflow.configs.base import redacted
from paliflow.storage import local, remote

_OUTSIDE = "it lies outside of its manifest's folder and of allowed_roots"


class OutsideError(PermissionError):
    """A file that lies outside of the roots; `filename` is where it really is."""


def within(uri: str, roots: Collection[str] | None) -> str:
    """Returns what to open in place of a URI: of a local file its real path.

    Args:
        uri: local and absolute, or of any storage. `https://` is not looked at: which of its
            hosts may be read says `check_host`.
        roots: local folders and prefixes of URIs; None lets everything pass.

    Raises:
        OutsideError: it lies below none of the roots, or a link leads out of them.
        ValueError: it is no path, or a URI of an unknown kind.
    """
    if roots is None or uri.startswith("https://"):
        return uri
    if "://" in uri:
        place = uri
        if not uri.startswith("gs://"):
            remote.check_scheme(uri)
    else:
        place = local.real_path(uri)
        roots = [os.path.realpath(root) for root in roots if "://" not in root]
    if any(lies_below(place, root) for root in roots):
        return place
    raise OutsideError(errno.EACCES, _OUTSIDE, redacted(place))


def lies_below(uri: str, root: str) -> bool:
    """Whether a path or URI is a root or below it, letter by letter; never one with `..` in it."""
    if uri != root and not uri.startswith(root.rstrip("/") + "/"):
        return False
    rest = f"/{uri[len(root) :]}"
    if "/." not in rest and "%" not in rest:
        return True
    return {".", ".."}.isdisjoint(unquote(rest).split("/"))
