"""The reader of FairFace's label files, as they were published and as spreadsheets leave them."""

from collections.abc import Iterator, Mapping

from paliflow.jobs.examples.benchmarks.files import records
from paliflow.jobs.examples.benchmarks.rows import Files, Row

_AGES = ("0-2", "3-9", *(f"{ten}-{ten + 9}" for ten in range(10, 70, 10)), "more than 70")
_SPOILT = {"9-Mar": "3-9", "03-Sep": "3-9", "3-Sep": "3-9", "19-Oct": "10-19", "Oct-19": "10-19"}
"""Ages that a spreadsheet took for dates."""
_VALUES = {
    "gender": ("Male", "Female"),
    "race": (
        "White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern",
        "Latino_Hispanic",
    ),
    "age": _AGES,
}  # fmt: skip


def fairface(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """FairFace: a line for each face, with gender, race and age as people perceived them.

    Raises:
        ValueError: a label is none of FairFace's, as in copies that a spreadsheet has changed
            beyond what can be told.
    """
    for line, record in enumerate(records(files["rows"]), 2):
        if not {"file", *_VALUES} <= record.keys():
            raise ValueError("fairface_label: the columns have to be file, age, gender, race")
        own = {name: str(record[name] or "").strip() for name in _VALUES}
        own["age"] = _SPOILT.get(own["age"], own["age"])
        for name, value in own.items():
            if value not in _VALUES[name]:
                raise ValueError(
                    f"fairface_label, line {line}: {name}={value!r} is none of "
                    f"{', '.join(_VALUES[name])}; a spreadsheet may have changed this copy: take "
                    "the published file"
                )
        folder, _, name = str(record["file"] or "").strip().rpartition("/")
        if folder.removeprefix("fairface/") != values["split"] or not name:
            yield f"a file that is not in {values['split']}/"
            continue
        groups = {"gender": [own["gender"]], "ethnicity": [own["race"]], "age": [own["age"]]}
        yield Row(name, {"name": name}, (), groups, {})
