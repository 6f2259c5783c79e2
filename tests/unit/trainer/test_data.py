"""Data sets on disk: the layouts that are read, and the sentence for each that is not."""

import json

import pytest
from PIL import Image

from datahall_trainer.data.images import Images, list_images, probe_shape
from datahall_trainer.data.texts import read_texts
from datahall_trainer.errors import BadInput

FIELD = "data.train"


@pytest.fixture
def shapes(pvc):
    return pvc / "data" / "shapes"


def picture(path, *, size=(6, 5), mode="L", value=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_folders_are_classes_in_numeric_order(pvc):
    for name in ("10", "9", ".hidden"):
        picture(pvc / "data/numbers" / name / "a.png")
    (pvc / "data/numbers/9/notes.txt").write_text("not a picture")
    listing = list_images("pvc://data/numbers", field=FIELD)
    assert listing.classes == ["9", "10"]
    assert listing.files == ["10/a.png", "9/a.png"]
    assert listing.labels == [1, 0]


def test_a_table_of_labels_is_read(pvc):
    for name in ("x", "y", "z"):
        picture(pvc / f"data/table/{name}.png")
    table = pvc / "data/table/labels.csv"
    table.write_text("file,label\nx.png,cat\ny.png,dog\nz.png,cat\n")
    listing = list_images("pvc://data/table", field=FIELD)
    assert (listing.classes, listing.labels) == (["cat", "dog"], [0, 1, 0])
    (pvc / "data/table/classes.txt").write_text("dog\ncat\nbird\n")
    table.write_text("file,label\nx.png,cat\ny.png,0\nz.png,2\n")
    listing = list_images("pvc://data/table", field=FIELD)
    assert (listing.classes, listing.labels) == (["dog", "cat", "bird"], [1, 0, 2])


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file,label\nx.png,12\n", "x.png: label '12' is out of range: the 2 classes are dog, cat"),
        ("file,label\nx.png,cow\n", "x.png: label 'cow' is out of range"),
        ("name,label\nx.png,cat\n", "labels.csv: needs the columns file and label"),
        ("file,label\n../x.png,cat\n", "labels.csv line 2: needs a file below it"),
        ("file,label\nx.png\n", "labels.csv line 2: needs a file below it and a label"),
        ("file,label\n", "no images"),
        ("", "labels.csv: needs the columns file and label"),
    ],
)
def test_a_bad_table_of_labels_is_named(pvc, table, sentence):
    picture(pvc / "data/table/x.png")
    (pvc / "data/table/classes.txt").write_text("dog\ncat\n")
    (pvc / "data/table/labels.csv").write_text(table)
    with pytest.raises(BadInput) as refused:
        list_images("pvc://data/table", field=FIELD)
    assert str(refused.value).startswith("data.train: pvc://data/table")
    assert sentence in str(refused.value)


def test_absent_and_empty_directories_are_named(pvc):
    (pvc / "data/empty").mkdir()
    with pytest.raises(BadInput, match=r"^data\.train: pvc://data/nowhere: no such directory$"):
        list_images("pvc://data/nowhere", field=FIELD)
    with pytest.raises(BadInput, match=r"^data\.train: pvc://data/empty: no images"):
        list_images("pvc://data/empty", field=FIELD)
    picture(pvc / "data/empty/one/a.png")
    with pytest.raises(BadInput, match="has only the class 'one'"):
        list_images("pvc://data/empty", field=FIELD)


def test_held_out_classes_must_be_known(pvc, shapes):
    picture(pvc / "data/held/7/a.png")
    with pytest.raises(BadInput, match="label '7' is out of range: the 3 classes are 0, 1, 2"):
        list_images("pvc://data/held", field="data.validation", classes=["0", "1", "2"])


def test_a_file_that_a_table_names_but_is_absent_is_named(pvc):
    picture(pvc / "data/table/x.png")
    (pvc / "data/table/labels.csv").write_text("file,label\nx.png,a\ny.png,b\n")
    listing = list_images("pvc://data/table", field=FIELD)
    with pytest.raises(BadInput, match=r"pvc://data/table/y\.png: .*No such file"):
        probe_shape(listing, field=FIELD)


def test_the_shape_is_the_commonest_size_and_colour_if_any_has_it(pvc):
    picture(pvc / "data/mix/a/1.png", size=(6, 5))
    picture(pvc / "data/mix/a/2.png", size=(6, 5))
    picture(pvc / "data/mix/b/3.png", size=(9, 9))
    listing = list_images("pvc://data/mix", field=FIELD)
    shape = probe_shape(listing, field=FIELD)
    assert (shape.channels, shape.height, shape.width) == (1, 5, 6)
    picture(pvc / "data/mix/b/4.png", size=(448, 224), mode="RGB", value=(1, 2, 3))
    for number in range(5, 9):
        picture(pvc / f"data/mix/b/{number}.png", size=(448, 224), mode="RGB", value=(1, 2, 3))
    shape = probe_shape(list_images("pvc://data/mix", field=FIELD), field=FIELD)
    assert (shape.channels, shape.height, shape.width) == (3, 112, 224)


def test_pixels_are_the_same_in_memory_and_decoded_at_each_use(shapes):
    import numpy as np

    listing = list_images("pvc://data/shapes", field=FIELD)
    shape = probe_shape(listing, field=FIELD)
    cached = Images(listing, shape, field=FIELD, cache_bytes=1 << 20)
    lazy = Images(listing, shape, field=FIELD, cache_bytes=1)
    indices = np.array([5, 0, 40])
    assert cached.pixels(indices).equal(lazy.pixels(indices))
    assert len(cached) == 48


def test_texts_come_from_csv_jsonl_and_directories(pvc):
    folder = pvc / "data/texts"
    folder.mkdir()
    (folder / "a.csv").write_text('text,label\n"one, two",good\nthree,bad\n')
    (folder / "b.jsonl").write_text(json.dumps({"text": "four", "label": "good"}) + "\n\n")
    (folder / "README.md").write_text("not data")
    data = read_texts("pvc://data/texts", field=FIELD)
    assert data.texts == ["one, two", "three", "four"]
    assert (data.classes, data.labels) == (["bad", "good"], [1, 0, 1])
    numbers = folder / "n.jsonl"
    numbers.write_text("\n".join(json.dumps({"text": "t", "label": label}) for label in (10, 9)))
    assert read_texts("pvc://data/texts/n.jsonl", field=FIELD).classes == ["9", "10"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", "review,stars\nx,1\n", "t.csv: needs the columns text and label, has review, stars"),
        ("t.csv", "", "t.csv: needs the columns text and label, has none"),
        ("t.csv", "text,label\n", "t.csv: no texts"),
        ("t.csv", "text,label\nonly\n", "t.csv line 2: text or label is missing"),
        ("t.csv", "text,label\nx,a\ny,a\n", "has only the class 'a'"),
        ("t.csv", b"text,label\n\xff\xfe,a\n", "t.csv: cannot be read"),
        ("t.jsonl", '{"text": 1, "label": "a"}', "t.jsonl line 1: needs an object with the columns text"),
        ("t.jsonl", '{"text": "x"}', "t.jsonl line 1: label must be a string or a whole number"),
        ("t.jsonl", "{", "t.jsonl: cannot be read"),
        ("t.parquet", "", "must be a .csv or .jsonl file"),
    ],
)
def test_bad_texts_are_named(pvc, name, content, sentence):
    (pvc / "data" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput) as refused:
        read_texts(f"pvc://data/{name}", field=FIELD)
    assert sentence in str(refused.value)


def test_held_out_labels_must_be_known(pvc):
    (pvc / "data/v.csv").write_text("text,label\nx,good\ny,ugly\n")
    with pytest.raises(
        BadInput, match=r"v\.csv line 3: label 'ugly' is out of range: the classes are bad, good"
    ):
        read_texts("pvc://data/v.csv", field="data.validation", classes=["bad", "good"])
    with pytest.raises(BadInput, match="no such file or directory"):
        read_texts("pvc://data/w.csv", field="data.validation")
