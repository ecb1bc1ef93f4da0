import copy
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("sklearn")

from torch.utils.data import DataLoader  # noqa: E402
from torchvision import tv_tensors  # noqa: E402

from pqlib.training import examples  # noqa: E402
from pqlib.training.augmentation import Preparation  # noqa: E402
from pqlib.training.classification import Classification  # noqa: E402
from pqlib.training.data import open_data  # noqa: E402
from pqlib.training.digit_scenes import Digits, DigitScenes, as_boxes, digits  # noqa: E402
from pqlib.training.tasks import VOID  # noqa: E402

DATA = Path(os.environ.get("PQLIB_DATA", "nowhere"))
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def same(a, b):
    if isinstance(a, dict):
        return all(torch.equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize("size", [64, (72, 96)])
def test_examples_depend_on_seed_epoch_and_index_alone(task, size):
    def open_it(seed=3):
        return open_data("scenes:16", task=task, size=size, seed=seed)

    state = torch.random.get_rng_state()
    data, other = open_it(), open_it()
    first = [data.train[i] for i in range(4)]
    again = [other.train[i] for i in (3, 2, 1, 0)][::-1]
    assert all(same(a, c) and same(b, d) for (a, b), (c, d) in zip(first, again, strict=True))
    data.set_epoch(1)
    assert not all(same(a, data.train[i][0]) for i, (a, _) in enumerate(first))
    data.set_epoch(0)
    assert all(same(a, data.train[i][0]) for i, (a, _) in enumerate(first))
    assert torch.equal(torch.random.get_rng_state(), state)
    image = first[0][0]
    assert image.dtype == torch.uint8 and type(image) is torch.Tensor
    assert image.shape == (3, *data.size)
    assert same(data.test[0][0], open_it(seed=4).test[0][0])
    data.set_epoch(7)
    for copied in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert same(copied.train[1][0], data.train[1][0])


def test_splits_are_disjoint_and_the_test_images_are_the_same_for_all_seeds():
    data, other = (open_data("digits", task="classification", size=8, seed=s) for s in (0, 1))
    assert (data.n_classes, len(data.train), len(data.validation)) == (10, 1294, 144)
    assert not {*data.train.indices} & {*data.validation.indices}
    assert {*data.train.indices} != {*other.train.indices}
    assert [data.test[i][1] for i in range(359)] == [other.test[i][1] for i in range(359)]
    few, others = (
        open_data("digits", task="classification", size=8, seed=s, limit=20) for s in (0, 1)
    )
    assert len(few.train) == len(few.validation) == len(few.test) == 20
    assert {*few.train.indices} <= {*data.train.indices}
    assert few.test.indices.tolist() == others.test.indices.tolist()


def test_workers_see_the_epoch_and_give_the_same():
    data = open_data("digits", task="classification", size=16, limit=6)
    collate = Classification(10, 16, PLAIN).collate
    loader = DataLoader(
        data.train, batch_size=3, num_workers=1, persistent_workers=True, collate_fn=collate
    )
    for epoch in (0, 5):
        data.set_epoch(epoch)
        from_worker = torch.cat([batch["images"] for batch in loader])
        assert torch.equal(from_worker, torch.stack([data.train[i][0] for i in range(6)]))


def test_without_augmentation_epochs_are_equal():
    data = open_data("digits", task="classification", size=8, augment=False)
    before = data.train[0][0]
    data.set_epoch(3)
    assert torch.equal(before, data.train[0][0])


def test_memory_is_bounded(monkeypatch):
    data = open_data("scenes:12", task="segmentation", size=32)
    monkeypatch.setattr(examples, "_CACHE_BYTES", 3 * 2 * 3 * 32 * 32)
    first = [data.train[i][0] for i in range(8)]
    assert len(data.train._kept) == 3
    assert all(torch.equal(a, data.train[i][0]) for i, a in enumerate(first))
    assert pickle.loads(pickle.dumps(data.train))._kept == {}


def test_digits_are_scikit_learns():
    images, _ = digits("train")
    others, other_labels = digits("test")
    assert len(images) + len(others) == 1797
    assert images.dtype == np.uint8 and (images.min(), images.max()) == (0, 255)
    assert np.bincount(other_labels).min() > 20
    whole = {image.tobytes() for image in images}
    assert sum(image.tobytes() in whole for image in others) == 0
    image, label = Digits("test", (8, 8))[5]
    assert np.array_equal(image[1].numpy(), others[5]) and label == other_labels[5]


def test_mask_and_boxes_of_a_scene_agree():
    size = (64, 96)
    scenes = DigitScenes("train", 50, size, "detection")
    seen = set()
    for i, (image, target) in enumerate(scenes):
        _, mask, _, _ = scenes._scene(i)
        labels = target["labels"].tolist()
        assert image.dtype == torch.uint8 and 1 <= len(labels) <= 3
        assert {*mask.unique().tolist()} == {0, *(d + 1 for d in labels)}
        painted = torch.zeros_like(mask)
        for box, digit in zip(target["boxes"], labels, strict=True):
            left, top, right, bottom = map(int, box)
            inside = mask[top:bottom, left:right] == digit + 1
            assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all()  # tight
            painted[top:bottom, left:right] = 1
        assert not mask[painted == 0].any()
        seen |= {*labels}
    assert seen == {*range(10)}
    others = DigitScenes("test", 8, size, "detection")
    assert not torch.equal(others[0][0], scenes[0][0])
    with pytest.raises(IndexError):
        others[8]


def test_other_scenes_are_one_large_digit_bright_on_dark():
    """Where the mask has the digit, the image is brighter than elsewhere."""
    scenes = DigitScenes("train", 60, (32, 40), "segmentation")
    seen = set()
    for i, (image, label) in enumerate(DigitScenes("train", 60, (32, 40), "classification")):
        other, mask = scenes[i]
        _, _, boxes, shown = scenes._scene(i)
        assert torch.equal(image, other)
        assert shown == [label] and {*mask.unique().tolist()} == {0, label + 1}
        ((left, top, right, bottom),) = boxes
        assert max(right - left, bottom - top) >= 0.4 * 32
        brightness = image.float().mean(0)
        assert brightness[mask > 0].mean() > brightness[mask == 0].mean() + 20
        seen.add(label)
    assert seen == {*range(10)}


def test_letterboxes_by_hand():
    """A mask and a box in an image of 40 x 80 pixels, brought to 64 x 64."""
    image = tv_tensors.Image(torch.full((3, 40, 80), 200, dtype=torch.uint8))
    mask = torch.ones(40, 80, dtype=torch.uint8)
    shrunk, labels = Preparation("segmentation", (64, 64)).fixed(image, tv_tensors.Mask(mask))
    assert (labels[:32] == 1).all() and (labels[32:] == VOID).all()
    assert (shrunk[:, :32] == 200).all() and shrunk[:, 40, 0].tolist() == [124, 116, 104]
    kept, labels = Preparation("segmentation", (48, 96)).fixed(image, tv_tensors.Mask(mask))
    assert torch.equal(kept[:, :40, :80], image) and (labels == VOID).sum() == 48 * 96 - 40 * 80
    target = as_boxes([(8, 4, 40, 20), (0, 0, 0.5, 9)], [3, 4], (40, 80))
    enlarged, found = Preparation("detection", (128, 160)).fixed(image, target)
    assert enlarged.shape == (3, 128, 160) and found["extent"].tolist() == [160, 80]
    assert found["boxes"].tolist() == [[16, 8, 80, 40], [0, 0, 1, 18]]
    _, found = Preparation("detection", (64, 64)).fixed(image, target)
    assert found["boxes"].numpy() == pytest.approx(np.array([[6.4, 3.2, 32, 16], [0, 0, 0.4, 7.2]]))
    assert found["labels"].tolist() == [3, 4]


def test_augmentation_moves_image_and_truth_together():
    """A bright square is the object: mask and box must stay on it."""
    image = torch.zeros(3, 80, 80, dtype=torch.uint8)
    mask = torch.zeros(80, 80, dtype=torch.uint8)
    image[:, 20:50, 30:60], mask[20:50, 30:60] = 250, 1
    boxes = as_boxes([(30, 20, 60, 50)], [2], (80, 80))
    prepare = Preparation("segmentation", (64, 64)), Preparation("detection", (64, 64))
    n_boxes, mirrored = 0, set()
    for draw in range(30):
        changed, labels = prepare[0].augmented(
            tv_tensors.Image(image), tv_tensors.Mask(mask), [1, draw]
        )
        bright = changed[0] > 187
        shown = labels != VOID
        assert ((labels == 1) == bright)[shown].float().mean() > 0.97
        changed, found = prepare[1].augmented(tv_tensors.Image(image), boxes, [1, draw])
        bright = (changed[0] > 187).nonzero()
        assert len(found["boxes"]) == len(found["crowd"]) == len(found["labels"])
        for left, top, right, bottom in found["boxes"]:
            n_boxes += 1
            assert abs(bright[:, 0].min() - top) <= 2 and abs(bright[:, 0].max() + 1 - bottom) <= 2
            assert abs(bright[:, 1].min() - left) <= 2
            assert abs(bright[:, 1].max() + 1 - right) <= 2
    assert n_boxes > 20
    ramp = tv_tensors.Image(torch.arange(32, dtype=torch.uint8).expand(3, 32, 32).clone())
    for natural in (True, False):
        small = Preparation("classification", (32, 32), natural=natural)
        images = [small.augmented(ramp, 1, [0, i])[0] for i in range(40)]
        mirrored.add((natural, any(im[0, 16, 10] > im[0, 16, 20] for im in images)))
        assert len({int(im[0, 16, 16]) for im in images}) > 5  # shifted
    assert mirrored == {(True, True), (False, False)}


def test_large_images_are_cut_out():
    image = tv_tensors.Image(torch.randint(256, (3, 90, 150), dtype=torch.uint8))
    prepare = Preparation("classification", (96, 96))
    assert prepare.fixed(image, 4)[0].shape == prepare.augmented(image, 4, [0])[0].shape
    scene = DigitScenes("test", 4, (96, 128), "classification")[0][0]
    prepare = Preparation("classification", (96, 128), natural=False)
    assert torch.equal(prepare.fixed(scene, 4)[0], scene)  # whole, with all its digits
    prepare = Preparation("classification", (96, 128))
    assert prepare.fixed(image, 4)[0].shape == (3, 96, 128)


def test_an_image_whose_boxes_have_left_it():
    image = tv_tensors.Image(torch.zeros(3, 200, 200, dtype=torch.uint8))
    boxes = as_boxes([(0, 0, 20, 20)], [0], (200, 200))
    prepare = Preparation("detection", (64, 64))
    counts = {len(prepare.augmented(image, boxes, [i])[1]["boxes"]) for i in range(40)}
    assert counts == {0, 1}


def test_cifar10_of_torchvision(tmp_path, monkeypatch):
    from torchvision import datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(30, 3 * 32 * 32), dtype=np.uint8)
    stored = {"data": pixels, "labels": [i % 10 for i in range(30)]}
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(pickle.dumps(stored))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", None]])
    meta = datasets.CIFAR10.meta | {"md5": None}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    data = open_data(f"cifar10:{tmp_path}", task="classification", size=32)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 30)
    image, label = data.test[7]
    assert np.array_equal(image.numpy().ravel(), pixels[7]) and label == 7
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py"):
        open_data(f"cifar10:{folder}", task="classification", size=32)


def test_cifar10_in_arrays(tmp_path):
    path = tmp_path / "some.npz"
    x = np.random.default_rng(0).integers(0, 256, size=(20, 3, 32, 32), dtype=np.uint8)
    y = np.arange(20) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    data = open_data(f"cifar10-npz:{path}", task="classification", size=32)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 10, 10)
    assert sorted([*data.validation.indices, *data.test.indices]) == [*range(20)]
    image, label = data.test[0]
    assert np.array_equal(image.numpy(), x[data.test.indices[0]])
    assert label == y[data.test.indices[0]]
    other = open_data(
        f"cifar10-npz:{path}", task="classification", size=32, validation="train", seed=1
    )
    assert (len(other.train), len(other.validation), len(other.test)) == (18, 2, 20)
    np.savez(path, x_train=x.astype(float), y_train=y, x_test=x, y_test=y)
    with pytest.raises(ValueError, match="must be uint8"):
        open_data(f"cifar10-npz:{path}", task="classification", size=32)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="must be an "):
        open_data(f"cifar10-npz:{path}", task="classification", size=32)


def test_what_cannot_be_opened(tmp_path):
    for source, task, error, message in (
        ("digits", "segmentation", ValueError, "serves classification, not segmentation"),
        ("camvid:/", "detection", ValueError, "serves segmentation"),
        ("mnist", "classification", ValueError, "source must be digits"),
        ("folder:", "classification", ValueError, "folder:PATH"),
        ("digits:3", "classification", ValueError, "nothing behind it"),
        ("scenes:x", "classification", ValueError, "scenes:N"),
        ("scenes:1", "classification", ValueError, "N of scenes"),
        ("digits", "magic", ValueError, "task must be one of"),
        (f"folder:{tmp_path}/none", "classification", FileNotFoundError, "is not there"),
        (3, "classification", TypeError, "source must be a str"),
    ):
        with pytest.raises(error, match=message):
            open_data(source, task=task, size=32)
    for options in ({"limit": 0}, {"seed": -1}, {"validation": "none"}, {"size": 4}):
        with pytest.raises(ValueError, match=next(iter(options))):
            open_data("digits", task="classification", **{"size": 32} | options)
    with pytest.raises(ValueError, match="size must be >= 32"):
        open_data("scenes", task="classification", size=16)


@pytest.mark.skipif(not DATA.is_dir(), reason="PQLIB_DATA holds no real images")
def test_real_images():
    for source, task, size, counts, n_classes in (
        ("camvid:segmentation/camvid", "segmentation", (192, 240), (367, 101, 233), 11),
        ("boxes:detection/bccd", "detection", 128, (205, 87, 72), 3),
        ("boxes:detection/coco128", "detection", 128, (98, 11, 19), 80),
    ):
        kind, _, path = source.partition(":")
        data = open_data(f"{kind}:{DATA / path}", task=task, size=size)
        assert (len(data.train), len(data.validation), len(data.test)) == counts
        assert data.n_classes == n_classes
        for part in (data.train, data.test):
            image, target = part[len(part) - 1]
            assert image.shape == (3, *data.size)
            if task == "detection":
                assert (target["boxes"][:, :2] < target["boxes"][:, 2:]).all()
                assert len(target["boxes"]) and target["labels"].max() < n_classes
            else:
                labels = {*target.unique().tolist()} - {VOID}
                assert labels <= {*range(11)} and len(labels) > 5
