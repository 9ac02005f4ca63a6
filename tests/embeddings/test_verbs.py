"""What a user asks of embeddings, and the tables and pages that answer."""

import csv
import shutil

import pytest

from builders import Ears
from similitude.embeddings import choose, duplicates, outliers, search, write_embeddings
from similitude.errors import UserError
from similitude.evaluation import Features


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def file(clouds, tmp_path):
    write_embeddings(tmp_path / "e.npz", clouds.names, clouds.x.numpy())
    return tmp_path / "e.npz"


def test_neighbors_of_a_sample_are_its_own_kind_and_not_itself(file, tmp_path):
    answer = search(file, query=["b03", "c01"], count=9, output=tmp_path / "s.csv")
    header, *rows = rows_of(tmp_path / "s.csv")
    assert header == ["query", "rank", "file", "similarity"]
    assert [row[:2] for row in rows[:2]] == [["b03", "1"], ["b03", "2"]]
    assert len(rows) == 18
    assert all(query[0] == name[0] and query != name for query, _, name, _ in rows)
    similar = [float(row[3]) for row in rows[:9]]
    assert similar == sorted(similar, reverse=True)
    assert rows == [list(map(str, row)) for row in answer.rows()]
    assert not (tmp_path / "s.html").exists()  # nothing is known of how they look


def test_without_a_question_each_is_asked_about(file, clouds):
    rows = list(search(file, count=2).rows())
    assert [row[0] for row in rows[::2]] == clouds.names


def test_other_samples_ask_in_a_file_of_their_own(clouds):
    others = Features(clouds.x[30:32], None, ["x", "y"])
    rows = list(search(clouds, queries=others, count=1).rows())
    assert rows == [("x", 1, "b00", "1"), ("y", 1, "b01", "1")]


def test_duplicates_in_both_parts_are_told(clouds):
    names = [f"{'train' if i % 2 else 'test'}/{i}" for i in range(len(clouds))]
    x = clouds.x.clone()
    x[8], x[41] = x[3], x[3]
    ears = Ears()
    answer = duplicates(Features(x, None, names), threshold=1.0, listener=ears)
    assert list(answer.rows()) == [(1, "train/3", ""), (1, "test/8", "1"), (1, "train/41", "1")]
    assert "without duplicates 59 of 61 are left. 1 groups lie in the training and" in answer.told


def test_the_stranger_is_the_outlier(clouds):
    rank, name, distance = next(outliers(clouds, count=3).rows())
    assert (rank, name) == (1, "stranger")
    assert float(distance) > 1


def test_labels_that_are_there_are_not_asked_for_again(clouds, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\na00,x\nb01,y\n")
    for by in ("typical", "diverse"):
        chosen = choose(clouds, count=59, by=by, labels=tmp_path / "labels.csv")
        names = [row[1] for row in chosen.rows()]
        assert len(set(names)) == len(names)
        assert not {"a00", "b01"} & set(names)
    with pytest.raises(UserError, match="60 are to be chosen, and 59 are without a label"):
        choose(clouds, count=60, labels=tmp_path / "labels.csv")


def test_what_is_given_is_left_as_it_is(clouds):
    before = clouds.x.clone()
    outliers(clouds)
    assert bool((clouds.x == before).all())


@pytest.mark.slow
def test_pictures_of_other_data_are_refused(file, photos):
    with pytest.raises(UserError, match=r"no sample of .*e\.npz is in"):
        outliers(file, count=3, pictures=photos)


def test_embeddings_that_hardly_differ_are_no_copies(clouds):
    alike = Features(clouds.x * 0 + clouds.x[:1], None, clouds.names)
    answer = duplicates(alike, threshold=0.9)
    assert answer.told.startswith("1 group of samples")
    assert "hardly differ" in answer.told


def test_a_model_and_data_do_without_a_file_and_show_pictures(start, photos, tmp_path):
    shutil.copy(photos / "class0" / "photo004.png", photos / "class1" / "copy <b>.png")
    ears = Ears()
    duplicates(start, photos, threshold=1.0, output=tmp_path / "d.csv", listener=ears)
    assert rows_of(tmp_path / "d.csv")[1:] == [
        ["1", "class0/photo004.png", ""],
        ["1", "class1/copy <b>.png", "1"],
    ]
    page = (tmp_path / "d.html").read_text()
    assert page.count('role="img"') == 2
    assert "copy &lt;b&gt;.png" in page
    assert "copy <b>" not in page
    assert f"page: {tmp_path / 'd.html'}" in ears.sentences
    copy = photos / "class1" / "copy <b>.png"
    rows = list(search(start, photos, queries=copy, count=2).rows())
    assert [row[2] for row in rows] == ["class0/photo004.png", "class1/copy <b>.png"]
    copy.unlink()
    rows = list(search(start, photos, queries=photos / "class1", count=1).rows())
    assert all(row[2] == f"class1/{row[0]}" for row in rows)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda f, d: search(f, query=["nobody"]), "no sample is called 'nobody'"),
        (lambda f, d: search(d), "is no file of embeddings"),
        (lambda f, d: search(f, query=["a00"], queries=f), "give one of them"),
        (lambda f, d: duplicates(f, threshold=1.5), "above 0 and up to 1"),
        (lambda f, d: choose(f, by="typicaly"), "did you mean typical"),
        (lambda f, d: outliers(f, output=d / "o.txt"), r"must end in \.csv"),
        (lambda f, d: outliers(d / "none.npz"), "no such file"),
    ],
)
def test_mistakes_are_one_sentence(file, tmp_path, ask, told):
    with pytest.raises(UserError, match=told):
        ask(file, tmp_path)


def test_embeddings_of_two_models_are_not_compared(clouds):
    with pytest.raises(UserError, match="the queries have 4 numbers each, and the embeddings 8"):
        search(clouds, queries=Features(clouds.x[:, :4], None, clouds.names))


def test_a_page_of_somebody_elses_stays(clouds, tmp_path):
    (tmp_path / "o.html").write_text("mine")
    with pytest.raises(UserError, match="is no page of similitude"):
        outliers(clouds, output=tmp_path / "o.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["o.html"]
