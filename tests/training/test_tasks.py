import pickle
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("torchvision", "effdet", "pycocotools", "torchmetrics"):
    pytest.importorskip(package)

from effdet import DetBenchTrain  # noqa: E402
from torch import nn  # noqa: E402
from torchmetrics.classification import MulticlassJaccardIndex  # noqa: E402
from torchmetrics.detection import MeanAveragePrecision  # noqa: E402

from pqlib.training.classification import Classification  # noqa: E402
from pqlib.training.dense_networks import efficientdet_config  # noqa: E402
from pqlib.training.detection import CROWD, FOUND, WANTED, Detection  # noqa: E402
from pqlib.training.segmentation import Segmentation  # noqa: E402
from pqlib.training.tasks import VOID, evaluating, task_class  # noqa: E402

PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
BOX = [0, 0, 10, 10]


@pytest.fixture(autouse=True)
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


class Says(nn.Module):
    """A network that answers what it was told, whatever the images."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        assert images.dtype == torch.float32
        return self.outputs


def images(n, side=8):
    return torch.zeros(n, 3, side, side, dtype=torch.uint8)


def test_inputs_are_normalized_as_the_network_wants():
    task = Classification(3, 8, ((0.5, 0.25, 0.0), (0.5, 0.25, 2.0)))
    batch = {"images": torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)}
    inputs = task.inputs(batch)
    assert inputs.dtype == torch.float32 and batch["images"].dtype == torch.uint8
    assert torch.equal(inputs[1, :, 3, 3], torch.tensor([1.0, 3.0, 0.5]))


def test_accuracy_by_hand():
    """Three of four are right; the loss is ln 2 where two classes are equally likely."""
    task = Classification(3, 8, PLAIN)
    low = -1e9
    logits = torch.tensor([[0.0, 0.0, low], [0.0, 0.0, low], [0.0, 0.0, low], [0.0, low, 0.0]])
    logits[:, 0] += 1e-3
    batch = task.collate(list(zip(images(4), [0, 0, 1, 0], strict=True)))
    found = task.evaluate(Says(logits), [batch])
    assert found["accuracy"] == 75 and found["per_image"].tolist() == [True, True, False, True]
    assert task.loss(Says(logits), batch).item() == pytest.approx(np.log(2), abs=1e-3)
    assert task.score(found["per_image"][[2, 2]]) == 0  # a draw of a bootstrap


TRUTH = torch.tensor([[[0, 0], [1, VOID]], [[2, 2], [2, 2]]], dtype=torch.uint8)
PREDICTED = torch.tensor([[[0, 1], [1, 2]], [[2, 2], [0, 0]]])


def segmentation_case():
    """Class 0: 1 hit of 4 in the union; class 1: 1 of 2; class 2: 2 of 4; class 3 none."""
    task = Segmentation(4, 8, PLAIN)
    logits = nn.functional.one_hot(PREDICTED, 4).permute(0, 3, 1, 2).float()
    return task, logits, task.collate(list(zip(images(2, 2), TRUTH, strict=True)))


def test_intersection_over_union_by_hand():
    task, logits, batch = segmentation_case()
    found = task.evaluate(Says(logits), [batch])
    assert found["mIoU"] == pytest.approx(100 * (1 / 4 + 1 / 2 + 1 / 2) / 3)
    assert found["per_image"][0].tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]
    assert task.score(found["per_image"][:1]) == 50  # without the second image
    with pytest.raises(ValueError, match="all pixels are void"):
        task.score(0 * found["per_image"])


def test_intersection_over_union_as_torchmetrics_has_it():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(5, (6, 4, 4), generator=rng)
    predicted = torch.randint(5, (6, 4, 4), generator=rng)
    truth[torch.rand(truth.shape, generator=rng) < 0.2] = VOID
    truth[truth == 3], predicted[predicted == 3] = 0, 0
    task = Segmentation(5, 8, PLAIN)
    logits = nn.functional.one_hot(predicted, 5).permute(0, 3, 1, 2).float()
    batch = task.collate(list(zip(images(6, 4), truth.to(torch.uint8), strict=True)))
    expected = MulticlassJaccardIndex(5, ignore_index=VOID)(predicted, truth)
    assert task.evaluate(Says(logits), [batch])["mIoU"] == pytest.approx(100 * expected.item())


def test_void_pixels_count_nowhere_in_the_loss():
    task, logits, batch = segmentation_case()
    expected = nn.functional.cross_entropy(logits, TRUTH.long(), ignore_index=VOID)
    assert task.loss(Says(logits), batch).item() == pytest.approx(expected.item())
    batch["masks"] = torch.full_like(batch["masks"], VOID)
    logits.requires_grad_()
    loss = task.loss(Says(logits), batch)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def rows(*image):
    """One image of "per_image": (kind, box, score, label) each."""
    return [[kind, *box, score, label] for kind, box, score, label in image]


def per_image(*parts):
    width = max(map(len, parts))
    return np.array([[*p, *[[0.0] * 7] * (width - len(p))] for p in parts], dtype=np.float32)


def test_average_precision_by_hand():
    task = Detection(2, 128, PLAIN)
    near = [0, 0, 10, 8.2]  # an intersection over union of 0.82: a match at 0.5, 0.55, ..., 0.8
    far = [50, 50, 60, 60]
    one = rows((WANTED, BOX, 1, 0), (FOUND, near, 0.9, 0))
    assert task.score(per_image(one)) == pytest.approx(70)
    # a false positive with a higher score halves the precision, one with a lower score nothing
    above, below = (rows((FOUND, far, score, 0)) for score in (0.95, 0.1))
    assert task.score(per_image(one + above)) == pytest.approx(35)
    assert task.score(per_image(one + below)) == pytest.approx(70)
    # in an image without boxes it counts just so
    assert task.score(per_image(one, above)) == pytest.approx(35)
    # a class that is not found halves the mean over the classes
    assert task.score(per_image(one, rows((WANTED, BOX, 1, 1)))) == pytest.approx(35)
    # what lies in a crowd is no false positive, and a crowd need not be found
    crowd = rows((CROWD, [40, 40, 70, 70], 1, 0))
    assert task.score(per_image(one + above + crowd)) == pytest.approx(70)
    # of two equal detections one is false
    twice = rows((WANTED, BOX, 1, 0), (FOUND, BOX, 0.9, 0), (FOUND, BOX, 0.8, 0))
    assert task.score(per_image(twice)) == pytest.approx(100)


@pytest.fixture(scope="module")
def detections():
    """Forty images of three classes with crowds, boxes found near them, and others."""
    rng, images = np.random.default_rng(0), []
    for _ in range(40):
        image = []
        for _ in range(rng.integers(0, 5)):
            left, top, width, height = (*rng.uniform(0, 90, 2), *rng.uniform(6, 30, 2))
            box = np.array([left, top, left + width, top + height])
            kind, label = CROWD if rng.random() < 0.1 else WANTED, rng.integers(3)
            image.append((kind, box, 1, label))
            image += [
                (FOUND, box + rng.normal(0, 2, 4), rng.random(), label)
                for _ in range(rng.integers(0, 3))
            ]
        image += [(FOUND, [5, 5, 20, 30], 0.2 * rng.random(), rng.integers(3))]
        images.append(rows(*image))
    return per_image(*images)


def test_average_precision_as_torchmetrics_has_it(detections):
    metric = MeanAveragePrecision(box_format="xyxy", backend="pycocotools")
    for image in torch.from_numpy(detections):
        found, wanted = image[image[:, 0] == FOUND], image[image[:, 0] > FOUND]
        said = {"boxes": found[:, 1:5], "labels": found[:, 6].long(), "scores": found[:, 5]}
        true = {"boxes": wanted[:, 1:5], "labels": wanted[:, 6].long()}
        metric.update([said], [true | {"iscrowd": (wanted[:, 0] == CROWD).int()}])
    expected = 100 * metric.compute()["map"].item()
    assert 5 < expected < 95
    assert Detection(3, 128, PLAIN).score(detections) == pytest.approx(expected, rel=1e-6)


def test_a_bootstrap_scores_the_images_drawn(detections):
    task = Detection(3, 128, PLAIN)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, 40, 40) for _ in range(5)]
    expected = [task.score(detections[draw]) for draw in draws]
    assert len({round(value, 6) for value in expected}) == 5
    assert task.scores(detections, draws).tolist() == expected
    empty = [i for i, image in enumerate(detections) if not (image[:, 0] == WANTED).any()]
    assert np.isnan(task.scores(detections, [np.array(empty)])[0])


def test_average_precision_without_detections_or_boxes():
    task = Detection(2, 128, PLAIN)
    assert task.score(per_image(rows((WANTED, BOX, 1, 0)))) == 0
    with pytest.raises(ValueError, match="no boxes"):
        task.score(per_image(rows((FOUND, BOX, 0.9, 0))))
    with pytest.raises(ValueError, match="no boxes"):
        task.score(np.zeros((3, 0, 7), dtype=np.float32))


@pytest.fixture(scope="module")
def detector():
    """A task, and a network that sees one wide object of class 1 in the first of two images."""
    task = Detection(3, 128, PLAIN)
    sides = (16, 8, 4, 2, 1)
    classes = [torch.full((2, 9 * 3, s, s), -12.0) for s in sides]
    boxes = [torch.zeros(2, 9 * 4, s, s) for s in sides]
    classes[1][0, 4 * 3 + 1, 3, 4] = 9.0  # of the fifth anchor, at row 3 and column 4
    classes[1].requires_grad_()
    # its stride is 16: centre (4.5 * 16, 3.5 * 16), 3 * 16 * 2**(1/3) * (1.4, 0.7) wide and high
    width, height = (48 * 2 ** (1 / 3) * aspect for aspect in (1.4, 0.7))
    box = torch.tensor([[72 - width / 2, 56 - height / 2, 72 + width / 2, 56 + height / 2]])
    return task, Says((classes, boxes)), box


def batch_of(task, boxes, labels, crowd=None, extent=(128, 128)):
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    crowd = torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else crowd
    targets = (
        {"boxes": boxes, "labels": torch.tensor(labels), "crowd": crowd},
        none | {"crowd": torch.zeros(0, dtype=torch.bool)},
    )
    extent = {"extent": torch.tensor(extent, dtype=torch.float32)}
    return task.collate([(im, t | extent) for im, t in zip(images(2, 128), targets, strict=True)])


def test_what_the_network_sees_is_where_it_says(detector):
    task, model, box = detector
    found = task.evaluate(model, [batch_of(task, box, [1])])
    assert found["mAP"] == pytest.approx(100)
    assert found["per_image"].shape[0] == 2
    best = found["per_image"][0][found["per_image"][0, :, 5].argsort()[::-1]]
    best = best[best[:, 0] == FOUND][0]
    assert best[1:5] == pytest.approx(box[0].numpy(), abs=1e-3) and best[6] == 1
    assert task.evaluate(model, [batch_of(task, box, [2])])["mAP"] < 1
    turned = box[:, [1, 0, 3, 2]]
    assert task.evaluate(model, [batch_of(task, turned, [1])])["mAP"] < 1


def test_detections_end_where_the_picture_ends(detector):
    task, model, box = detector
    found = task.evaluate(model, [batch_of(task, box, [1], extent=(100, 60))])["per_image"]
    boxes = found[0][found[0, :, 0] == FOUND]
    assert boxes[:, [1, 3]].max() <= 100 and boxes[:, [2, 4]].max() <= 60


def test_the_loss_is_that_of_effdets_train_bench(detector):
    task, model, box = detector
    model.config = efficientdet_config(None, 3, (128, 128))
    boxes = torch.cat([box, torch.tensor([[5.0, 60.0, 45.0, 90.0]])])
    batch = batch_of(task, boxes, [1, 2])
    target = {
        "bbox": [boxes[:, [1, 0, 3, 2]], torch.zeros(0, 4)],
        "cls": [torch.tensor([2, 3]), torch.zeros(0)],
    }
    bench = DetBenchTrain(model).train()
    expected = bench(task.inputs(batch), target)["loss"]
    assert torch.equal(task.loss(model, batch), expected) and expected > 0


def test_crowds_are_not_trained_on(detector):
    task, model, box = detector
    crowded = batch_of(task, box, [1], torch.tensor([True]))
    empty = batch_of(task, torch.zeros(0, 4), [])
    empty["labels"][0] = empty["labels"][0].long()
    assert torch.equal(task.loss(model, crowded), task.loss(model, empty))
    assert task.loss(model, crowded) > 0


def test_a_batch_without_any_box_has_a_finite_gradient(detector):
    task, model, _ = detector
    batch = batch_of(task, torch.zeros(0, 4), [])
    batch["labels"][0] = batch["labels"][0].long()
    classes = model.outputs[0][1]
    classes.grad = None
    task.loss(model, batch).backward()
    assert torch.isfinite(classes.grad).all() and classes.grad.any()


def test_batches_of_different_widths_and_a_small_image():
    task = Detection(1, 64, PLAIN)
    sides = (8, 4, 2, 1, 1)
    outputs = (
        [torch.zeros(1, 9, s, s) for s in sides],
        [torch.zeros(1, 36, s, s) for s in sides],
    )
    target = {"crowd": torch.zeros(1, dtype=torch.bool), "extent": torch.tensor([64.0, 64.0])}
    one = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([0])} | target
    many = {"boxes": one["boxes"].repeat(7, 1), "labels": torch.zeros(7, dtype=torch.int64)}
    many |= target | {"crowd": torch.zeros(7, dtype=torch.bool)}
    batches = [task.collate([(images(1, 64)[0], t)]) for t in (one, many)]
    found = task.evaluate(Says(outputs), batches)["per_image"]
    assert found.shape[0] == 2 and (found[:, :, 0] == WANTED).sum(axis=1).tolist() == [1, 7]
    assert len(task._parts["anchors"].boxes) < 5000  # fewer than effdet wants to choose from


def test_tasks_survive_pickling(detector):
    task, model, box = detector
    other = pickle.loads(pickle.dumps(task))
    assert other == task
    batch = batch_of(task, box, [1])
    assert torch.equal(other.loss(model, batch), task.loss(model, batch))


def test_evaluation_leaves_the_network_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 2, 8), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten())
    model.train()
    model[1].eval()
    task = Classification(2, 8, PLAIN)
    before = model[1].running_mean.clone()
    batch = task.collate(list(zip(images(3), [0, 1, 0], strict=True)))
    first, second = (task.evaluate(model, [batch], device="cpu") for _ in range(2))
    assert first["per_image"].tolist() == second["per_image"].tolist()
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert torch.equal(model[1].running_mean, before)
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training and not model[1].training


def test_a_missing_package_is_named(monkeypatch):
    task, logits, batch = segmentation_case()
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.classification", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pqlib\[torch,training\]'"):
        task.evaluate(Says(logits), [batch])


def test_an_empty_split_and_an_unknown_task():
    with pytest.raises(ValueError, match="at least one image"):
        Classification(2, 8, PLAIN).evaluate(nn.Flatten(), [])
    with pytest.raises(ValueError, match="task must be"):
        task_class("magic")
    with pytest.raises(ValueError, match="n_classes"):
        Classification(0, 8, PLAIN)
