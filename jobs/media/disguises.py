"""Files that are something else than their names say."""

_DISGUISES = {
    b"version https://git-lfs.github.com/": "a Git LFS pointer: `git lfs pull` fetches the file",
    b"\x1f\x8b": "gzip: unpack it",
    b"PK\x03\x04": "a zip: unpack it",
    b"BZh": "bzip2: unpack it",
    b"\xfd7zXZ\x00": "xz: unpack it",
    b"\x28\xb5\x2f\xfd": "Zstandard: unpack it",
    b"%PDF": "a PDF: make images of its pages, e.g. with pdftoppm",
    b"%!PS": "PostScript: make images of its pages, e.g. with Ghostscript",
    b"<svg": "SVG: draw it, e.g. with rsvg-convert",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}
HEAD_BYTES = max(map(len, _DISGUISES))
"""So many first bytes tell."""


def disguise(head: bytes) -> str | None:
    """What a file is that begins so, with what to do about it; None of one that may be itself."""
    known = (said for start, said in _DISGUISES.items() if head.startswith(start))
    return next(known, None)


def require_itself(head: bytes) -> None:
    """
    Raises:
        ValueError: a file that begins so is something else.
    """
    if said := disguise(head):
        raise ValueError(f"it is {said}")
