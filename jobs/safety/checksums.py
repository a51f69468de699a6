"""Checksums and issuers' rules of card numbers, IBANs and national ids."""

import re
from collections.abc import Callable

_ISSUERS = tuple(
    (re.compile(prefix), lengths)
    for prefix, lengths in (
        (r"4", {13, 16, 19}),  # Visa
        (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", {16}),  # Mastercard
        (r"3[47]", {15}),  # American Express
        (r"6011|64[4-9]|65", {16, 17, 18, 19}),  # Discover
        (r"30[0-5]|3[689]", {14, 15, 16, 17, 18, 19}),  # Diners Club
        (r"352[89]|35[3-8]", {16, 17, 18, 19}),  # JCB
        (r"62", {16, 17, 18, 19}),  # UnionPay
        (r"5018|5020|5038|5893|6304|6759|676[1-3]", {16, 17, 18, 19}),  # Maestro
    )
)
# fmt: off
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27,
    "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}
# fmt: on
"""Characters of an IBAN by its country (SWIFT's IBAN registry)."""
_LETTERS_OF_NIF = "TRWAGMYFPDXBNJZSQVHLCKE"
# fmt: off
_FIRST_TEN = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_OF_ITALY = dict(zip(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    (*_FIRST_TEN, *_FIRST_TEN, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
    strict=True,
))
# fmt: on
"""What a character at an odd place counts in an Italian fiscal code."""
# fmt: off
_TIMES = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)
_MOVED = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870",
    "4286573901", "2793806415", "7046913258",
)
# fmt: on
"""Verhoeff's tables: the group of a pentagon's symmetries, and its permutations by place."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(n - 9 * (n > 9) for n in doubled)) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether digits are a payment card's number: its issuer's prefix and length, and Luhn's."""
    known = any(len(digits) in lengths and rule.match(digits) for rule, lengths in _ISSUERS)
    return known and luhn(digits)


def is_iban(text: str) -> bool:
    """Whether characters, upper case and without spaces, are an IBAN (ISO 13616, mod 97)."""
    if len(text) != IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def is_ssn(text: str) -> bool:
    """Whether nine digits were issued as a US social security number."""
    area, group, serial = text[:3], text[3:5], text[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_nino(text: str) -> bool:
    """Whether letters and digits are a UK national insurance number."""
    return text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def is_nif(text: str) -> bool:
    """Whether digits and a letter are a Spanish DNI or, with a first letter X to Z, a NIE."""
    digits = text[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return len(digits) == 8 and _LETTERS_OF_NIF[int(digits) % 23] == text[-1]


def is_nir(text: str) -> bool:
    """Whether 15 characters are a French social security number with its key."""
    month = int(text[3:5])
    if not (1 <= month <= 12 or 20 <= month <= 42 or month >= 50):
        return False
    number = int(text[:13].replace("2A", "19").replace("2B", "18"))
    return 97 - number % 97 == int(text[13:])


def is_fiscal_code(text: str) -> bool:
    """Whether 16 letters and digits are an Italian fiscal code."""
    odd = sum(_ODD_OF_ITALY[c] for c in text[:15:2])
    even = sum(int(c) if c.isdigit() else ord(c) - ord("A") for c in text[1:15:2])
    return chr(ord("A") + (odd + even) % 26) == text[15]


def is_tax_id(text: str) -> bool:
    """Whether 11 digits are a German tax id (one digit repeated; ISO/IEC 7064, mod 11, 10)."""
    counts = sorted((text[:10].count(digit) for digit in set(text[:10])), reverse=True)
    if text[0] == "0" or counts[0] not in (2, 3) or counts[1] != 1:
        return False
    product = 10
    for digit in text[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(text[10])


def is_cpf(text: str) -> bool:
    """Whether 11 digits are a Brazilian CPF."""
    if len(set(text)) == 1:
        return False
    for length in (9, 10):
        total = sum(int(d) * w for d, w in zip(text, range(length + 1, 1, -1), strict=False))
        if total * 10 % 11 % 10 != int(text[length]):
            return False
    return True


def is_aadhaar(text: str) -> bool:
    """Whether 12 digits are an Indian Aadhaar number (Verhoeff's check digit)."""
    state = 0
    for place, digit in enumerate(reversed(text)):
        state = int(_TIMES[state][int(_MOVED[place % 8][int(digit)])])
    return state == 0


NATIONAL_IDS: dict[str, tuple[tuple[str, str, Callable[[str], bool]], ...]] = {
    "US": (("US_SOCIAL_SECURITY_NUMBER", r"\d{3}([ -])\d\d\1\d{4}", is_ssn),),
    "GB": (
        (
            "UK_NATIONAL_INSURANCE_NUMBER",
            r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",
            is_nino,
        ),
    ),
    "ES": (("SPAIN_NIF_NUMBER", r"(?:\d{8}|[XYZ]-?\d{7})-?[A-Z]", is_nif),),
    "FR": (
        (
            "FRANCE_NIR",
            r"[1-478] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d",
            is_nir,
        ),
    ),
    "IT": (("ITALY_FISCAL_CODE", r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", is_fiscal_code),),
    "DE": (
        (
            "GERMANY_TAXPAYER_IDENTIFICATION_NUMBER",
            r"\d\d ?\d{3} ?\d{3} ?\d{3}",
            is_tax_id,
        ),
    ),
    "BR": (("BRAZIL_CPF_NUMBER", r"\d{3}\.\d{3}\.\d{3}-\d\d", is_cpf),),
    "IN": (("INDIA_AADHAAR_INDIVIDUAL", r"[2-9]\d{3}([ -]?)\d{4}\1\d{4}", is_aadhaar),),
}
"""By country: what its ids are called, how they are written, and whether such digits are one."""
