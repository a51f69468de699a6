"""A JSON object from bytes that somebody else wrote."""

import json
from typing import Any


def json_record(content: str | bytes, where: str) -> dict[str, Any]:
    """
    Raises:
        ValueError: the content is not a JSON object; the message begins with `where`.
    """
    try:
        record = json.loads(content)
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where} is not an object")
    return record
