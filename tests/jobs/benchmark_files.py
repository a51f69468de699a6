"""Benchmarks in their official files, tiny ones, with the oddities of the real ones."""

import bz2
import csv
import json
import pickle
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.benchmarks.digits.scenes import compose
from paliflow.configs.benchmark import benchmark
from paliflow.tests.jobs.videos import write as write_video

COUNT = "how many digits are there?"
SCENES = 4


class Folder:
    """A folder of a benchmark's data, and pictures to put there; the last is never there."""

    def __init__(self, pictures: Path, folder: Path) -> None:
        self._pictures, self.folder = sorted(pictures.glob("*.png")), folder

    def image(self, path: str, number: int) -> str:
        """Puts a picture at a path; returns the path."""
        if number < SCENES:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._pictures[number], self.folder / path)
        return path

    def text(self, path: str, content: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content.encode())

    def json(self, path: str, content: Any) -> None:
        self.text(path, json.dumps(content))

    def lines(self, path: str, rows: list[Any], end: str = "\n") -> None:
        self.text(path, "".join(json.dumps(row) + end for row in rows))

    def table(self, path: str, rows: list[list[str]]) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (self.folder / path).open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def draw(folder: Path) -> list[int]:
    """Draws the pictures; how many digits are on each."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    counts = []
    for number in range(SCENES):
        scene = compose(rng, "test", scale=2)
        scene.image.save(folder / f"{number}.png")
        counts.append(len(scene.digits))
    return counts


def people(answer: str, other: str = "9", agree: int = 7) -> list[dict[str, Any]]:
    """Ten people's answers as VQA files have them."""
    said = [answer] * agree + [other] * (10 - agree)
    return [{"answer_id": n + 1, "answer": each, "raw_answer": each} for n, each in enumerate(said)]


def vqav2(f: Folder, counts: list[int], prefix: str = "v2_") -> None:
    questions, annotations = [], []
    for n, count in enumerate([*counts, 1]):  # of the last the image is missing
        f.image(f"val2014/COCO_val2014_{n + 1:012d}.jpg", n)
        own = {"question_id": 10 * n, "image_id": n + 1}
        questions.append({**own, "question": COUNT})
        kinds = {"answer_type": "number", "question_type": "how many"}
        annotations.append({**own, **kinds, "answers": people(str(count), agree=3 + n)})
    f.json(f"{prefix}OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    name = f"{prefix}mscoco_val2014_annotations.json"
    f.json(name, {"annotations": annotations[::-1]})  # in another order


def okvqa(f: Folder, counts: list[int]) -> None:
    vqav2(f, counts, prefix="")


def aokvqa(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        f.image(f"val2017/{n:012d}.jpg", n)
        rows.append(
            {
                "question_id": f"q{n}", "image_id": n, "question": COUNT,
                "choices": [str(count + 1), str(count), "none", "many"], "correct_choice_idx": 1,
                "direct_answers": [str(count)] * (n + 1) + ["x"] * (9 - n),
                "difficult_direct_answer": n == 0,
            }
        )  # fmt: skip
    f.json("aokvqa_v1p0_val.json", rows)


def gqa(f: Folder, counts: list[int], path: str = "testdev_balanced_questions.json") -> None:
    found = {}
    for n, count in enumerate(counts):
        f.image(f"images/n{n}.jpg", n)
        found[f"0{n}"] = {
            "imageId": f"n{n}", "question": COUNT, "answer": str(count + n % 2),
            "types": {"structural": ["query", "verify"][n % 2]},
        }  # fmt: skip
    f.json(path, found)


def xgqa(f: Folder, counts: list[int]) -> None:
    for n, language in enumerate(["bn", "de", "en", "id", "ko", "pt", "ru", "zh"]):
        gqa(f, counts[: 1 + n % 4], f"testdev_balanced_questions_{language}.json")


def textvqa(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        f.image(f"train_images/a{n}.jpg", n)
        said = [each["answer"] for each in people(str(count), agree=2 + n)]
        rows.append({"question_id": n, "image_id": f"a{n}", "question": COUNT, "answers": said})
    f.json("TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    turns = [["a0", "0.0"], ["a1", "90.0"], ["a2", ""], ["b9", "270.0"], ["a3", "180"]]
    f.table("train-images-boxable-with-rotation.csv", [["ImageID", "Rotation"], *turns])


def docvqa(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        image = f"documents/d{n}.png"
        f.image(f"val/{image}", n)
        rows.append(
            {
                "questionId": n, "question": f"answer en {COUNT}", "image": image,
                "answers": [f"{count}x", "Never"], "question_types": ["handwritten", "others"],
            }
        )  # fmt: skip
    f.json("val/val_v1.0.json", {"data": rows})  # as older downloads have it


def infovqa(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        f.image(f"images/{n}.jpeg", n)
        own = {"questionId": n, "question": COUNT, "image_local_name": f"{n}.jpeg"}
        kinds = {"answer_type": ["single span"], "evidence": ["Text", "Figure"][: n % 3]}
        rows.append({**own, **kinds, "answers": [str(count)]})
    f.json("infographicsVQA_val_v1.0_withQT.json", {"data": rows})


def stvqa(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        path = f.image(f"train_images/coco-text/{n}.jpg", n).partition("/")[2]
        own = {"question_id": n, "question": COUNT, "file_path": path}
        rows.append({**own, "answers": [str(count), "Two"]})
    f.json("train_task_3.json", {"data": rows})


def chartqa(f: Folder, counts: list[int]) -> None:
    for n, kind in enumerate(["human", "augmented"]):
        rows = []
        for k, count in enumerate(counts[n:]):
            name = f"{kind}{k}.png"
            f.image(f"test/png/{name}", n + k)
            label: Any = [str(count)] if n else str(count)  # one copy has lists
            rows.append({"imgname": name, "query": f"answer en {COUNT}", "label": label})
        f.json(f"test/test_{kind}.json", rows)


def vizwiz(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        name = f"VizWiz_val_{n:08d}.jpg"
        f.image(f"val/{name}", n)
        said = [*([str(count)] * (1 + n)), "", *["unanswerable"] * (8 - n)]
        answers = [{"answer": each, "answer_confidence": "yes"} for each in said]
        kinds = {"answer_type": "number", "answerable": n % 2}
        rows.append({"image": name, "question": COUNT, "answers": answers, **kinds})
    f.json("Annotations/val.json", rows)


def tallyqa(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        image = f.image(f"VG_100K_2/{n}.jpg", n)
        own = {"image": image, "image_id": n, "question_id": 5, "question": COUNT}
        rows.append({**own, "answer": count + n // 3, "issimple": n > 1})
    f.json("test.json", rows)


def pope(f: Folder, counts: list[int]) -> None:
    for kind in ("random", "popular", "adversarial"):
        rows = []
        for n in range(SCENES):
            image = f.image(f"val2014/COCO_val2014_{n:012d}.jpg", n).partition("/")[2]
            label = ["yes", "no"][n % 2]
            rows.append({"question_id": n, "image": image, "text": "is it?", "label": label})
        f.lines(f"output/coco/coco_pope_{kind}.json", rows, "\r\n")


def countbenchqa(f: Folder, counts: list[int]) -> None:
    """In two row groups; of the second row the image is gone."""
    questions: list[dict[str, str]] = [{"question": COUNT} for _ in counts]
    rows = []
    for n, count in enumerate(counts):
        f.image(f"{n}.png", n)
        content = (f.folder / f"{n}.png").read_bytes()
        (f.folder / f"{n}.png").unlink()
        image = None if n == 1 else {"bytes": content, "path": None}
        rows.append({"image": image, "text": "x", "image_url": "x", "number": count})
    file = f.folder / "data" / "train-00000-of-00001-cf54c241ba947306.parquet"
    file.parent.mkdir()
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.null())])
    text = [(name, pa.string()) for name in ("text", "image_url")]
    schema = pa.schema([("image", image_type), *text, ("number", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), file, row_group_size=2)
    f.json("countbench_paired_questions.json", questions)


def ocrvqa(f: Folder, counts: list[int]) -> None:
    books: dict[str, Any] = {}
    for n, count in enumerate(counts):
        f.image(f"images/b{n}.jpg", n)
        said = [str(count), "Unknown"]
        books[f"b{n}"] = {"questions": [COUNT, "who?"], "answers": said, "split": 3 - n % 2}
    f.json("dataset.json", books)


def scienceqa(f: Folder, counts: list[int]) -> None:
    problems: dict[str, Any] = {}
    for n in range(SCENES):
        key = str(n + 1)
        f.image(f"test/{key}/image.png", n)
        own = {"question": "which?", "choices": ["this", "that"], "answer": n % 2, "hint": ""}
        image = {"image": None if n == 3 else "image.png"}  # without one it is no row
        problems[key] = {**own, **image, "subject": "natural science", "grade": f"grade{n}"}
    f.json("problems.json", problems)
    f.json("pid_splits.json", {"train": [], "test": ["1", "2", "3", "4"]})


def rsvqa(f: Folder, counts: list[int], prefix: str, images: str) -> None:
    questions: list[Any] = [{"id": 9, "active": False}]  # which has nothing else
    answers = []
    for n, count in enumerate(counts):
        f.image(images.format(n), n)
        kind = ["count", "comp", "presence", "comp"][n]
        own = {"id": n, "img_id": n, "type": kind, "question": COUNT.upper(), "active": True}
        questions.append({**own, "answers_ids": [n + 50]})
        answers.append({"id": n + 50, "question_id": n, "answer": f"{count}", "active": True})
    f.json(f"{prefix}_questions.json", {"questions": questions})
    f.json(f"{prefix}_answers.json", {"answers": answers})


def rsvqa_lr(f: Folder, counts: list[int]) -> None:
    rsvqa(f, counts, "LR_split_test", "Images_LR/{}.tif")


def rsvqa_hr(f: Folder, counts: list[int]) -> None:
    for split in ("test", "test_phili"):
        rsvqa(f, counts, f"USGS_split_{split}", "Data/{}.png")


def docci(f: Folder, counts: list[int]) -> None:
    rows = []
    for n, count in enumerate(counts):
        f.image(f"images/test_{n:05d}.jpg", n)
        own = {"example_id": f"test_{n:05d}", "image_file": f"test_{n:05d}.jpg"}
        rows.append({**own, "split": "test" if n else "train", "description": f"{count} digits."})
    f.lines("docci_descriptions.jsonlines", rows)


def screen2words(f: Folder, counts: list[int]) -> None:
    rows = [["screenId", "summary"]]
    for n in range(SCENES):
        f.image(f"combined/{n}.jpg", n)
        rows += [[str(n), f'digits, "{n}" of them\non a page'], [str(n), "some digits"]]
    f.table("screen_summaries.csv", rows)
    f.text("split/test_screens.txt", "0\r\n2\r\n3\r\n77\r\n")  # the last has no summaries


def cococap(f: Folder, counts: list[int]) -> None:
    images = []
    for n in range(SCENES):
        name = f"COCO_val2014_{n:012d}.jpg"
        f.image(f"val2014/{name}", n)
        raw = [f'a page with {n} digits, "{k}".' for k in range(5 + n % 2)]
        sentences = [{"raw": each, "tokens": each.split(), "sentid": 9} for each in raw]
        own = {"filepath": "val2014", "filename": name, "cocoid": n, "sentences": sentences}
        images.append({**own, "split": ["val", "test"][n == 3]})
    f.json("dataset_coco.json", {"images": images, "dataset": "coco"})


def nocaps(f: Folder, counts: list[int]) -> None:
    images, annotations = [], []
    for n in range(SCENES):
        f.image(f"validation/{n:04d}.jpg", n)
        domain = ["in-domain", "out-domain"][n % 2]
        images.append({"id": n, "file_name": f"{n:04d}.jpg", "domain": domain})
    for k in range(8):  # those of one image are not together
        own = {"id": 100 + k, "image_id": k % SCENES}
        annotations.append({**own, "caption": f"caption {k} of a page"})
    content = {"images": images, "annotations": annotations}
    f.json("nocaps_val_4500_captions.json", content)
    f.json("nocaps_test_image_info.json", {"images": images})


def textcaps(f: Folder, counts: list[int]) -> None:
    rows = []
    for k in range(8):
        image = f"{k % SCENES:016x}"
        f.image(f"train_images/{image}.jpg", k % SCENES)
        own = {"image_id": image, "caption_id": k, "image_name": "x"}
        rows.append({**own, "caption_str": f"The Page {k}", "reference_strs": ["x"]})
    f.json("TextCaps_0.1_val.json", {"dataset_name": "textcaps", "data": rows})


def coco35l(f: Folder, counts: list[int]) -> None:
    images, lines = [], []
    languages = benchmark("coco35l").parts["language"]
    for n in range(2):
        name = f"COCO_val2014_{n:012d}.jpg"
        f.image(f"val2014/{name}", n)
        images.append({"filepath": "val2014", "filename": name, "cocoid": n})
        for language in languages:
            for k in range(2):
                own = {"image_id": f"{n}_{k + 1}", "src_lang": "en", "trg_lang": language}
                english = f"a page with {n} digits , take {k}"
                said = {"caption_tokenized": english, "translation_tokenized": f"{language} {n}"}
                lines += [{**own, **said}] if language != "en" else []
    f.json("dataset_coco.json", {"images": images})
    packed = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (f.folder / "coco_mt_dev.jsonl.bz2").write_bytes(bz2.compress(packed))


def xm3600(f: Folder, counts: list[int]) -> None:
    rows = []
    for n in range(2):
        f.image(f"images/{n:016x}.jpg", n)
        captions = {
            language: {"caption": [f"{language} {n}\u2028digits"], "caption/tokenized": ["x"]}
            for language in benchmark("xm3600").parts["language"]
        }
        rows.append({"image/key": f"{n:016x}", "image/locale": "en", **captions})
    f.lines("captions.jsonl", rows)


def scicap(f: Folder, counts: list[int]) -> None:
    lists = "List-of-Files-for-Each-Experiments/First-Sentence/No-Subfig/Test"
    names = [f"fig{n}.png" for n in range(SCENES)]
    for n, name in enumerate(names):
        f.image(f"SciCap-No-Subfig-Img/Test/{name}", n)
        said = {"caption": f"a figure of {n} digits . and more of it", "sentence": ["a figure"]}
        whole = {"1-lowercase-and-token-and-remove-figure-index": said}
        if n < SCENES - 1:  # of the last the caption is missing
            f.json(f"SciCap-Caption-All/Test/fig{n}.json", whole)
    f.json(f"{lists}/file_idx.json", names)


def fairface(f: Folder, counts: list[int]) -> None:
    rows = [["file", "age", "gender", "race", "service_test"]]
    ages = ["50-59", "9-Mar", "Oct-19", "more than 70"]  # two of them as a spreadsheet has them
    races = ["East Asian", "Latino_Hispanic", "White", "White"]
    for n in range(SCENES):
        f.image(f"val/{n + 1}.jpg", n)
        gender = ["Male", "Female"][n % 2]
        rows.append([f"val/{n + 1}.jpg", ages[n], gender, races[n], "TRUE"])
    f.table("fairface_label_val.csv", rows)


def refcoco(f: Folder, counts: list[int]) -> None:
    """Two expressions an image; the last image's object is a list of runs, and one is unknown."""
    side = 40
    polygon = [[10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]]
    runs = {"size": [side, side], "counts": [side * 20, side * 10, side * 10]}
    images = [{"id": n, "file_name": "x.jpg", "height": side, "width": side} for n in range(SCENES)]
    annotations = [
        {
            "id": 100 + n, "image_id": n, "category_id": 1, "iscrowd": int(n == SCENES - 1),
            "segmentation": runs if n == SCENES - 1 else polygon,
            "bbox": [20, 0, 10, 40] if n == SCENES - 1 else [10, 10, 20, 10],
        }
        for n in range(SCENES)
    ]  # fmt: skip
    f.json("annotations/instances_train2017.json", {"images": images, "annotations": annotations})
    references = [
        {
            "ref_id": n, "ann_id": 100 + n, "image_id": n, "split": "val" if n else "testA",
            "file_name": f"COCO_train2014_{n}_{n}.jpg", "sent_ids": [2 * n, 2 * n + 1],
            "sentences": [
                {"sent_id": 2 * n + k, "sent": f"the {k} one", "raw": "The one", "tokens": ["the"]}
                for k in range(2)
            ],
        }
        for n in range(SCENES + 1)
    ]  # fmt: skip
    for number in range(SCENES):
        f.image(f"train2017/{number:012d}.jpg", number)
    for own, author in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        (f.folder / own).mkdir()
        (f.folder / own / f"refs({author}).p").write_bytes(pickle.dumps(references, protocol=0))


def mmvp(f: Folder, counts: list[int]) -> None:
    rows = [["Index", "Question", "Options", "Correct Answer"]]
    for n, count in enumerate(counts):
        f.image(f"MMVP Images/{n + 1}.jpg", n)
        rows.append([str(n + 1), COUNT, f"(a) {count} (b) {count + 1}", "(a)"])
    f.table("Questions.csv", rows)


def nlvr2(f: Folder, counts: list[int]) -> None:
    rows = []
    for n in range(SCENES):
        for side in range(2):  # of the last pair the right image is missing
            number = SCENES if (n, side) == (3, 1) else n
            f.image(f"test1/test1-{n // 2}-{n % 2}-img{side}.png", number)
        own = {"identifier": f"test1-{n // 2}-{n % 2}-0", "sentence": "both have digits"}
        rows.append({**own, "label": ["True", "False"][n % 2]})
    f.lines("test1.json", rows)


def marvl(f: Folder, counts: list[int]) -> None:
    for language in benchmark("marvl").parts["language"]:
        concept = f"marvl-images/{language}/images/39-\u092a\u0924\u0940\u0932\u093e"
        names = [f.image(f"{concept}/{n}.jpg", n).rpartition("/")[2] for n in range(2)]
        own = {"id": f"{language}-0", "caption": "both", "concept": concept.rpartition("/")[2]}
        row = {**own, "left_img": names[0], "right_img": names[1], "label": language == "id"}
        f.lines(f"marvl-{language}.jsonl", [row])


def film(f: Folder, path: str) -> None:
    (f.folder / path).parent.mkdir(parents=True, exist_ok=True)
    write_video(f.folder / path, "mpeg4", frames=4)


def msrvtt_qa(f: Folder, counts: list[int]) -> None:
    film(f, "video7.mp4")
    own = {"category_id": 1, "video_id": 7, "question": COUNT}
    f.json("test_qa.json", [{**own, "id": n, "answer": str(n)} for n in range(2)])


def msvd_qa(f: Folder, counts: list[int]) -> None:
    film(f, "YouTubeClips/abc_1_2.avi")
    f.text("youtube_mapping.txt", "abc_1_2 vid1\r\nxyz_3_4 vid2\r\n")
    own = {"question": COUNT, "answer": "2"}
    f.json("test_qa.json", [{**own, "id": n, "video_id": n + 1} for n in range(1)])


def activitynet_qa(f: Folder, counts: list[int]) -> None:
    film(f, "v_a-b.mkv")
    own = {"video_name": "a-b", "question": "how many"}
    f.json("test_q.json", [{**own, "question_id": f"q{n}"} for n in range(2)])
    answers = [{"question_id": f"q{n}", "answer": "2", "type": n} for n in range(2)]
    f.json("test_a.json", answers)


def msrvtt_cap(f: Folder, counts: list[int]) -> None:
    videos, sentences = [], []
    for n in range(2):
        film(f, f"video{n}.mp4")
        videos.append({"video_id": f"video{n}", "split": ["test", "train"][n]})
        for k in range(3):
            sentences.append({"video_id": f"video{n}", "caption": f"digits {k}", "sen_id": k})
    f.json("MSRVTT_data.json", {"videos": videos, "sentences": sentences})


def activitynet_cap(f: Folder, counts: list[int]) -> None:
    film(f, "v_a-b.mp4")
    segments = [[0, 0.05], [0.08, 99.5], [0.08, 99.5], [0.1, 0.05]]  # two alike, one of nothing
    said = [f"digits {n}." for n in range(len(segments))]
    f.json("val_2.json", {"v_a-b": {"duration": 0.16, "timestamps": segments, "sentences": said}})


def widgetcap(f: Folder, counts: list[int]) -> None:
    """Two widgets a screen; of the last screen the tree is broken."""
    rows = [["screenId", "nodeId", "captions", "datasetId"]]
    for n in range(SCENES):
        f.image(f"combined/{n}.jpg", n)
        rows.append([str(n), "0.1.0", f"digit {n}|a, digit", "0"])
        rows.append([str(n), "0.0", "top", "0"])
        rows.append([str(n), "0.1.0", "another", "1"])
        inner = {"bounds": [0, 1280, 640, 2559]}
        root = {"children": [{"bounds": [0, 0, 10, 10]}, {"children": [inner]}]}
        f.json(f"combined/{n}.json", {"activity": {"root": root if n < SCENES - 1 else None}})
    f.table("widget_captions.csv", rows)
    f.text("split/test.txt", "0\r\n3\r\n2\r\n1\r\n")


def ai2d(f: Folder, counts: list[int]) -> None:
    """Two questions a diagram, one about letters; one diagram is for training, one lacks labels."""
    for n, count in enumerate(counts):
        f.image(f"ai2d/images/{n}.png", n)
        own = {"answerTexts": ["none", str(count)], "correctAnswer": 1}
        questions = {
            COUNT: {**own, "questionId": f"{n}.png-0", "abcLabel": False},
            "what is A?": {**own, "questionId": f"{n}.png-1", "abcLabel": True},
        }
        f.json(f"ai2d/questions/{n}.png.json", {"imageName": f"{n}.png", "questions": questions})
        text = {"rectangle": [[4, 8], [24, 28]], "replacementText": "A", "value": "seven"}
        annotation = {"text": {"T0": text} if n < SCENES - 1 else {}, "arrows": {}}
        f.json(f"ai2d/annotations/{n}.png.json", annotation)
    f.text("ai2d_test_ids.csv", "0\n2\n3\n")


def vatex(f: Folder, counts: list[int]) -> None:
    film(f, "abc_000001_000011.mp4")
    row = {"videoID": "abc_000001_000011", "enCap": ["a digit", "digits"], "chCap": ["x"]}
    f.json("vatex_public_test_english_v1.1.json", [row])


WRITERS: dict[str, Callable[[Folder, list[int]], None]] = {
    "ai2d": ai2d,
    "aokvqa_da": aokvqa,
    "aokvqa_mc": aokvqa,
    "chartqa": chartqa,
    "coco35l": coco35l,
    "cococap": cococap,
    "countbenchqa": countbenchqa,
    "docci": docci,
    "docvqa": docvqa,
    "fairface": fairface,
    "gqa": gqa,
    "infovqa": infovqa,
    "mmvp": mmvp,
    "nocaps": nocaps,
    "ocrvqa": ocrvqa,
    "okvqa": okvqa,
    "pope": pope,
    "refcoco": refcoco,
    "rsvqa_hr": rsvqa_hr,
    "rsvqa_lr": rsvqa_lr,
    "scicap": scicap,
    "scienceqa": scienceqa,
    "screen2words": screen2words,
    "stvqa": stvqa,
    "tallyqa": tallyqa,
    "textcaps": textcaps,
    "textvqa": textvqa,
    "vizwiz": vizwiz,
    "activitynet_cap": activitynet_cap,
    "activitynet_qa": activitynet_qa,
    "marvl": marvl,
    "msrvtt_cap": msrvtt_cap,
    "msrvtt_qa": msrvtt_qa,
    "msvd_qa": msvd_qa,
    "nlvr2": nlvr2,
    "vatex": vatex,
    "vqav2": vqav2,
    "widgetcap": widgetcap,
    "xgqa": xgqa,
    "xm3600": xm3600,
}


def write_all(folder: Path, names: Iterable[str] = WRITERS) -> list[int]:
    """Writes each benchmark to a folder of its name; how many digits each picture has."""
    counts = draw(folder / "pictures")
    for name in names:
        (folder / name).mkdir()
        WRITERS[name](Folder(folder / "pictures", folder / name), counts)
    return counts
