"""What models without a network get on the test images of our edition of Table 1.

    PQLIB_DATA=FOLDER python benchmarks/simple_models.py --out book/results

Data as in the ledger's commands (`book/results/ledger/README.md`): the baselines' training images,
not varied, and the test images of the cells.
"""

import argparse
import dataclasses
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pandas as pd

from pqlib import simple_models
from pqlib.training.data import open_data

LIMIT = 5000  # test images
CASES = (  # networks, task, data, size
    (
        "resnet18 resnet50 mobilenet_v2 mobilenet_v3_small efficientnet_lite0 vit_small",
        "classification",
        "folder:$PQLIB_DATA/cifar10/cifar10-jpeg.zip",
        (32, 32),
    ),
    (
        "deeplab_v3_mobilenet_v2",
        "segmentation",
        "camvid:$PQLIB_DATA/segmentation/camvid",
        (96, 128),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="A folder for the table.")
    out = parser.parse_args().out
    rows = []
    for models, task, source, size in CASES:
        options = {"task": task, "size": size, "augment": False}
        whole, limited = open_data(source, **options), open_data(source, **options, limit=LIMIT)
        data = dataclasses.replace(whole, test=limited.test)
        row = {"models": models, "task": task, "data": source, "size": "x".join(map(str, size))}
        row |= {"value": simple_models.value(data), "n_train": len(data.train)}
        rows.append(row | {"n_test": len(data.test)})
        print(rows[-1], flush=True)
    versions = {name: metadata.version(name) for name in ("numpy", "scikit-learn", "torch")}
    table = pd.DataFrame(rows).assign(
        command="python " + shlex.join(sys.argv),
        versions=" ".join(f"{name}={version}" for name, version in versions.items()),
    )
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{simple_models.TABLE}.csv", index=False)


if __name__ == "__main__":
    main()
