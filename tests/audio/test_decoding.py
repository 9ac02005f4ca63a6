"""Files become one channel of 16 bits at one rate, or a reason why not."""

from io import BytesIO

import numpy as np
import pytest
import soundfile

from similitude.audio.decoding import decode
from similitude.data.files import UnreadableError

RATE = 16_000


def written(wave, rate, **kind):
    file = BytesIO()
    soundfile.write(file, wave, rate, **kind)
    file.seek(0)
    return file


def test_samples_of_16_bits_stay_as_they_are():
    bits = np.random.default_rng(0).integers(-32768, 32768, 5_000).astype(np.int16)
    assert np.array_equal(decode(written(bits, RATE, format="WAV"), RATE), bits)
    assert np.array_equal(decode(written(bits, RATE, format="FLAC"), RATE), bits)


def test_channels_are_averaged():
    left = np.full(1_000, 0.5, np.float32)
    wave = decode(written(np.stack([left, -left / 2], 1), RATE, format="WAV"), RATE)
    assert np.allclose(wave, 0.125 * 32768, atol=2)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_and_length_at_another_rate(rate):
    time = np.arange(2 * rate) / rate
    wave = decode(written(0.5 * np.sin(2 * np.pi * 440 * time), rate, format="WAV"), RATE)
    assert abs(len(wave) - 2 * RATE) <= 1
    assert np.argmax(np.abs(np.fft.rfft(wave[:RATE]))) == 440
    assert abs(np.abs(wave[4_000:-4_000]).max() / 32768 - 0.5) < 0.01


@pytest.mark.parametrize("format", ["OGG", "MP3"])
def test_compressed_files_are_read(format):
    time = np.arange(RATE) / RATE
    wave = decode(written(0.5 * np.sin(2 * np.pi * 440 * time), RATE, format=format), RATE)
    assert len(wave) >= RATE
    assert np.argmax(np.abs(np.fft.rfft(wave[:RATE]))) in range(438, 443)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "."),
        (b"no sound at all", "."),
        (written(np.zeros(0), RATE, format="WAV").getvalue(), "no sound in it"),
        (written(np.full(9, np.nan), RATE, format="WAV", subtype="FLOAT").getvalue(), "number"),
    ],
    ids=["nothing", "text", "no samples", "no numbers"],  # files carry the time they are written
)
def test_what_is_no_sound_is_told(content, reason):
    with pytest.raises(UnreadableError, match=reason):
        decode(BytesIO(content), RATE)


def test_a_header_that_promises_a_year_is_not_believed():
    content = bytearray(written(np.zeros(100, np.int16), 8_000, format="WAV").getvalue())
    content[24:28] = (1).to_bytes(4, "little")  # one sample in a second
    content[40:44] = (2**31 - 100).to_bytes(4, "little")
    try:
        wave = decode(BytesIO(bytes(content)), 8_000)
    except UnreadableError:
        return
    assert len(wave) < 10**7
