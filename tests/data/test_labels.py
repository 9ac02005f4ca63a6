"""A table of labels either fits the images or says where it does not."""

import pytest

from similitude.data.labels import read_labels
from similitude.errors import UserError
from similitude.images.opening import open_source


@pytest.fixture
def source(tmp_path, make_image):
    for name in ("a.png", "b.png", "one/c.png", "one/d.png", "two/d.png"):
        make_image(tmp_path / "x" / name)
    return open_source(tmp_path / "x")  # sorted as listed here


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.png,dog\none/c.png,cat\n",
        "a.png,dog\none/c.png,cat\n",
        "a.png,dog\r\nc.png,cat\r\n\r\n",
        "file;label\na.png;dog\nc.png;cat\n",
        "./a.png\tdog\none\\c.png\t cat \n",
        "id,class,path\n1,dog,a.png\n2,cat,c.png\n",
        'file,label\n"a.png","dog"\nc.png,cat\nb.png,\n',
        "\ufeffa.png,dog\nc.png,cat\n",
        '"file, as it is called";label\na.png;dog\nc.png;cat\n',
        "file,label\na.png,dog\nc.png,cat\nb.png,-1\n",
    ],
    ids=[
        "plain",
        "no header",
        "bare name",
        "semicolon",
        "tab",
        "columns",
        "quotes",
        "bom",
        "separator in quotes",
        "unknown",
    ],
)
def test_ways_to_write_the_same(source, table, text):
    labels, class_names = read_labels(table(text), source)
    assert class_names == ["cat", "dog"]
    assert labels.tolist() == [1, -1, 0, -1, -1]
    labeled = source.with_labels(labels, class_names)
    assert labeled.labels is labels
    assert labeled.names == source.names


def test_a_spreadsheet_may_write_utf_16(source, table):
    labels, class_names = read_labels(table("a.png\tdog\nc.png\tcat\n", "utf-16"), source)
    assert class_names == ["cat", "dog"]


def test_names_match_however_their_accents_are_written(tmp_path, make_image, table):
    make_image(tmp_path / "x" / "cafe\u0301.png")
    make_image(tmp_path / "x" / "the\u0301.png")
    labels, _ = read_labels(table("caf\u00e9.png,a\nth\u00e9.png,b\n"), open_source(tmp_path / "x"))
    assert sorted(labels.tolist()) == [0, 1]


@pytest.mark.parametrize("rows", [3, 20_000])
def test_a_stray_quotation_mark_is_told_with_its_line(source, table, rows):
    text = 'file,label\na.png,dog\n"b.png,dog\n' + "c.png,cat\n" * rows + 'a.png",x\n' * (rows < 9)
    with pytest.raises(UserError, match=r"labels\.csv line 3 cannot be read"):
        read_labels(table(text), source)


def test_a_first_line_without_end_is_told(source, table):
    with pytest.raises(UserError, match=r"labels\.csv line 1 cannot be read"):
        read_labels(table("x" * 200_000), source)


def test_numbers_are_ordered_by_value(source, table):
    labels, class_names = read_labels(table("a.png,10\nb.png,9\nc.png,10\n"), source)
    assert class_names == ["9", "10"]
    assert labels.tolist() == [1, 0, 1, -1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.png,x\nq.png,y\nr.png,y\n",
            r"labels\.csv: 2 of 3 rows match no sample.*line 2: 'q\.png'",
        ),
        (
            "file,label\nq.png,y\n",
            r"1 of 1 rows match no sample.*line 2: 'q\.png'.*called 'a\.png'",
        ),
        ("d.png,x\n", r"line 1: 'd\.png' is the name of several samples"),
        ("a.png,x\na.png,y\n", r"line 2: 'a\.png' is labeled 'y' here and 'x' before"),
        ("a.png\n", r"line 1 has 1 column"),
        ("file,label\n", "holds no label"),
        ("", "holds no label"),
    ],
)
def test_what_does_not_match_is_told(source, table, text, message):
    with pytest.raises(UserError, match=message):
        read_labels(table(text), source)


def test_the_same_row_twice_is_no_contradiction(source, table):
    assert read_labels(table("a.png,x\na.png,x\n"), source)[0].tolist() == [0, -1, -1, -1, -1]


def test_files_that_cannot_be_read(source, table, tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere"):
        read_labels(tmp_path / "nowhere.csv", source)
    with pytest.raises(UserError, match="UTF-8"):
        read_labels(table("a.png,caf\xe9\n", "latin-1"), source)


def test_a_table_relative_to_the_splits(tmp_path, make_image, table):
    root = tmp_path / "x"
    for name in ("train/1/a.png", "train/2/a.png", "test/1/b.png", "test/2/b.png"):
        make_image(root / name)
    path = table("1/a.png,x\n2/a.png,y\n1/b.png,x\n2/b.png,y\n")
    assert read_labels(path, open_source(root, split="test"))[0].tolist() == [0, 1]


def test_one_table_for_all_splits(tmp_path, make_image, table):
    root = tmp_path / "x"
    for name in ("train/a.png", "train/b.png", "test/c.png", "test/d.png"):
        make_image(root / name)
    for text in (
        "train/a.png,x\ntrain/b.png,y\ntest/c.png,z\ntest/d.png,x\n",
        "a.png,x\nb.png,y\nc.png,z\nd.png,x\n",
    ):
        path = table(text)
        test = read_labels(path, open_source(root, split="test"))
        assert (test[0].tolist(), test[1]) == ([2, 0], ["x", "y", "z"])
        train = read_labels(path, open_source(root, split="train"))
        assert (train[0].tolist(), train[1]) == ([0, 1], ["x", "y", "z"])
    with pytest.raises(UserError, match=r"1 of 2 rows match no sample.*'e\.png'"):
        read_labels(table("a.png,x\ne.png,y\n"), open_source(root, split="train"))
    with pytest.raises(UserError, match="1 of 1 rows match no sample"):
        read_labels(table("test/c.png,x\n"), open_source(root, split="train"))


def test_a_table_of_more_than_this_folder_is_taken_where_it_labels_all_of_it(
    source, table, tmp_path
):
    rows = "".join(f"{name},{i % 2}\n" for i, name in enumerate(source.names))
    labels, _ = read_labels(table(f"file,label\n{rows}elsewhere/z.png,1\n"), source)
    assert labels.tolist() == [i % 2 for i in range(len(source))]


def test_a_header_without_a_label_is_refused_and_not_read_by_position(source, table):
    with pytest.raises(UserError, match="no column 'label': its columns are file, group"):
        read_labels(table("file,group\na.png,3\n"), source)
