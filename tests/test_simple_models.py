"""What a model without a network gets."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pqlib import simple_models

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from pqlib.training.data import open_data  # noqa: E402
from pqlib.training.tasks import VOID  # noqa: E402


def flat(examples, task):
    """Images of one value each, and their targets."""
    part = [(torch.full((3, 2, 2), float(value)), target) for value, target in examples]
    return SimpleNamespace(train=part, test=part, task=task, n_classes=3, size=(8, 8))


def test_the_nearest_mean():
    data = flat(((0, 0), (8, 1), (1, 0)), "classification")
    data.test = flat(((2, 0), (5, 0)), "").train
    assert simple_models.value(data) == simple_models.nearest_mean_accuracy(data) == 50
    assert simple_models.sentence(data) == (
        "The class whose mean image is nearest gives 50.0 % on the same test images."
    )


def test_the_most_frequent_class_by_hand():
    """It answers 0 1 / 2 0; the place that is always void has class 0 and does not count."""
    maps = [[[0, 1], [2, VOID]], [[0, 1], [0, VOID]], [[1, 1], [2, VOID]]]
    large = [torch.tensor(np.kron(m, np.ones((4, 4))), dtype=torch.uint8) for m in maps]
    data = flat([(0, m) for m in large], "segmentation")
    # class 0: 2 hits of 4 in the union; class 1: 3 of 4; class 2: 2 of 3
    assert simple_models.value(data) == pytest.approx(100 * (2 / 4 + 3 / 4 + 2 / 3) / 3)
    assert simple_models.sentence(data).startswith("The class most frequent at each place gives 63")


def test_each_task_of_the_scenes():
    for task, least in (("segmentation", 1), ("detection", None)):
        data = open_data("scenes:16", task=task, size=64, augment=False)
        found = simple_models.value(data)
        assert (found is None) if least is None else least < found < 50
        assert bool(simple_models.sentence(data)) == (least is not None)


def test_words_of_the_committed_table():
    rows = [
        {"models": "resnet18 mobilenet_v2", "task": "classification", "value": 27.04},
        {"models": "deeplab_v3_mobilenet_v2", "task": "segmentation", "value": 12.0},
    ]
    assert simple_models.table_words(pd.DataFrame(rows)) == (
        "for the classifiers, the class whose mean image is nearest gives 27.0 %; for DeepLab-V3, "
        "the class most frequent at each place gives 12.0 % mIoU"
    )
