import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from pqlib.layers.images import PHOTOGRAPHS, open_images  # noqa: E402
from pqlib.layers.models import Preprocessing  # noqa: E402


def noise(size=(40, 30), seed=0, mode="RGB"):
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Seven images under a folder, of several kinds and depths, and files that are none."""
    for i in range(4):
        noise(seed=i).save(tmp_path / f"{i}.png")
    (tmp_path / "b" / "c").mkdir(parents=True)
    noise((30, 50), mode="L").save(tmp_path / "b" / "grey.JPG", format="jpeg")
    noise(mode="CMYK").save(tmp_path / "b" / "c" / "print.jpeg")
    noise(mode="P").save(tmp_path / "b" / "c" / "palette.png")
    (tmp_path / "b" / "labels.txt").write_text("none")
    (tmp_path / "._0.png").write_bytes(b"what a Mac leaves on other disks")
    return tmp_path


def test_a_folder_is_read_with_all_its_folders(folder):
    images = open_images(str(folder), preprocessing=Preprocessing(16, 20))
    names = ["0.png", "1.png", "2.png", "3.png", "b/c/palette.png", "b/c/print.jpeg", "b/grey.JPG"]
    assert [*images.names] == names and len(images) == 7
    for values in images:
        assert values.shape == (1, 3, 16, 16) and values.dtype == torch.float32
    for a, b in zip(images, images, strict=True):  # any number of times
        assert torch.equal(a, b)


def test_a_draw_from_a_folder_follows_the_seed(folder):
    def names(seed, n=3):
        return open_images(folder, n_images=n, seed=seed).names

    assert names(1) == names(1) == tuple(sorted(names(1)))
    assert len({names(seed) for seed in range(20)}) > 5
    assert names(0, 7) == open_images(folder).names
    with pytest.raises(ValueError, match=r"n_images must be <= 7, all in .*; got 8"):
        names(0, 8)


def test_imagenet_is_what_torchvision_does():
    transforms = pytest.importorskip("torchvision.transforms")
    for mode in ("bilinear", "bicubic"):
        chain = transforms.Compose(
            [
                transforms.Resize(50, transforms.InterpolationMode(mode)),
                transforms.CenterCrop(41),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
            ]
        )
        ours = Preprocessing(41, 50, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), mode)
        for size in [(64, 64), (90, 61), (61, 90), (47, 333), (30, 20)]:
            torch.testing.assert_close(ours(noise(size)), chain(noise(size)), rtol=1e-6, atol=1e-6)


def test_preprocessing_is_validated():
    for name, bad in [
        ("size", 0),
        ("resize", 1.5),
        ("mean", (0.5,)),
        ("std", (1.0, np.nan, 1.0)),
        ("interpolation", "cubic"),
    ]:
        with pytest.raises(ValueError, match=f"^{name} must be"):
            Preprocessing(**{name: bad})


def test_a_model_may_want_more_than_the_resized_side():
    values = Preprocessing(24, 20)(noise())
    assert values.shape == (3, 24, 24)  # with a black frame, as torchvision has it


def test_crops_of_photographs():
    pytest.importorskip("sklearn")
    pytest.importorskip("skimage")
    small = Preprocessing(16, 20)
    images = open_images(preprocessing=small, seed=4)
    assert len(images) == len(set(images.names)) == 32
    files = {file.rsplit("/", 1)[-1] for files in PHOTOGRAPHS.values() for file in files}
    assert {name.split()[0] for name in images.names} == files and len(files) == 7
    for name in images.names:
        left, top, right, bottom = map(int, name.split()[1:5])
        assert right - left == bottom - top >= 150 and min(left, top) >= 0
    fewer = open_images(preprocessing=small, seed=4, n_images=9)
    assert fewer.names == images.names[:9]
    for a, b, _ in zip(fewer, images, range(3), strict=False):
        assert torch.equal(a, b) and a.std() > 0.05
    assert not {*open_images(seed=5).names} & {*images.names}


def test_a_crop_is_what_its_name_says():
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("skimage")
    china = datasets.load_sample_image("china.jpg")
    images = open_images(None, lambda image: torch.from_numpy(np.array(image)), n_images=29)
    seen = set()
    for name, values in zip(images.names, images, strict=True):
        file, *box = name.split()
        if file == "china.jpg":
            left, top, right, bottom = map(int, box[:4])
            crop = china[top:bottom, left:right]
            np.testing.assert_array_equal(values[0], crop[:, ::-1] if box[4:] else crop)
            seen.add(len(box))
    assert seen == {4, 5}


def test_photographs_that_are_not_there(monkeypatch):
    from importlib import metadata

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn, or give a folder"):
        open_images()


def test_own_transforms(folder, tmp_path, monkeypatch):
    (tmp_path / "own_transforms.py").write_text(
        "import numpy, torch\n"
        "def grey():\n"
        "    return lambda image: torch.from_numpy(numpy.array(image.convert('L'))[None] / 255)\n"
        "def broken():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    images = open_images(folder, "python:own_transforms:grey")
    assert [tuple(x.shape) for x in images][-2:] == [(1, 1, 30, 40), (1, 1, 50, 30)]
    with pytest.raises(TypeError, match="made a int, not a callable"):
        open_images(folder, "python:own_transforms:broken")
    with pytest.raises(ValueError, match=r"transform 'python:own_transforms:gray'.* is nothing"):
        open_images(folder, "python:own_transforms:gray")
    with pytest.raises(TypeError, match=r"give a torch\.Tensor, got Image for 0\.png"):
        next(iter(open_images(folder, lambda image: image)))


def test_bad_folders_and_files_are_named(tmp_path, folder):
    empty = tmp_path / "b" / "none"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"none' has no file that ends in \.jpg, \.jpeg, \.png"):
        open_images(str(empty))
    with pytest.raises(NotADirectoryError, match=r"must be a folder, '.*0\.png' is none"):
        open_images(str(folder / "0.png"))
    (empty / "broken.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
        next(iter(open_images(empty)))
    whole = (folder / "3.png").read_bytes()
    (empty / "broken.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image.*truncated"):
        next(iter(open_images(empty)))


def test_wrong_arguments_say_what_to_do(folder):
    with pytest.raises(TypeError, match="images must be the path of a folder or None"):
        open_images(3)
    with pytest.raises(TypeError, match="transform must be 'imagenet', python"):
        open_images(folder, 3)
    with pytest.raises(ValueError, match="transform must be 'imagenet', python:package"):
        open_images(folder, "imagenette")
    with pytest.raises(TypeError, match="preprocessing must be a Preprocessing"):
        open_images(folder, preprocessing=3)
    for name in ("n_images", "seed"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            open_images(folder, **{name: -1})
