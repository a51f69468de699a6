"""Films and images that FFmpeg's command line makes: a table of names and how each is made."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paliflow.tests.media.ffmpeg import run

PICTURES = "testsrc2=size=160x120:rate=25:duration=3"
"""Moves everywhere, in all colours, with its time written in it."""
Make = Callable[[Path], Path]
"""Writes a film into an empty folder and returns its path."""


class Film(NamedTuple):
    """A film, and what it is to be like."""

    make: Make
    whole: Make | None = None
    """Of a damaged one: the film that it was."""
    same: Make | None = None
    """One that shows the same, of a film that FFmpeg's command line does not convert."""


def coded(name: str, *options: str, source: str = PICTURES, filters: str = "null") -> Make:
    """Encoded anew."""

    def make(folder: Path) -> Path:
        path = folder / name
        run("-f", "lavfi", "-i", f"{source},{filters}", *options, "-bitexact", path)
        return path

    return make


def copied(
    make: Make, name: str, *options: str, before: Sequence[str] = (), after: str = ""
) -> Make:
    """The packets of another, put into a container with other options."""

    def remake(folder: Path) -> Path:
        source, path = make(folder), folder / name
        run(*before, "-i", source, "-c", "copy", *options, path)
        return path

    return remake


def joined(name: str, *makes: Make) -> Make:
    """Files that are put one after the other, as `cat` does."""

    def make(folder: Path) -> Path:
        content = b""
        for number, each in enumerate(makes):
            (folder / str(number)).mkdir()
            content += each(folder / str(number)).read_bytes()
        (folder / name).write_bytes(content)
        return folder / name

    return make


def cut(make: Make, share: float) -> Film:
    """The start of a film, as a broken download leaves it."""

    def remake(folder: Path) -> Path:
        path = make(folder)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return Film(remake, make)


def noisy(make: Make, share: float, size: int = 300) -> Film:
    """A film with a stretch of noise in it."""

    def remake(folder: Path) -> Path:
        path = make(folder)
        content = bytearray(path.read_bytes())
        start = int(len(content) * share)
        noise = np.random.default_rng(int(share * 100)).integers(0, 256, size, np.uint8)
        content[start : start + size] = noise.tobytes()
        path.write_bytes(content)
        return path

    return Film(remake, make)


_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "20", "-bf", "3")
_LONG = ("-c:v", "libx264", "-preset", "veryfast", "-g", "250", "-bf", "3")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=20:log-level=error")
_VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")
_MPEG2 = ("-c:v", "mpeg2video", "-g", "12", "-bf", "2", "-q:v", "3")
_AV1 = ("-c:v", "libsvtav1", "-preset", "12", "-g", "20")
_GIF = ("-filter_complex", "[0:v]split[a][b];[a]palettegen=64[p];[b][p]paletteuse=dither=none")
_FAST = ("-movflags", "faststart")
_INTERLACED = "tinterlace=interleave_top,fieldorder=tff"
_UNEVEN = "settb=1/1000,setpts='N*40+mod(N\\,7)*5+floor(N/20)*300'"
_STILL = "settb=1/1000,setpts='N*40+if(gt(N\\,30)\\,4000\\,0)'"
_H264 = coded("a.mp4", *_X264)
_LONG_GOP = coded("a.mp4", *_LONG)
_TS = coded("a.ts", *_X264)
_PS = coded("a.mpg", *_MPEG2)
_LATER = "testsrc2=size=160x120:rate=25:duration=3,hue=h=90"


def _turned(matrix: Sequence[str], name: str = "b.mp4") -> Make:
    return copied(_H264, name, before=matrix)


def _tagged(matrix: str, levels: str = "tv") -> Make:
    """The same samples, of which the file says something else."""
    filters = f"format=yuv444p,setparams=colorspace={matrix}:range={levels}"
    return coded("a.mkv", "-c:v", "ffv1", filters=filters)


def _codecs() -> Iterator[tuple[str, Make]]:
    yield "h264 mp4", _H264
    for suffix in ("mov", "mkv", "ts", "avi", "flv", "3gp", "m2ts", "h264", "f4v"):
        yield f"h264 {suffix}", coded(f"a.{suffix}", *_X264)
    pyramid = ("-x264-params", "open-gop=1:b-pyramid=normal")
    for suffix in ("mp4", "mkv", "ts"):
        yield f"h264 open gop {suffix}", coded(f"a.{suffix}", *_X264, *pyramid)
    yield "h264 intra refresh", coded("a.ts", *_X264, "-x264-params", "intra-refresh=1")
    yield "h264 intra", coded("a.mp4", "-c:v", "libx264", "-g", "1")
    for suffix in ("mp4", "mkv", "ts", "hevc"):
        yield f"hevc {suffix}", coded(f"a.{suffix}", *_X265)
    for suffix in ("mp4", "mkv", "webm", "ivf"):
        yield f"av1 {suffix}", coded(f"a.{suffix}", *_AV1)
    for suffix in ("webm", "mp4", "ivf"):
        yield f"vp9 {suffix}", coded(f"a.{suffix}", *_VP9)
    yield "vp8 webm", coded("a.webm", "-c:v", "libvpx", "-deadline", "realtime", "-g", "20")
    for suffix in ("mpg", "ts", "vob", "m2v", "mxf"):
        yield f"mpeg2 {suffix}", coded(f"a.{suffix}", *_MPEG2)
    yield "mpeg1", coded("a.mpg", "-c:v", "mpeg1video", "-g", "12", "-q:v", "3")
    yield "mpeg4 avi with b", coded("a.avi", "-c:v", "mpeg4", "-bf", "2", "-q:v", "3")
    yield "mpeg4 mp4", coded("a.mp4", "-c:v", "mpeg4", "-q:v", "3")
    for codec, name in (
        ("msmpeg4v2", "a.avi"),
        ("msmpeg4", "a.avi"),
        ("wmv1", "a.wmv"),
        ("wmv2", "a.asf"),
        ("mjpeg", "a.avi"),
        ("mjpeg", "a.mov"),
        ("prores_ks", "a.mov"),
        ("qtrle", "a.mov"),
        ("huffyuv", "a.avi"),
        ("ffv1", "a.mkv"),
        ("utvideo", "a.avi"),
        ("rawvideo", "a.avi"),
        ("v210", "a.mov"),
        ("png", "a.mov"),
        ("libtheora", "a.ogv"),
        ("flv", "a.flv"),
        ("svq1", "a.mov"),
        ("zmbv", "a.avi"),
        ("jpeg2000", "a.mov"),
        ("cinepak", "a.mov"),
        ("apng", "a.apng"),
        ("magicyuv", "a.mkv"),
        ("libwebp_anim", "a.webp"),
    ):
        options = ("-q:v", "3") if codec in ("wmv1", "wmv2", "mjpeg", "flv", "libtheora") else ()
        plays = ("-plays", "0") if codec == "apng" else ()
        yield f"{codec} {name[2:]}", coded(name, "-c:v", codec, *options, *plays)
    large = "testsrc2=size=1280x720:rate=25:duration=0.6"
    rate = ("-b:v", "90M", "-pix_fmt", "yuv422p")
    yield "dnxhd mxf", coded("a.mxf", "-c:v", "dnxhd", *rate, source=large)
    yield "cineform mov", coded("a.mov", "-c:v", "cfhd", "-pix_fmt", "yuv422p10")
    dv = "testsrc2=size=720x576:rate=25:duration=0.6"
    yield "dv avi", coded("a.avi", "-c:v", "dvvideo", "-pix_fmt", "yuv420p", source=dv)
    yield (
        "h263 3gp",
        coded(
            "a.3gp", "-c:v", "h263", "-q:v", "3", source="testsrc2=size=352x288:rate=25:duration=1"
        ),
    )
    yield "gif", coded("a.gif", *_GIF)


def _turns() -> Iterator[tuple[str, Make]]:
    for degrees in ("0", "90", "180", "270"):
        for mirror in ((), ("-display_hflip",)):
            if degrees != "0" or mirror:
                matrix = ("-display_rotation", degrees, *mirror)
                yield f"turned {degrees}{' mirrored' * bool(mirror)}", _turned(matrix)
    yield "turned mov", _turned(("-display_rotation", "90", "-display_vflip"), "b.mov")
    yield "turned mkv", _turned(("-display_rotation", "270"), "b.mkv")


def _trims() -> Iterator[tuple[str, Make]]:
    for suffix in ("mp4", "mov", "mkv", "ts"):
        yield f"trimmed {suffix}", copied(_H264, f"b.{suffix}", before=("-ss", "1"))
    yield "trimmed in a long gop", copied(_LONG_GOP, "b.mp4", before=("-ss", "1.3"))
    yield "trimmed at its end", copied(_H264, "b.mp4", "-t", "1.5")
    yield "trimmed at both ends", copied(_LONG_GOP, "b.mp4", "-t", "1", before=("-ss", "0.7"))
    yield "shifted", copied(_H264, "b.mp4", before=("-itsoffset", "2.5"))
    yield "shifted mkv", copied(_H264, "b.mkv", before=("-itsoffset", "2.5"))
    for name, flags in (
        ("fragments", "frag_keyframe+empty_moov"),
        ("fragments of bases", "frag_keyframe+empty_moov+default_base_moof"),
        ("fragments of dash", "dash"),
    ):
        yield name, copied(_H264, "b.mp4", "-movflags", flags)
    yield (
        "fragments that are trimmed",
        copied(_H264, "b.mp4", "-movflags", "frag_keyframe+empty_moov", before=("-ss", "1")),
    )


def _joins() -> Iterator[tuple[str, Make]]:
    yield "joined ts", joined("a.ts", _TS, coded("a.ts", *_X264, source=_LATER))
    yield "joined mpg", joined("a.mpg", _PS, coded("a.mpg", *_MPEG2, source=_LATER))
    yield (
        "joined vob",
        joined("a.vob", coded("a.vob", *_MPEG2), coded("a.vob", *_MPEG2, source=_LATER)),
    )
    later = coded("a.ts", *_X264, "-output_ts_offset", "3.08", source=_LATER)
    yield "joined ts that goes on", joined("a.ts", _TS, later)
    yield "joined h264", joined("a.h264", coded("a.h264", *_X264), coded("a.h264", *_X264))


def _fields() -> Iterator[tuple[str, Make]]:
    fields = ("-flags", "+ilme+ildct")
    yield "interlaced h264", coded("a.mp4", *_X264, *fields, filters=_INTERLACED)
    yield "interlaced mpeg2", coded("a.mpg", *_MPEG2, *fields, filters=_INTERLACED)
    yield "interlaced mpeg4", coded("a.avi", "-c:v", "mpeg4", *fields, filters=_INTERLACED)


def _times() -> Iterator[tuple[str, Make]]:
    uneven = ("-fps_mode", "passthrough", "-enc_time_base", "1:1000")
    for suffix in ("mp4", "mkv", "ts"):
        yield f"uneven {suffix}", coded(f"a.{suffix}", *_X264, *uneven, filters=_UNEVEN)
    yield "uneven webm", coded("a.webm", *_VP9, *uneven, filters=_UNEVEN)
    gif = "settb=1/100,setpts='N*4+mod(N\\,3)*3'"
    yield "uneven gif", coded("a.gif", "-fps_mode", "passthrough", filters=gif)
    yield "a long still mp4", coded("a.mp4", *_X264, *uneven, filters=_STILL)
    yield "a long still mkv", coded("a.mkv", *_X264, *uneven, filters=_STILL)
    yield "a long still webp", coded("a.webp", "-c:v", "libwebp_anim", *uneven, filters=_STILL)
    drops = "select='not(between(n\\,20\\,24))*not(eq(n\\,40))'"
    for codec, more in (("mjpeg", ("-q:v", "3")), ("libx264", ("-bf", "0", "-g", "20"))):
        options = ("-c:v", codec, *more, "-fps_mode", "passthrough")
        yield f"drops {codec} avi", coded("a.avi", *options, filters=drops)
    drops_long = "select='not(between(n\\,20\\,44))'"
    yield (
        "many drops mpeg4 avi",
        coded("a.avi", "-c:v", "mpeg4", "-fps_mode", "passthrough", filters=drops_long),
    )
    fast = "testsrc2=size=160x120:rate=2000:duration=0.03"
    yield "2000 fps mkv", coded("a.mkv", *_X264, source=fast)
    yield "2000 fps mp4", coded("a.mp4", *_X264, source=fast)
    equal = ("-bsf:v", "setts=pts='floor(PTS/2)*2':dts='floor(DTS/2)*2'")
    yield "pairs at one time mkv", coded("a.mkv", "-c:v", "libx264", "-bf", "0", "-g", "20", *equal)
    film = "testsrc2=size=160x120:rate=24000/1001:duration=2"
    yield "23.976 fps mkv", coded("a.mkv", *_X264, source=film)
    yield "23.976 fps mp4", coded("a.mp4", *_X264, source=film)
    yield (
        "telecine mpg",
        coded("a.mpg", *_MPEG2, "-r", "30000/1001", source=film, filters="telecine"),
    )
    one = "testsrc2=size=160x120:rate=25:duration=0.04"
    yield "one frame", coded("a.mp4", *_X264, source=one)


def _pixels() -> Iterator[tuple[str, Make]]:
    for pixels in ("yuv420p10", "yuv422p", "yuv444p", "gray", "yuvj420p", "yuv422p10", "gbrp"):
        codec = "libx264rgb" if pixels == "gbrp" else "libx264"
        pixel = "rgb24" if pixels == "gbrp" else pixels
        yield pixels, coded("a.mkv", "-c:v", codec, "-g", "20", "-pix_fmt", pixel)
    yield "yuv420p12", coded("a.mkv", *_X265, "-pix_fmt", "yuv420p12")
    for pixels in ("rgba64le", "bgra", "yuv410p", "gray16le", "yuva444p"):
        yield pixels, coded("a.mkv", "-c:v", "ffv1", "-pix_fmt", pixels)
    for matrix in ("bt709", "smpte170m", "bt470bg", "fcc", "smpte240m", "bt2020nc"):
        yield f"matrix {matrix}", _tagged(matrix)
    yield "full range", _tagged("bt709", "pc")
    hd = "testsrc2=size=1280x720:rate=25:duration=0.4"
    yield "untagged hd", coded("a.mp4", *_X264, source=hd)
    pq = ("-colorspace", "bt2020nc", "-color_trc", "smpte2084", "-color_primaries", "bt2020")
    yield "hdr", coded("a.mkv", *_X265, "-pix_fmt", "yuv420p10", *pq)
    yield "anamorphic", coded("a.mp4", *_X264, filters="setsar=4/3")
    yield (
        "odd size",
        coded("a.mkv", "-c:v", "ffv1", source="testsrc2=size=161x121:rate=25:duration=1"),
    )
    holes = "format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(X,80),0,255)'"
    yield "alpha gif", coded("a.gif", source=f"testsrc2=size=160x120:duration=1,{holes}")
    yield (
        "alpha apng",
        coded("a.apng", "-plays", "0", source=f"testsrc2=size=160x120:duration=1,{holes}"),
    )
    yield "alpha webp", coded(
        "a.webp", "-c:v", "libwebp_anim", "-lossless", "1",
        source=f"testsrc2=size=160x120:duration=1,{holes}",
    )  # fmt: skip
    yield "alpha vp9", coded("a.webm", *_VP9, "-pix_fmt", "yuva420p", filters=holes)


def _damages() -> Iterator[tuple[str, Film]]:
    fast = copied(_H264, "b.mp4", *_FAST)
    frames = copied(_H264, "b.mp4", "-movflags", "frag_keyframe+empty_moov")
    mkv, avi = coded("a.mkv", *_X264), coded("a.avi", "-c:v", "mjpeg", "-q:v", "3")
    theora = coded("a.ogv", "-c:v", "libtheora", "-g", "20", "-q:v", "5")
    wmv = coded("a.wmv", "-c:v", "wmv2", "-g", "20", "-q:v", "3")
    webp, gif = coded("a.webp", "-c:v", "libwebp_anim"), coded("a.gif", *_GIF)
    for name, make in (
        ("mp4", fast),
        ("fragments", frames),
        ("mkv", mkv),
        ("ts", _TS),
        ("avi", avi),
        ("ogv", theora),
        ("wmv", wmv),
        ("webp", webp),
        ("gif", gif),
        ("mpg", _PS),
    ):
        yield f"cut {name}", cut(make, 0.6)
        if name not in ("webp", "gif"):
            yield f"noise in {name}", noisy(make, 0.5)


def _images() -> Iterator[tuple[str, Make]]:
    one = ("-frames:v", "1", "-update", "1")
    for name, options in {
        "a.png": (),
        "rgb48.png": ("-pix_fmt", "rgb48"),
        "gray16.png": ("-pix_fmt", "gray16"),
        "pal8.png": ("-pix_fmt", "pal8"),
        "420.jpg": ("-pix_fmt", "yuvj420p", "-q:v", "2"),
        "444.jpg": ("-pix_fmt", "yuvj444p", "-q:v", "2"),
        "gray.jpg": ("-pix_fmt", "gray", "-q:v", "2"),
        "a.bmp": (),
        "565.bmp": ("-pix_fmt", "rgb565"),
        "a.tiff": (),
        "lzw.tiff": ("-compression_algo", "lzw"),
        "gray16.tiff": ("-pix_fmt", "gray16"),
        "a.ppm": (),
        "gray16.pgm": ("-pix_fmt", "gray16"),
        "a.tga": (),
        "a.jp2": ("-pix_fmt", "rgb24"),
        "420.jp2": ("-pix_fmt", "yuv420p"),
        "a.webp": ("-lossless", "1"),
        "lossy.webp": ("-quality", "95"),
        "a.gif": (),
        "a.avif": ("-c:v", "libaom-av1", "-still-picture", "1", "-cpu-used", "8"),
    }.items():
        yield name, coded(name, *one, *options)


FILMS: dict[str, Film] = {
    name: Film(make)
    for group in (_codecs, _turns, _trims, _joins, _fields, _times, _pixels)
    for name, make in group()
} | {
    f"matrix {matrix}": Film(_tagged(matrix), same=_tagged(same))
    for matrix, same in {
        "ycgco": "unknown",
        "bt2020c": "bt2020nc",
        "smpte2085": "unknown",
        "chroma-derived-nc": "unknown",
        "ictcp": "unknown",
    }.items()
}
DAMAGED = dict(_damages())
IMAGES = dict(_images())
