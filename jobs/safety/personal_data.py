"""Personal data in texts: e-mail and IP addresses, phone numbers, cards, IBANs, national ids."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

import phonenumbers

from paliflow.configs.safety import PersonalDataFilter
from paliflow.jobs.safety.checksums import IBAN_LENGTHS, NATIONAL_IDS, is_card, is_iban
from paliflow.jobs.safety.protocol import Score, Span

LONGEST = 2**15
"""Characters of a text beyond which it is not scored: phone numbers take time."""
_CODES = re.compile(r"<(?:loc\d{4}|seg\d{3})>")
"""What a model says of places and masks; its digits are no personal data."""
_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_DIGITS = re.compile(r"(?<!\w)(?<!\d\.)\d+(?:[ -]\d+)*(?!\w)")
_IBAN = re.compile(r"(?<!\w)([A-Za-z]{2})\d\d", re.ASCII)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_LEAST_DIGITS = 7
"""Of a phone number."""


class PersonalData:
    """A `TextFilter`. Each find is a score of 1 under the name that Sensitive Data Protection has
    for its kind; a text without any scores 0 as `personal_data`."""

    name = "personal_data"
    version = f"1+phonenumbers-{phonenumbers.__version__}"

    def __init__(self, settings: PersonalDataFilter) -> None:
        kinds = settings.kinds
        unknown = set(settings.regions) - set(phonenumbers.SUPPORTED_REGIONS)
        if unknown:
            raise ValueError(f"regions: no such countries as {', '.join(sorted(unknown))}")
        ids = [
            (label, re.compile(rf"(?<!\w){pattern}(?!\w)", re.ASCII), holds)
            for region in settings.regions
            for label, pattern, holds in NATIONAL_IDS.get(region, ())
        ]
        # Who comes first has the place: a card's digits may look like a phone's.
        self._searches = [
            search
            for kind, search in (
                ("email", _emails),
                ("iban", _ibans),
                ("card", _cards),
                ("national_id", lambda text: _national_ids(text, ids)),
                ("ip", _addresses),
                ("phone", lambda text: _phones(text, settings.regions)),
            )
            if kind in kinds
        ]

    def score(self, texts: Sequence[str]) -> list[list[Score]]:
        """See `TextFilter`."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> list[Score]:
        if len(text) > LONGEST:
            return [Score("personal_data", None, reason=f"longer than {LONGEST} characters")]
        bare = _CODES.sub(lambda code: " " * len(code[0]), text)
        taken: list[tuple[Span, str]] = []
        for search in self._searches:
            for label, start, end in search(bare):
                if all(end <= span.start or span.end <= start for span, _ in taken):
                    taken.append((Span(start, end), label))
        by_label: dict[str, list[Span]] = {}
        for span, label in sorted(taken):
            by_label.setdefault(label, []).append(span)
        return [
            Score(label, 1.0, True, f"{len(spans)} found", tuple(spans))
            for label, spans in by_label.items()
        ] or [Score("personal_data", 0.0)]


Found = tuple[str, int, int]


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        for found in _EMAIL.finditer(text):
            yield "EMAIL_ADDRESS", *found.span()


def _ibans(text: str) -> Iterator[Found]:
    for found in _IBAN.finditer(text):
        wanted = IBAN_LENGTHS.get(found[1].upper(), 0)
        end, taken = found.start(), ""
        for character in text[found.start() : found.start() + 2 * wanted]:
            if len(taken) == wanted or not (
                (character.isascii() and character.isalnum()) or character in " -"
            ):
                break
            end += 1
            taken += character.upper() if character.isalnum() else ""
        followed = text[end : end + 1].isalnum()
        if wanted and not followed and is_iban(taken):
            yield "IBAN_CODE", found.start(), end


def _cards(text: str) -> Iterator[Found]:
    """Groups of digits that follow each other may hold a card's between others."""
    for run in _DIGITS.finditer(text):
        groups = [match.span() for match in re.finditer(r"\d+", run[0])]
        begin = 0
        while begin < len(groups):
            lengths = accumulate(end - start for start, end in groups[begin : begin + 19])
            ends = [begin + n for n, length in enumerate(lengths) if 13 <= length <= 19]
            for last in reversed(ends):
                start, end = groups[begin][0], groups[last][1]
                if is_card(_plain(run[0][start:end])):
                    yield "CREDIT_CARD_NUMBER", run.start() + start, run.start() + end
                    begin = last
                    break
            begin += 1


def _national_ids(text: str, ids: Sequence[tuple[str, re.Pattern[str], object]]) -> Iterator[Found]:
    for label, pattern, holds in ids:
        for found in pattern.finditer(text):
            if holds(re.sub(r"[ .-]", "", found[0])):  # type: ignore[operator]
                yield label, *found.span()


def _addresses(text: str) -> Iterator[Found]:
    """Public addresses alone: those of private networks tell nothing of anybody."""
    for pattern in (_IPV4, _IPV6):
        for found in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(found[0])
            except ValueError:
                continue
            if address.is_global:
                yield "IP_ADDRESS", *found.span()


def _phones(text: str, regions: Sequence[str]) -> Iterator[Found]:
    if sum(map(str.isdigit, text)) < _LEAST_DIGITS:
        return
    for region in (*regions, "ZZ"):  # of no country: those with a leading plus alone
        for match in phonenumbers.PhoneNumberMatcher(text, region):
            yield "PHONE_NUMBER", match.start, match.end


def _plain(digits: str) -> str:
    return "".join(str(int(d)) for d in digits if d.isdigit())
