import json
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("pycocotools")

from PIL import Image  # noqa: E402

from pqlib.training.data import open_data  # noqa: E402
from pqlib.training.tasks import VOID  # noqa: E402

XML = """<annotation><filename>{name}.jpg</filename>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin>
<ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def picture(path, size=(64, 48), colour=(10, 200, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def classes(root, n=10):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for i in range(n):
                picture(root / split / label / f"{i}.png", colour=(i, 0, 100 * (label == "dog")))
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    return root


def camvid(root, labels=(0, 5, 10, 11), splits=("train", "val", "test"), n=4):
    for split in splits:
        for i in range(n):
            picture(root / split / f"{i}.jpg")
            label = np.repeat(labels, 64 * 48 // len(labels)).reshape(48, 64).astype(np.uint8)
            (root / f"{split}annot").mkdir(exist_ok=True)
            Image.fromarray(label).save(root / f"{split}annot" / f"{i}.png")
    return root


def boxes_in_xml(root, names, lists=("train", "val", "test"), kind="WBC"):
    for i, name in enumerate(names):
        picture(root / "JPEGImages" / f"{name}.jpg")
        objects = OBJECT.format(1, 1, 32, 24, name=kind, difficult=0)
        objects += OBJECT.format(11, 11, 20, 20, name="RBC", difficult=1)
        (root / "Annotations").mkdir(exist_ok=True)
        text = XML.format(name=name, objects=objects if i else "")
        (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for i, split in enumerate(lists):
        own = "\n".join(names[2 * i : 2 * i + 2])
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(own)
    return root


def coco(file, images, n=6, categories=(3, 90)):
    for i in range(n):
        picture(images / f"{i}.jpg")
    annotations = [
        *({"image_id": 7, "category_id": categories[0], "bbox": [8, 4, 16, 20], "iscrowd": 0},),
        *({"image_id": 7, "category_id": categories[1], "bbox": [0, 0, 64, 48], "iscrowd": 1},),
        *({"image_id": 8, "category_id": categories[1], "bbox": [5, 5, 0, 9], "iscrowd": 0},),
    ]
    for i, annotation in enumerate(annotations):
        annotation |= {"id": i + 1, "area": 9}
    stored = {
        "images": [{"id": i + 7, "file_name": f"{i}.jpg"} for i in range(n)],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c)} for c in categories],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(stored))


def counts(data):
    return len(data.train), len(data.validation), len(data.test)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_of_classes(tmp_path, zipped):
    root = classes(tmp_path / "images")
    if zipped:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for file in root.rglob("*.*"):
                archive.write(file, file.relative_to(root))
        root = tmp_path / "images.zip"
    data = open_data(f"folder:{root}", task="classification", size=32)
    assert counts(data) == (18, 2, 20) and data.n_classes == 2
    found = [data.test[i] for i in range(20)]
    assert [label for _, label in found] == [0] * 10 + [1] * 10
    assert all(int(image[2, 5, 5]) == 100 * label for image, label in found)
    assert found[0][0].shape == (3, 32, 32)


def test_a_folder_with_a_validation_split_and_without_a_class(tmp_path):
    root = classes(tmp_path, n=3)
    picture(root / "val" / "dog" / "0.png")
    data = open_data(f"folder:{root}", task="classification", size=32)
    assert counts(data) == (6, 1, 6) and data.validation[0][1] == 1
    picture(root / "test" / "fish" / "0.png")
    with pytest.raises(ValueError, match="class 'fish' has no images in train"):
        open_data(f"folder:{root}", task="classification", size=32)


def test_folders_that_miss_something(tmp_path):
    (tmp_path / "other").mkdir()
    for source, task, message in (
        ("folder", "classification", "must have a folder train/; there is other"),
        ("camvid", "segmentation", "must have a folder train/; there is other"),
        ("boxes", "detection", "no Annotations/ with VOC's XML files, no instances.json"),
        ("coco", "detection", "instances_train2017.json is not there; there is other"),
        ("voc", "segmentation", "must hold VOCdevkit/VOC2012"),
        ("voc", "detection", "must hold VOCdevkit/VOC2012"),
        ("cifar10", "classification", "cifar-10-batches-py"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            open_data(f"{source}:{tmp_path}", task=task, size=128)
    picture(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(FileNotFoundError, match=r"no images as test/<class>/\*.jpg; there is oth"):
        open_data(f"folder:{tmp_path}", task="classification", size=32)
    (tmp_path / "a.zip").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no zip file"):
        open_data(f"folder:{tmp_path / 'a.zip'}", task="classification", size=32)


def test_a_damaged_image_is_named(tmp_path):
    root = classes(tmp_path, n=2)
    (root / "test" / "cat" / "0.png").write_bytes(b"nothing")
    data = open_data(f"folder:{root}", task="classification", size=32)
    with pytest.raises(ValueError, match=r"cat/0.png cannot be read as an image"):
        data.test[0]


def test_label_maps_and_their_void(tmp_path):
    data = open_data(f"camvid:{camvid(tmp_path)}", task="segmentation", size=64)
    assert counts(data) == (4, 4, 4) and data.n_classes == 11
    image, mask = data.test[0]
    assert image.shape == (3, 64, 64) and mask.shape == (64, 64)
    expected = np.repeat([0, 5, 10, VOID], 12)
    assert mask[:48, 0].tolist() == expected.tolist() and (mask[48:] == VOID).all()


def test_label_maps_with_classes_of_their_own(tmp_path):
    root = camvid(tmp_path, labels=(0, 1, 2, 255), splits=("train", "test"), n=10)
    (root / "classes.txt").write_text("sky\nroad\n\n")
    data = open_data(f"camvid:{root}", task="segmentation", size=64)
    assert counts(data) == (9, 1, 10) and data.n_classes == 2
    assert {*data.test[0][1].unique().tolist()} == {0, 1, VOID}
    (root / "classes.txt").write_text("sky\n")
    data = open_data(f"camvid:{root}", task="segmentation", size=64)
    with pytest.raises(ValueError, match=r"has the label 2; expected are 0..0, and for void 1 or"):
        data.test[0]
    (root / "testannot" / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match="has no label map"):
        open_data(f"camvid:{root}", task="segmentation", size=64)


def test_a_label_map_of_another_size(tmp_path):
    root = camvid(tmp_path)
    Image.new("RGB", (64, 48)).save(root / "testannot" / "0.png")
    Image.new("L", (32, 48)).save(root / "testannot" / "1.png")
    data = open_data(f"camvid:{root}", task="segmentation", size=64)
    for i in (0, 1):
        with pytest.raises(ValueError, match="one label for each pixel"):
            data.test[i]


def check_boxes(found):
    """The first image has none; VOC's pixels count from 1, and the last belongs."""
    (_, none), (image, target) = found
    assert none["boxes"].shape == (0, 4) and none["labels"].dtype == torch.int64
    assert target["boxes"].tolist() == [[0, 0, 64, 48], [20, 20, 40, 40]]  # enlarged twice
    assert target["crowd"].tolist() == [False, True] and target["extent"].tolist() == [128, 96]
    assert image.shape == (3, 128, 128)


def test_boxes_in_xml(tmp_path):
    root = boxes_in_xml(tmp_path / "a", ["a", "b", "c", "d", "e", "f"])
    data = open_data(f"boxes:{root}", task="detection", size=128, augment=False)
    assert counts(data) == (2, 2, 2) and data.n_classes == 2
    check_boxes([data.train[0], data.train[1]])
    assert data.train[1][1]["labels"].tolist() == [1, 0]  # RBC comes before WBC
    names = [f"{i:02}" for i in range(20)]
    root = boxes_in_xml(tmp_path / "b", names, lists=())
    data = open_data(f"boxes:{root}", task="detection", size=128)
    assert counts(data) == (15, 2, 3)
    assert len({*data.train.indices, *data.validation.indices, *data.test.indices}) == 20
    for folder, file in ((tmp_path / "a", "ImageSets/Main/val.txt"), (tmp_path / "c", None)):
        if file is None:
            boxes_in_xml(folder, ["a", "b"], lists=())
            (folder / "Annotations").rename(folder / "Annotated")
            (folder / "Annotations").mkdir()
        else:
            (folder / file).write_text("")
        with pytest.raises(FileNotFoundError, match=r"names no image; there is .*"):
            open_data(f"boxes:{folder}", task="detection", size=128)
    (root / "Annotations" / "03.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"03.xml is no annotation in VOC's format"):
        open_data(f"boxes:{root}", task="detection", size=128)


def test_boxes_in_json(tmp_path, capsys):
    coco(tmp_path / "a" / "instances.json", tmp_path / "a" / "images", n=20)
    data = open_data(f"boxes:{tmp_path / 'a'}", task="detection", size=128, augment=False)
    assert counts(data) == (15, 2, 3) and data.n_classes == 2
    coco(tmp_path / "b" / "train" / "instances.json", tmp_path / "b" / "train" / "images", n=10)
    coco(tmp_path / "b" / "test" / "instances.json", tmp_path / "b" / "test" / "images")
    data = open_data(f"boxes:{tmp_path / 'b'}", task="detection", size=128)
    assert counts(data) == (9, 1, 6)
    target = data.test[0][1]
    assert target["boxes"].tolist() == [[16, 8, 48, 48], [0, 0, 128, 96]]
    assert target["labels"].tolist() == [0, 1] and target["crowd"].tolist() == [False, True]
    assert len(data.test[1][1]["boxes"]) == 0  # its box has no area
    assert capsys.readouterr().out == ""
    (tmp_path / "b" / "test" / "instances.json").write_text("[]")
    with pytest.raises(ValueError, match=r"instances.json cannot be read"):
        open_data(f"boxes:{tmp_path / 'b'}", task="detection", size=128)
    (tmp_path / "b" / "test" / "instances.json").write_text("{}")
    with pytest.raises(ValueError, match="must have images, annotations and categories"):
        open_data(f"boxes:{tmp_path / 'b'}", task="detection", size=128)


def test_coco_keeps_its_numbers(tmp_path):
    for split in ("train2017", "val2017"):
        coco(tmp_path / "annotations" / f"instances_{split}.json", tmp_path / split)
    data = open_data(f"coco:{tmp_path}", task="detection", size=128)
    assert counts(data) == (5, 1, 6) and data.n_classes == 90
    assert data.test[0][1]["labels"].tolist() == [2, 89]
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="val2017 is no folder; there is annotations"):
        open_data(f"coco:{tmp_path}", task="detection", size=128)


def test_pascal_voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    names = [f"{i:02}" for i in range(14)]
    boxes_in_xml(root, names, lists=(), kind="cat")
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("RBC", "dog"))
    (root / "ImageSets" / "Segmentation").mkdir()
    (root / "SegmentationClass").mkdir()
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind / "train.txt").write_text("\n".join(names[:10]))
        (root / "ImageSets" / kind / "val.txt").write_text("\n".join(names[10:]))
    for name in names:
        label = Image.new("P", (64, 48), 20)
        label.putpalette([i // 3 for i in range(768)])
        label.putpixel((0, 0), 255)
        label.save(root / "SegmentationClass" / f"{name}.png")
    data = open_data(f"voc:{tmp_path}", task="detection", size=128)
    assert counts(data) == (9, 1, 4) and data.n_classes == 20
    assert data.test[0][1]["labels"].tolist() == [7, 11]
    data = open_data(f"voc:{tmp_path}", task="segmentation", size=64)
    assert counts(data) == (9, 1, 4) and data.n_classes == 21
    mask = data.test[0][1]
    assert mask[0, 0] == VOID and (mask[:48, 1:] == 20).all() and (mask[48:] == VOID).all()
