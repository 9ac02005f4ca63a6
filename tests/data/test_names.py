import zlib

import numpy as np
import pytest

from similitude.data.names import Names, Numbered


@pytest.fixture
def every():
    return [f"a/{'é' * (i % 3)}{i}\n.png" for i in range(20)]


@pytest.fixture
def names(every, tmp_path):
    encoded = [name.encode() + b"\n" for name in every]
    (tmp_path / "text").write_bytes(b"".join(encoded))
    bounds = np.cumsum([0, *map(len, encoded)])
    (tmp_path / "bounds").write_bytes(bounds.astype(np.int64).tobytes())
    return Names(tmp_path / "text", tmp_path / "bounds", range(20))


def test_names_of_a_file_are_a_sequence(names, every):
    assert names == every
    assert list(names) == every
    assert (names[0], names[-1]) == (every[0], every[-1])
    assert names[3:15:4] == every[3:15:4]
    assert names[5:][2:4] == every[7:9]
    assert names != every[:-1]
    with pytest.raises(IndexError):
        names[20]


def test_the_checksum_is_that_of_the_joined_names(names, every):
    for part in (slice(None), slice(4, 9), slice(None, None, 3)):
        assert names[part].checksum() == zlib.crc32("\n".join(every[part]).encode())


def test_names_of_some_rows(names, every, tmp_path):
    some = Names(tmp_path / "text", tmp_path / "bounds", np.array([7, 2, 19]))
    assert some == [every[7], every[2], every[19]]


def test_numbered_names_are_in_no_memory():
    names = Numbered(range(3, 10**9))
    assert (names[0], names[-1], len(names)) == ("00003", "999999999", 10**9 - 3)
    assert names[:3] == ["00003", "00004", "00005"]
    assert names[:3].checksum() == zlib.crc32(b"00003\n00004\n00005")
