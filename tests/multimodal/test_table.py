"""What the columns of a table are, and which of its entries are missing."""

import torch

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
