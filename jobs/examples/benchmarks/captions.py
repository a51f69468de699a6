"""Readers of caption files that are no lists of records."""

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from paliflow import storage
from paliflow.jobs.examples.benchmarks.files import records, text_lines
from paliflow.jobs.examples.benchmarks.rows import Files, Row
from paliflow.jobs.media.edits import Edit, Outline

_TRANSLATION = "translation_tokenized"
_LIMIT = 2**20
"""Bytes of the file of a caption."""
_TREE = 2**26
"""Bytes of the tree of a screen."""
_CANVAS = 2560
"""Pixels of the height that RICO's trees have."""


def screen2words(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """Screen2Words: a table of summaries, several a screen, and a list of a split's screens."""
    summaries: dict[str, list[str]] = {}
    for record in records(files["summaries"]):
        if not {"screenId", "summary"} <= record.keys():
            raise ValueError("the table has no columns screenId and summary")
        summaries.setdefault(record["screenId"], []).append(record["summary"])
    for screen in text_lines(files["screens"]):
        if screen in summaries:
            yield Row(screen, {"screen": screen}, tuple(summaries[screen]), {}, {})
        else:
            yield "a screen without summaries"


def coco35l(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """COCO-35L: a line for each caption and language; an image's captions are one row.

    English is what German was translated from, as in big_vision.
    """
    english = values["language"] == "en"
    wanted, field = ("de", "caption_tokenized") if english else (values["language"], _TRANSLATION)
    images = {str(image.get("cocoid")): image for image in records(files["images"], "images")}
    captions: dict[str, list[str]] = {}
    for record in records(files["captions"], containing=f'"{wanted}"'):
        if record.get("trg_lang") == wanted:
            image = str(record["image_id"]).partition("_")[0]
            captions.setdefault(image, []).append(record[field])
    for image, own in captions.items():
        if image in images:
            yield Row(image, images[image], tuple(own), {}, {})
        else:
            yield "no such image in dataset_coco.json"


def xm3600(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """Crossmodal-3600: a line for each image, with the captions of each language."""
    for record in records(files["captions"]):
        own = record.get(values["language"])
        if not isinstance(own, dict) or not isinstance(own.get("caption"), list):
            yield "no captions in the language"
            continue
        image = str(record["image/key"])
        yield Row(image, {"image": image}, tuple(map(str, own["caption"])), {}, {})


def scicap(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """SciCap: a list of figures, and a file for each with its whole caption, normalised.

    "First sentence" names the list alone: the caption that is scored is the whole one.
    """
    *above, folder, _ = files["list"].split("/")
    root = "/".join(above[:-3])
    for record in records(files["list"]):
        name = str(record["value"])
        caption = f"{root}/SciCap-Caption-All/{folder}/{posixpath.splitext(name)[0]}.json"
        try:
            content = json.loads(storage.read_bytes(caption, limit=_LIMIT))
            said = content["1-lowercase-and-token-and-remove-figure-index"]["caption"]
        except FileNotFoundError:
            yield "a figure without a caption"
        except (ValueError, KeyError, TypeError, RecursionError):
            yield "a caption's file is not in the official form"
        else:
            yield Row(name, {"name": name, "folder": folder}, (str(said),), {}, {})


def widgets(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """Widget Captioning: a table of widgets, a list of a split's screens, and a tree of each screen
    in which a widget has its place.

    The widget is outlined on the picture of its screen, whose canvas is 2560 pixels high.
    """
    captions: dict[str, dict[str, list[str]]] = {}
    for record in records(files["captions"]):
        if not {"screenId", "nodeId", "captions"} <= record.keys():
            raise ValueError("the table has no columns screenId, nodeId and captions")
        own = captions.setdefault(record["screenId"], {}).setdefault(record["nodeId"], [])
        own.extend(record["captions"].split("|"))
    for screen in text_lines(files["screens"]):
        if screen not in captions:
            continue
        try:
            content = storage.read_bytes(f"{files['trees']}/{screen}.json", limit=_TREE)
            root = json.loads(content)["activity"]["root"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if storage.is_transient(error):
                raise
            root = None
        for node, said in captions[screen].items():
            outline = _outline(root, node)
            if outline is None:
                yield "a widget that its screen's tree lacks"
            else:
                fields = {"screen": screen}
                yield Row(f"{screen}_{node}", fields, tuple(said), {}, {}, Edit(outline=outline))


def _outline(root: Any, node: str) -> Outline | None:
    """Where a widget is, by its path in the tree of its screen."""
    try:
        for step in node.split(".")[1:]:
            root = root["children"][int(step)]
        outline = Outline(box=root["bounds"], canvas_height=_CANVAS)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    left, top, right, bottom = outline.box
    return outline if left <= right and top <= bottom else None


def activitynet_cap(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """ActivityNet Captions: of each video several segments, each with a sentence."""
    for video in records(files["rows"]):
        segments, sentences = video.get("timestamps"), video.get("sentences")
        if not isinstance(segments, list) or not isinstance(sentences, list):
            yield "a video without lists of timestamps and sentences"
            continue
        if len(segments) != len(sentences):
            yield "a video with more timestamps than sentences, or fewer"
            continue
        seen: list[str] = []
        for segment, sentence in zip(segments, sentences, strict=True):
            try:
                edit = Edit(segment=segment)
            except ValueError:
                yield "a segment that ends before it begins"
                continue
            name = f"{video['key']}[{segment[0]}-{segment[1]}]"
            seen.append(name)
            name += f"-{times}" if (times := seen.count(name)) > 1 else ""
            yield Row(name, {"video": video["key"]}, (str(sentence),), {}, {}, edit)
