"""Files of somebody else cost no more than their size, and are told in one sentence."""

import os
import time
import zipfile

import numpy as np
import pytest
import yaml

from similitude.errors import UserError
from similitude.files.reading import (
    MAX_YAML,
    check_file,
    parse_yaml,
    read_arrays,
    read_bytes,
    read_json,
    read_yaml,
)
from similitude.recipes import RECIPES, dump_recipe


def laughs(levels=9):
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for before, name in zip("abcdefghij"[:levels], "bcdefghijk", strict=False):
        lines.append(f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(), r"the YAML alias \*a"),
        ("a: &a {<<: *a}", "alias"),
        ("[" * 100_000, "more than 30 deep|nesting depth"),
        ("{a: " * 100_000, "more than 30 deep"),
        ("- " * 10_000, "more than 30 deep"),
        ("a: [1", "not valid YAML"),
        ("a: 2024-13-45", "not valid YAML: month"),
        ('a: !!int ""', "not valid YAML"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
        ("a: " + "9" * 100, "a number of 100 digits"),
        ("a: " + "9" * 9000, "not valid YAML|digits"),
        ("gr\u00fcn: 1".encode("latin-1"), "not valid YAML"),
    ],
)
def test_yaml_that_is_no_plain_values_is_refused_at_once(text, words):
    begin = time.perf_counter()
    with pytest.raises(UserError, match=words) as told:
        parse_yaml(text, "their recipe")
    assert time.perf_counter() - begin < 1
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


def test_yaml_of_other_editors_is_read(tmp_path):
    path = tmp_path / "r.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("a: grün\nb: [1, 2.5, true, null]\n".encode(encoding))
        assert read_yaml(path) == {"a": "grün", "b": [1, 2.5, True, None]}


@pytest.mark.slow
def test_our_own_recipes_have_no_alias():
    for make in RECIPES.values():
        assert parse_yaml(dump_recipe(make()), "ours") == yaml.safe_load(dump_recipe(make()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "more than 30 deep"),
        ('{"a":' * 500 + "1" + "}" * 500, "more than 30 deep"),
        ("{", "cannot read"),
        ('{"a": ' + "9" * 30 + "}", "a number of 30 digits"),
        ("\xff", "cannot read"),
    ],
)
def test_json_that_is_no_plain_values_is_refused(tmp_path, text, words):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=words):
        read_json(path)


def test_only_ordinary_files_of_a_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    (tmp_path / "large").write_bytes(bytes(MAX_YAML + 1))
    for name, words in (
        ("pipe", "no ordinary file"),
        (".", "no ordinary file"),
        ("none", "no such file"),
        ("large", "1,048,577 bytes"),
    ):
        with pytest.raises(UserError, match=words):
            read_bytes(tmp_path / name, MAX_YAML)
    assert check_file(tmp_path / "large") == MAX_YAML + 1


def test_arrays_that_unpack_to_more_than_expected_are_not_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(10**6))
    assert read_arrays(path)["a"].shape == (10**6,)
    with pytest.raises(UserError, match="unpacks to 8,000,128 bytes, and such a file to 1,000"):
        read_arrays(path, 1000)
    content = path.read_bytes()
    for damaged in (content[:90] + b"\xff" * 30 + content[120:], content[:-40], b"", b"PK\3\4"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot read") as told:
            read_arrays(path)
        assert "\n" not in str(told.value)


def test_a_claim_in_the_header_of_an_array_takes_no_memory(tmp_path):
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(UserError, match="cannot read"):
        read_arrays(path)
