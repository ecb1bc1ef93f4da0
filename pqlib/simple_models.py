"""What a model without a network gets on the same test images: the floor under a baseline."""

from typing import Any

import numpy as np
import pandas as pd

from pqlib.training_findings import NAMES

TABLE = "simple_models"  # made by benchmarks/simple_models.py
_SAYS = {  # of each task: the model, and its result
    "classification": "the class whose mean image is nearest gives {:.1f} %",
    "segmentation": "the class most frequent at each place gives {:.1f} % mIoU",
}


def value(data: Any) -> float | None:
    """The metric of the simple model of the data's task, in percent; None for detection.

    Parameters
    ----------
    data : pqlib.training.data.Data
        Opened with ``augment=False``. Fitted to its training images, measured on its test images.
    """
    models = {"classification": nearest_mean_accuracy, "segmentation": frequent_class_miou}
    return models[data.task](data) if data.task in models else None


def sentence(data: Any) -> str:
    """What the simple model gets, empty for a task that has none; ``data`` as for `value`."""
    found = value(data)
    if found is None:
        return ""
    text = _SAYS[data.task].format(found)
    return f"{text[0].upper()}{text[1:]} on the same test images."


def table_words(table: pd.DataFrame) -> str:
    """The same of a committed table, for all of its rows: "for the classifiers, ...; for ..."."""
    texts = []
    for _, row in table.iterrows():
        models = str(row["models"]).split()
        names = NAMES[models[0]] if len(models) == 1 else "the classifiers"
        texts.append(f"for {names}, {_SAYS[row['task']].format(row['value'])}")
    return "; ".join(texts)


def nearest_mean_accuracy(data: Any) -> float:
    """Accuracy in percent of the simplest classifier: the class whose mean image is nearest.

    Parameters
    ----------
    data : pqlib.training.data.Data
        Of a classification task. Means are of the training images, accuracy of the test images.
    """
    from sklearn.neighbors import NearestCentroid

    (x, y), (x_test, y_test) = (_arrays(part) for part in (data.train, data.test))
    return 100 * float(NearestCentroid().fit(x, y).score(x_test, y_test))


def frequent_class_miou(data: Any) -> float:
    """Mean intersection over union in percent of the same answer to every image.

    Parameters
    ----------
    data : pqlib.training.data.Data
        Of a segmentation task. The answer has at each place the class that most training images
        have there; where all of them are void, class 0.
    """
    from torch import from_numpy, nn

    from pqlib.training.segmentation import Segmentation

    classes = np.arange(data.n_classes)[:, None, None]
    counts = np.zeros((data.n_classes, *data.size))
    for i in range(len(data.train)):
        counts += np.asarray(data.train[i][1]) == classes

    class SameForAll(nn.Module):
        def forward(self, images):
            return from_numpy(counts).expand(len(images), -1, -1, -1)

    task = Segmentation(data.n_classes, data.size, ((0.0,) * 3, (1.0,) * 3))
    batches = (task.collate([data.test[i]]) for i in range(len(data.test)))
    return task.evaluate(SameForAll(), batches)[task.metric]


def _arrays(part) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*(part[i] for i in range(len(part))), strict=True)
    flat = [np.asarray(image, dtype=np.float32).ravel() for image in images]
    return np.stack(flat), np.array(labels)
