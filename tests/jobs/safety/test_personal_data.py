"""Personal data: planted values are found where they stand; what only looks alike is not."""

import random
from typing import Any

import pytest

from paliflow.configs.base import SpecError
from paliflow.configs.safety import PersonalDataFilter
from paliflow.jobs.safety.checking import TextCheck, outcome, redact, text_filter
from paliflow.jobs.safety.personal_data import LONGEST

EVERYWHERE = ("US", "GB", "DE", "FR", "IN", "ES", "IT", "BR")
PLANTED = [
    ("card", "CREDIT_CARD_NUMBER", value)
    for value in (
        "4111 1111 1111 1111",
        "4222222222222",
        "5555-5555-5555-4444",
        "2223003122003222",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
        "6200000000000005",
    )
]
PLANTED += [
    ("iban", "IBAN_CODE", value)
    for value in (
        "DE89 3704 0044 0532 0130 00",
        "gb82west12345698765432",
        "FR1420041010050500013M02606",
        "NO9386011117947",
        "CH93 0076 2011 6238 5295 7",
        "MT84MALT011000012345MTLCAST001S",
        "SA0380000000608010167519",
    )
]
PLANTED += [
    ("phone", "PHONE_NUMBER", value)
    for value in (
        "(650) 253-0000",
        "020 7031 3000",
        "030 303986300",
        "01 42 68 53 00",
        "080 6721 8000",
        "+81 3-6384-9000",  # of a country that is not among the regions
    )
]
PLANTED += [
    ("national_id", label, value)
    for label, value in (
        ("US_SOCIAL_SECURITY_NUMBER", "078-05-1120"),
        ("UK_NATIONAL_INSURANCE_NUMBER", "AB 12 34 56 C"),
        ("GERMANY_TAXPAYER_IDENTIFICATION_NUMBER", "86 095 742 719"),
        ("FRANCE_NIR", "2 55 08 14 168 025 38"),
        ("SPAIN_NIF_NUMBER", "12345678Z"),
        ("SPAIN_NIF_NUMBER", "X-1234567-L"),
        ("ITALY_FISCAL_CODE", "RSSMRA85T10A562S"),
        ("BRAZIL_CPF_NUMBER", "529.982.247-25"),
        ("INDIA_AADHAAR_INDIVIDUAL", "2341 2341 2346"),
    )
]
PLANTED += [
    ("email", "EMAIL_ADDRESS", "jo.oneil+x@mail.example.co.uk"),
    ("email", "EMAIL_ADDRESS", "müller@bücher.example"),
    ("ip", "IP_ADDRESS", "8.8.4.4"),
    ("ip", "IP_ADDRESS", "2001:4860:4860::8888"),
]


def found(text: str, **settings: Any) -> dict[str, list[str]]:
    """What stands where something was found, by its label."""
    chosen = text_filter(PersonalDataFilter(regions=EVERYWHERE, **settings))
    (scores,) = chosen.score([text])
    assert all(score.flagged == (score.score == 1) for score in scores)
    return {s.label: [text[a:b] for a, b in s.spans] for s in scores if s.flagged}


@pytest.mark.parametrize(("kind", "label", "value"), PLANTED, ids=lambda value: str(value))
def test_planted_value_is_found_exactly_where_it_stands(kind: str, label: str, value: str) -> None:
    for text in (value, f"Ask {value}, or not.", f"a 12 cats\n{value} on 7 mats"):
        assert found(text, kinds=[kind]) == {label: [value]}, text
    assert label in found(f"he wrote: {value}.")


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "1234567812345670",  # Luhn holds, and nobody issues it
        "411111111111111",  # Visa's have no 15 digits
        "DE89 3704 0044 0532 0130 01",
        "DE8937040044053201300",  # a character short
        "XX89370400440532013000",
        "000-12-3456 666-12-3456 912-34-5678 123-00-4567 123-45-0000",
        "GB123456A",
        "12345678A",
        "86095742718",
        "111.111.111-11",
        "2 55 13 14 168 025 38",
        "2341 2341 2347",
        "192.168.0.1 127.0.0.1 300.1.1.1 1.2.3.4.5 fe80::1 12:30:45 std::vector",
        "@home me@ @x.y a@b",
        "<loc0650><loc0253><loc0000><loc0101> cat <seg041><seg111>",
        "score 12345, page 12 of 340, in 2024",
    ],
)
def test_what_only_looks_like_personal_data_is_not_found(text: str) -> None:
    assert found(text, kinds=["card", "iban", "national_id", "ip", "email"]) == {}


def test_card_is_found_between_other_digits_and_not_called_a_phone_number() -> None:
    text = "order 12 4111 1111 1111 1111 2027 and 5555555555554444"
    assert found(text) == {"CREDIT_CARD_NUMBER": ["4111 1111 1111 1111", "5555555555554444"]}


def test_redaction_replaces_each_find_by_its_label_and_nothing_else() -> None:
    check = TextCheck([PersonalDataFilter(action="redact")])
    text = "Ünal <a@b.example>, +1 650-253-0000 or a@b.example; <loc0001> 8.8.8.8"
    clean = "a cat on a mat"
    ((verdicts, redacted), (none, same)) = check.verdicts([text, clean], "caption")
    assert redacted == (
        "Ünal <[EMAIL_ADDRESS]>, [PHONE_NUMBER] or [EMAIL_ADDRESS]; <loc0001> [IP_ADDRESS]"
    )
    told = {(each.label, each.score, each.action, each.reason) for each in verdicts}
    assert ("EMAIL_ADDRESS", 1.0, "redact", "2 found") in told
    assert {each.field for each in verdicts} == {"caption"}
    assert not any("650" in str(each) for each in verdicts)  # never what was found
    assert [(each.label, each.score, each.action) for each in none] == [
        ("personal_data", 0.0, "pass")
    ]
    assert (same, outcome(none), outcome(verdicts)) == (clean, "ok", "ok")
    assert redact(redacted, text_filter(PersonalDataFilter()).score([redacted])[0]) == redacted


def test_text_that_is_too_long_is_unscored_and_not_called_clean() -> None:
    check = TextCheck([PersonalDataFilter(action="drop")])
    long = "a@b.example " * (LONGEST // 12 + 1)
    ((verdicts, text), (dropped, _)) = check.verdicts([long, "a@b.example"], "text")
    assert [(each.score, each.action) for each in verdicts] == [(None, "unscored")]
    assert (text, outcome(verdicts), outcome(dropped)) == (long, "unscored", "filtered")


def test_unknown_region_is_an_error_that_names_it() -> None:
    with pytest.raises(SpecError, match="regions: no such countries as XQ"):
        text_filter(PersonalDataFilter(regions=("US", "XQ")))


def test_random_digits_are_seldom_taken_for_cards() -> None:
    draw = random.Random(0)
    numbers = ["".join(draw.choices("0123456789", k=16)) for _ in range(2000)]
    chosen = text_filter(PersonalDataFilter(kinds=("card", "iban", "email", "ip")))
    flagged = sum(score.flagged for scores in chosen.score(numbers) for score in scores)
    assert 0 < flagged < 2000 * 0.06  # Luhn alone would let a tenth pass
