import math

import pytest

from similitude.errors import UserError
from similitude.runs.metrics import Metrics, read_metrics


def test_metrics_keep_only_rows_up_to_the_step_a_run_resumes_from(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = Metrics(path, 0)
    for step in range(5):
        metrics.add({"step": float(step), "loss": 1.0 / (step + 1)})
    resumed = Metrics(path, 2)
    assert [row["step"] for row in resumed.rows] == [0.0, 1.0, 2.0]
    resumed.add({"step": 3.0, "knn": 0.5})
    assert read_metrics(path)[-1] == {"step": 3.0, "knn": 0.5}
    assert resumed.last("loss") == pytest.approx(1 / 3)
    assert resumed.first("loss") == 1.0
    resumed.add({"step": 4.0, "loss": math.nan})
    assert resumed.largest("loss") == 1.0
    assert resumed.largest("never") is None
    assert resumed.last("never") is None


def test_a_spreadsheet_may_sign_the_file_and_damage_is_named(tmp_path):
    path = tmp_path / "metrics.csv"
    Metrics(path, 0).add({"step": 1.0, "loss": 2.0})
    whole = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    assert read_metrics(path) == [{"step": 1.0, "loss": 2.0}]
    for damage in (whole + b"x,y\n", whole + b",1\n", b"\xff\xfe", whole + b"1," * 99, b"a\n1\n"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"metrics\.csv.*delete the file"):
            read_metrics(path)


def test_what_is_judged_does_not_depend_on_whether_it_was_read_again(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = Metrics(path, 0)
    metrics.add({"step": 1.0, "loss": 1 / 3})
    metrics.add({"step": 1.0, "knn": 2 / 3})
    assert metrics.rows == read_metrics(path) == Metrics(path, 1).rows
