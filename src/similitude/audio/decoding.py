"""Sound files to wave forms: one channel, one rate, 16 bits.

Letters: T samples of a wave form, C channels.
"""

import importlib
import io
from typing import Any

import numpy as np
from jaxtyping import Int16

from similitude.data.files import ByteFile, UnreadableError, Wanted
from similitude.errors import UserError

SOUNDS = Wanted(
    "sound", (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".m4a"), "Audio"
)
MAX_SECONDS = 4 * 3600  # of a file
_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # of MP3
SILENCE = 16  # of 32,768: what a track of a video must exceed anywhere
_BLOCK = 2**20  # samples decoded at once: memory does not grow with the file


def is_sound(name: str) -> bool:
    """Whether a file of this name is of sound alone."""
    return name.lower().endswith(SOUNDS.suffixes)


def check_libraries() -> tuple[Any, Any]:
    """The libraries that read and resample sounds.

    Raises:
        UserError: they are not installed.
    """
    try:
        return importlib.import_module("soundfile"), importlib.import_module("soxr")
    except ImportError as error:
        raise UserError(
            "reading sounds needs soundfile and soxr: pip install 'similitude[audio]'"
        ) from error


def decode(file: ByteFile, rate: int) -> Int16[np.ndarray, " T"]:
    """The wave form in a file: the mean of its channels at this rate, in 16 bits.

    Args:
        file: At its beginning; of a video its first sound track.
        rate: Samples in a second.

    Raises:
        UnreadableError: It is no sound, damaged, empty, or longer than four hours; or of a video,
            without sound, or silent.
    """
    soundfile, soxr = check_libraries()
    if is_container(file):
        return _track(file, rate)
    parts = []
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.frames > MAX_SECONDS * sound.samplerate:
                raise UnreadableError(f"longer than {MAX_SECONDS // 3600} hours")
            # no resampler where none is needed: samples of 16 bits stay as they are
            other = sound.samplerate != rate
            resampler = soxr.ResampleStream(sound.samplerate, rate, 1) if other else None
            read = 0
            for block in sound.blocks(blocksize=_BLOCK, dtype="float32", always_2d=True):
                read += len(block)
                if read > MAX_SECONDS * sound.samplerate:  # a header may lie
                    raise UnreadableError(f"longer than {MAX_SECONDS // 3600} hours")
                mono = block.mean(axis=1)
                parts.append(_bits(mono if resampler is None else resampler.resample_chunk(mono)))
            if resampler is not None:
                rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                parts.append(_bits(rest))
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).rpartition(": ")[2].strip(". ").lower()
        raise UnreadableError(reason or "no sound file") from error
    wave = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    if not len(wave):
        raise UnreadableError("no sound in it")
    return wave


def _track(file: ByteFile, rate: int) -> Int16[np.ndarray, " T"]:
    """The first sound track of a video, which must be heard."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        raise UnreadableError(
            "the sound of a video needs av: pip install 'similitude[video]'"
        ) from error
    parts, count = [], 0
    try:
        with av.open(file) as container:
            if not container.streams.audio:
                raise UnreadableError("no sound in it")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in [*container.decode(audio=0), None]:
                for found in resampler.resample(frame):
                    parts.append(_bits(found.to_ndarray()[0]))
                    count += len(parts[-1])
                    if count > MAX_SECONDS * rate:
                        raise UnreadableError(f"longer than {MAX_SECONDS // 3600} hours")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise UnreadableError(str(getattr(error, "strerror", None) or error).lower()) from error
    wave = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    if np.abs(wave.astype(np.int32)).max(initial=0) < SILENCE:
        raise UnreadableError("silent")
    return wave


def is_container(file: ByteFile) -> bool:
    """Whether a file, which stays at its beginning, is of MP4, QuickTime, Matroska, WebM or AVI."""
    head = file.read(12)
    file.seek(0)
    return (
        head[4:8] == b"ftyp"
        or head[:4] == b"\x1aE\xdf\xa3"
        or (head[:4] == b"RIFF" and head[8:] == b"AVI ")
    )


def encode(wave: Int16[np.ndarray, " T"], rate: int) -> bytes:
    """The wave form as MP3, which every browser plays."""
    soundfile, soxr = check_libraries()
    if rate not in _RATES:
        wave, rate = soxr.resample(wave, rate, 16_000), 16_000
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format="MP3")
    return out.getvalue()


def _bits(wave: np.ndarray) -> Int16[np.ndarray, " T"]:
    if not np.isfinite(wave).all():
        raise UnreadableError("a value in it is not a number")
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)
