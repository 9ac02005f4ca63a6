"""Video files to square frames at a steady rate, and to optical flow between them.

Letters: T frames, S side in pixels.
"""

import importlib
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int8, UInt8

from similitude.data.files import ByteFile, UnreadableError, Wanted
from similitude.errors import UserError

VIDEOS = Wanted(
    "video", (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"), "Video"
)
MAX_SECONDS = 3600  # of a file, all of whose frames are held at once
FLOW_SIDE = 112  # pixels at which flow is computed, where frames are kept smaller
FLOW_UNIT = 1 / 8  # pixels: what a step of the 8 bits stands for, at the side that is kept


def check_libraries(*, flow: bool = False) -> Any:
    """The library that reads videos, and the one that computes flow.

    Raises:
        UserError: it is not installed.
    """
    try:
        av = importlib.import_module("av")
        if flow:
            importlib.import_module("cv2")
    except ImportError as error:
        raise UserError(
            "videos need av, and optical flow needs OpenCV: pip install 'similitude[video]'"
        ) from error
    return av


def decode_frames(file: ByteFile, rate: float, side: int) -> UInt8[np.ndarray, "T 3 S S"]:
    """The frames at the times 0, 1 / rate, 2 / rate ...: the middle square of each.

    Args:
        file: At its beginning.
        rate: Frames in a second; those of a slower video are repeated.
        side: Pixels of the square, to which the short side is resized.

    Raises:
        UnreadableError: It is no video, damaged, or longer than an hour.
    """
    av = check_libraries()
    frames: list[np.ndarray] = []
    step = 1 / Fraction(rate).limit_denominator(1000)
    try:
        with av.open(file) as container:
            if not container.streams.video:
                raise UnreadableError("no video in it")
            container.streams.video[0].thread_type = "NONE"  # each file has a thread already
            shown, begin, time = None, None, Fraction(0)
            for frame in container.decode(video=0):
                time = Fraction(0) if frame.pts is None else frame.pts * frame.time_base
                begin = time if begin is None else begin
                # what was shown until this frame came
                while shown is not None and len(frames) * step < time - begin:
                    frames.append(_square(shown, side))
                    if len(frames) * step > MAX_SECONDS:
                        raise UnreadableError("longer than an hour: cut it into clips")
                shown = frame
            if shown is not None and len(frames) * step <= time - (begin or 0):
                frames.append(_square(shown, side))
    except (av.FFmpegError, ValueError, OSError) as error:
        raise UnreadableError(str(getattr(error, "strerror", None) or error).lower()) from error
    if not frames:
        raise UnreadableError("no frame in it")
    return np.stack(frames)


def _square(frame: Any, side: int) -> UInt8[np.ndarray, "3 S S"]:
    short = min(frame.width, frame.height)
    width, height = (max(side, round(n * side / short)) for n in (frame.width, frame.height))
    small = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    small = np.rot90(small, turns)
    top, left = (small.shape[0] - side) // 2, (small.shape[1] - side) // 2
    return np.ascontiguousarray(small[top : top + side, left : left + side].transpose(2, 0, 1))


def decode_flow(file: ByteFile, rate: float, side: int) -> Int8[np.ndarray, "T 2 S S"]:
    """Optical flow from each frame to the next, right and down; the last repeats the one before.

    By dense inverse search (Kroeger et al., ECCV 2016, arXiv:1603.03590), OpenCV's medium preset,
    on frames of at least 112 pixels, averaged to the side that is kept. In steps of 1/8 pixel of
    that side; what moves faster than 16 is cut.

    Raises:
        UnreadableError: see :func:`decode_frames`; or there is a single frame.
    """
    check_libraries(flow=True)
    cv2: Any = importlib.import_module("cv2")
    large = max(side, FLOW_SIDE)
    frames = decode_frames(file, rate, large)
    if len(frames) < 2:
        raise UnreadableError("a single frame, which has no flow")
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [cv2.cvtColor(f.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY) for f in frames]
    found = []
    for a, b in pairwise(gray):
        flow = search.calc(a, b, None) * (side / large)
        flow = cv2.resize(flow, (side, side), interpolation=cv2.INTER_AREA)
        steps = np.rint(flow / FLOW_UNIT).clip(-127, 127).astype(np.int8)
        found.append(steps.transpose(2, 0, 1))
    return np.stack([*found, found[-1]])
