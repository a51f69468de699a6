"""How much of one text or image a metric looks at, so that hostile input costs little."""

MAX_CHARACTERS = 20_000
"""The characters of a text that are compared: about seven printed pages."""

MAX_OBJECTS = 1_000
"""The objects of an image that can be matched."""
