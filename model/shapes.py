"""Dtypes and shapes of arrays in signatures: `Float[Array, "B T D"]`, axes named as in each file.

Here they are annotations that cost nothing. The tests put jaxtyping's types of the same names in
their place, before the modules that use them are imported, and check every call with beartype.
`*rest` stands for any number of axes, `#T` for T or 1, and `...` for anything.
"""

from typing import Annotated as BFloat16
from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Float32
from typing import Annotated as Int
from typing import Annotated as Int8
from typing import Annotated as Int32
from typing import Annotated as Key
from typing import Annotated as Shaped
from typing import Annotated as UInt32

__all__ = [
    "BFloat16",
    "Bool",
    "Float",
    "Float32",
    "Int",
    "Int8",
    "Int32",
    "Key",
    "Shaped",
    "UInt32",
]
