"""A portrait that is drawn: a network finds its face, and it is nobody's."""

from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
MIDDLE = SIDE // 2
HEAD = (MIDDLE - 52, MIDDLE - 72, MIDDLE + 52, MIDDLE + 66)
"""Left, top, right and bottom of the head."""


def draw_face() -> Image.Image:
    """A portrait of 256 x 256 pixels."""
    image = Image.new("RGB", (SIDE, SIDE), (120, 150, 180))
    pen = ImageDraw.Draw(image)
    pen.rectangle((MIDDLE - 70, SIDE - 50, MIDDLE + 70, SIDE), fill=(60, 60, 120))
    pen.ellipse(HEAD, fill=(224, 172, 140))
    hair = (MIDDLE - 56, MIDDLE - 84, MIDDLE + 56, MIDDLE + 30)
    pen.pieslice(hair, 180, 360, fill=(60, 40, 30))
    for eye in (MIDDLE - 20, MIDDLE + 20):
        pen.ellipse((eye - 10, MIDDLE - 16, eye + 10, MIDDLE - 4), fill=(250, 250, 250))
        pen.ellipse((eye - 5, MIDDLE - 15, eye + 5, MIDDLE - 5), fill=(40, 30, 20))
        brow = (eye - 12, MIDDLE - 22, eye + 12, MIDDLE - 22)
        pen.line(brow, fill=(50, 35, 25), width=4)
    nose = [(MIDDLE, MIDDLE - 8), (MIDDLE - 9, MIDDLE + 18), (MIDDLE + 9, MIDDLE + 18)]
    pen.polygon(nose, fill=(205, 150, 120))
    pen.ellipse((MIDDLE - 20, MIDDLE + 30, MIDDLE + 20, MIDDLE + 42), fill=(170, 80, 80))
    return image.filter(ImageFilter.GaussianBlur(2))
