"""mp4 files of episodes, captioned with the instruction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

ENDINGS = (".mp4", ".mkv", ".mov")  # of formats that hold H.264
FRAMES_PER_SECOND = 10  # twice real time
CAPTION_HEIGHT = 24


def video_name(key: tuple[str, int, int], success: bool) -> str:
    """Returns `unseen_table-0-12-success.mp4`."""
    scenario, seed, index = key
    return f"{scenario.replace(' ', '')}-{seed}-{index}-{'success' if success else 'failure'}.mp4"


def caption(frame: np.ndarray, text: str) -> np.ndarray:
    """Returns uint8 [H + 24, W, 3]: the frame with a line of text below; long text is truncated."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[:2]
    canvas = Image.new("RGB", (width, height + CAPTION_HEIGHT), "black")
    canvas.paste(Image.fromarray(frame), (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    while draw.textlength(text, font=font) > width - 8 and len(text) > 4:
        text = text[:-2].rstrip(". ") + "…"
    draw.text((4, height + 4), text, fill="white", font=font)
    return np.asarray(canvas)


def write_video(path: str | Path, frames: Sequence[np.ndarray], text: str | Sequence[str]) -> None:
    """Writes frames, each uint8 [H, W, 3] RGB, as H.264 video; the last one is held for a second.

    Args:
        text: The caption, or one per frame.

    Raises:
        OSError: Writing failed; an earlier file of that name stays. Its `filename` is the path.
    """
    from av.error import FFmpegError

    path = Path(path)
    draft = path.with_name(f".{os.getpid()}-{path.name}")  # keeps the ending, by which FFmpeg chooses the format
    try:
        _encode(draft, frames, text)
        draft.replace(path)
    except (OSError, FFmpegError) as error:  # not every FFmpeg error is an OSError
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _encode(path: Path, frames: Sequence[np.ndarray], text: str | Sequence[str]) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [text] * len(frames) if isinstance(text, str) else text
    pictures = [caption(frame, line) for frame, line in zip(frames, lines, strict=True)]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND))
        stream.height, stream.width = pictures[0].shape[0] // 2 * 2, pictures[0].shape[1] // 2 * 2
        stream.pix_fmt = "yuv420p"
        for picture in [*pictures, *pictures[-1:] * FRAMES_PER_SECOND]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[: stream.height, : stream.width]), "rgb24")
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
