"""What the columns of a table are, and which of its entries are missing."""

import numpy as np
import pytest
import torch
from PIL import Image

from builders import random_images
from similitude import pretrain
from similitude.decision.parts import open_parts
from similitude.errors import UserError
from similitude.modalities import modality
from similitude.multimodal.samples import MODALITY


def test_columns_of_files_and_of_words_are_sensors(pairs):
    source = MODALITY.open_training(pairs, None)
    assert source.kinds == {"photo": "image", "depth": "image", "text": "text"}
    assert len(source) == 64
    assert source.class_names == ["blue", "green", "red", "white"]
    assert sum(not cell for cell in source.cells["depth"]) > 0
    assert len(MODALITY.open_part(pairs, "test", None)) == 16


def test_a_table_in_parquet_is_the_same(pairs, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.csv.read_csv(pairs)
    path = pairs.parent / "pairs.parquet"
    pyarrow.parquet.write_table(table, path)
    one, other = (MODALITY.open_training(p, None) for p in (pairs, path))
    assert one.cells == other.cells
    assert torch.equal(one.labels, other.labels)


def test_an_entry_that_several_rows_name_is_loaded_once(pairs):
    path = pairs.parent / "twice.tsv"
    path.write_text("photo\tcaption\n00.png\tred\n00.png\tblood red\n01.png\tgreen\n")
    source = MODALITY.open_training(path, None)
    photos = modality("image").load(
        source.column("photo"), modality("image").data_config(image_size=24)
    )
    assert photos.names == ["00.png", "01.png"]
    assert source.rows_of("photo", photos.names).tolist() == [0, 0, 1]


@pytest.fixture
def fields(tmp_path):
    """A table of arrays of five channels, deep ones, beside photos."""
    drawn = np.random.default_rng(0)
    rows = ["field,photo"]
    for i, photo in enumerate(random_images(12).thumbnails(16)):
        np.save(tmp_path / f"{i}.npy", drawn.integers(0, 4096, (16, 16, 5)).astype(np.uint16))
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.npy,{i}.png")
    table = tmp_path / "fields.csv"
    table.write_text("\n".join(rows))
    return table


def test_arrays_are_images_with_the_channels_that_they_have(fields):
    source = MODALITY.open_training(fields, None)

    assert source.kinds == {"field": "image", "photo": "image"}
    assert [source.column(name).channels for name in source.kinds] == [5, 3]
    assert source.column("field").values == (0, 4095)
    assert any(note.startswith("field: some pictures are deeper") for note in source.notes)


@pytest.mark.slow
def test_a_run_says_how_every_sensor_is_decoded_and_reads_later_tables_so(fields):
    widths = [f"backbone.towers.{name}.network.base_width=4" for name in ("field", "photo")]
    run = pretrain(
        fields,
        out=fields.parent / "run",
        epochs=1,
        batch_size=6,
        report=False,
        overrides=[*widths, "sensors.field.depth=16"],
    )
    data = run.recipe.data.sensors["field"]
    assert (data.channels, data.depth, data.value_range) == (5, 16, (0, 4095))
    for i in range(12):  # darker ones: shown in the range of those before
        np.save(fields.parent / f"{i}.npy", np.full((16, 16, 5), 819, np.uint16))
    later = MODALITY.load(MODALITY.open_part(fields, None, run.recipe.data), run.recipe.data)
    assert later.of["field"].pixels.unique().tolist() == [65535 // 5]


def test_a_column_of_files_that_are_not_there_is_one_sentence(fields):
    fields.write_text("field,photo\nelsewhere/0.npy,0.png\nelsewhere/1.npy,1.png\n")
    with pytest.raises(UserError, match=r"none of the 2 files in column field .*0.npy'"):
        MODALITY.open_training(fields, None)


def test_a_decision_looks_at_every_column(pairs):
    some = open_parts(pairs, None, None, None, 0).some()
    assert list(some.of) == ["photo", "depth", "text"]
