"""Scores of one short answer: VQA accuracy, ANLS, ChartQA's relaxed match, TallyQA's counts.

Case and surrounding space count unless a function says otherwise; a benchmark that ignores them
lower-cases and strips before it asks.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from paliflow.metrics.limits import MAX_CHARACTERS

_REMEMBERED = 100
"""Characters of answers whose normal form is kept at most."""
# VQAv2's evaluation restores a lost apostrophe in these words, one apostrophe at a time
# (couldnt've and couldn'tve, but not couldntve). Source: https://visualqa.org/evaluation.html
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll
    you're you've
"""
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_DIGITS = {"none": "0"} | {word: str(n) for n, word in enumerate(_NUMBERS.split())}
_VQA_WORDS = (
    {
        word[: match.start()] + word[match.end() :]: word
        for word in _CONTRACTIONS.split()
        for match in re.finditer("'", word)
    }
    | {"somebody'd": "somebodyd"}  # the official table has this one backwards
    | {word: digits for word, digits in _DIGITS.items() if int(digits) <= 10}
)
_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def exact_match(target: str, prediction: str) -> bool:
    """Whether the two are the same text."""
    return target == prediction


def vqa_normalize(answer: str) -> str:
    """The official VQAv2 form of an answer.

    No punctuation, lower case, no articles, apostrophes restored, none and zero to ten as digits.
    Its oddities are kept: one comma between digits, or a punctuation mark next to a space, decides
    for the whole answer whether that mark is deleted or becomes a space.
    """
    normalize = _vqa_normalize if len(answer) <= _REMEMBERED else _vqa_normalize.__wrapped__
    return normalize(answer)


@lru_cache(2**16)  # people say the same again and again
def _vqa_normalize(answer: str) -> str:
    answer = text = _strip(answer)
    has_digit_comma = re.search(r"\d,\d", answer)
    for mark in _VQA_PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if has_digit_comma or beside_space else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = (word for word in text.lower().split() if word not in ("a", "an", "the"))
    return " ".join(_VQA_WORDS.get(word, word) for word in words)


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """VQAv2 accuracy of `answer` against what people said, usually ten of them; 0 to 1.

    The mean, over leaving out each person in turn, of min(1, agreeing others / 3). Answers are
    normalised only if people disagree, as the official evaluation does.

    Source: https://visualqa.org/evaluation.html. Raises ValueError if `answers` is empty.
    """
    _check(answers)
    answer, people = _strip(answer), [_strip(text) for text in answers]
    if len(set(people)) > 1:
        answer, people = vqa_normalize(answer), [vqa_normalize(text) for text in people]
    agreeing = people.count(answer)
    left_in = min(1.0, agreeing / 3) * (len(people) - agreeing)  # who disagrees is left out
    left_out = min(1.0, (agreeing - 1) / 3) * agreeing
    return (left_in + left_out) / len(people)


def simple_vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """min(1, people who said exactly this / 3), as OK-VQA, A-OKVQA and VizWiz are scored.

    Raises ValueError if `answers` is empty.
    """
    _check(answers)
    return min(1.0, list(answers).count(answer) / 3)


def anls(target: str, prediction: str, threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity of one pair, 0 to 1 (DocVQA, InfoVQA, ST-VQA).

    0 if at least `threshold` of the characters are wrong. With several targets the score is the
    highest of theirs. Of each text the first `MAX_CHARACTERS` count.

    Source: Biten et al. 2019, https://arxiv.org/abs/1907.00490.
    """
    target, prediction = target[:MAX_CHARACTERS], prediction[:MAX_CHARACTERS]
    if not target:
        return float(not prediction)
    distance = edit_distance(target, prediction) / max(len(target), len(prediction))
    return 1 - distance if distance < threshold else 0.0


def relaxed_match(target: str, prediction: str, tolerance: float = 0.05) -> bool:
    """ChartQA's match: the same text, or a number within `tolerance` of the target, relatively.

    A trailing % divides by 100; thousands separators are not understood; a target of 0 needs the
    same text. Source: Masry et al. 2022, https://arxiv.org/abs/2203.10244, section 5.1.
    """
    if target == prediction:
        return True
    wanted, given = _number(target), _number(prediction)
    if not wanted or given is None:
        return False
    return abs(given - wanted) / abs(wanted) <= tolerance


def count_from_word(text: str) -> str:
    """Digits for none and zero to twenty in any case, anything else as it is (TallyQA)."""
    return _DIGITS.get(text.lower(), text)


def count_match(target: str, prediction: str) -> bool:
    """Whether both name the same count, in digits or in words (TallyQA, CountBenchQA)."""
    return count_from_word(target) == count_from_word(prediction)


def _check(answers: Sequence[str]) -> None:
    if isinstance(answers, str) or not len(answers):
        raise ValueError(f"answers is {answers!r}: give a list with at least one person's answer")


def _strip(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def edit_distance(a: str, b: str) -> int:
    """The Levenshtein distance, a column of its table at a time, in the bits of integers.

    Source: Hyyrö 2003, A bit-vector algorithm for computing Levenshtein and Damerau edit
    distances, figure 7.
    """
    if not a:
        return len(b)
    matches: dict[str, int] = {}
    for row, character in enumerate(a):
        matches[character] = matches.get(character, 0) | 1 << row
    last, full = 1 << len(a) - 1, (1 << len(a)) - 1
    distance, up, down = len(a), full, 0  # where the column rises by one, and where it falls
    for character in b:
        match = matches.get(character, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right, left = down | full & ~(diagonal | up), diagonal & up
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & full, right & diagonal & full
    return distance
