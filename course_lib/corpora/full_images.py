"""Pictures in full size: the decoding that Fashion-MNIST and CIFAR-10 share, and CIFAR-10."""

from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.corpora import hub

if TYPE_CHECKING:
    from datasets import Dataset

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _decoded(batch: dict[str, list[Any]], columns: tuple[str, str], shape: tuple[int, ...]) -> dict[str, Any]:
    """Pictures as PIL images, to uint8 arrays (N, *shape)."""
    image, label = columns
    arrays = [np.asarray(picture) for picture in batch[image]]
    wrong = {(a.shape, str(a.dtype)) for a in arrays} - {(shape, "uint8")}
    if wrong:
        raise ValueError(f"column {image!r} has pictures of {sorted(wrong)}; wanted is {shape} in uint8")
    return {"image": np.stack(arrays), "label": batch[label]}


def published_pictures(about: hub.HubSet, split: str, classes: tuple[str, ...], shape: tuple[int, ...]) -> "Dataset":
    """All pictures of a published split: columns image, uint8 of `shape` (H, W) or (H, W, 3), and label.

    Rows come as torch int64 tensors, like those of the shipped sets. Raises ConnectionError when the hub cannot be
    read, ValueError when it holds other columns, classes or picture sizes than wanted.
    """
    import datasets

    rows = hub.load(about, split)
    image, label = about.columns
    found = getattr(rows.features[label], "names", None)
    # The hub spells "T - shirt / top".
    if found is None or [n.replace(" ", "") for n in found] != [n.replace(" ", "") for n in classes]:
        raise ValueError(f"{about.repo} has the classes {found} in column {label!r}; wanted are {list(classes)}")
    array = datasets.Array2D if len(shape) == 2 else datasets.Array3D
    features = datasets.Features({"image": array(shape, "uint8"), "label": datasets.ClassLabel(names=list(classes))})
    return rows.map(
        _decoded,
        batched=True,
        fn_kwargs={"columns": (image, label), "shape": shape},
        remove_columns=rows.column_names,
        features=features,
        desc=f"Decoding {about.name}",
    ).with_format("torch")


def cifar10(split: str = "train", *, full: bool = False) -> "Dataset":
    """Colour photos from CIFAR-10: columns image (32, 32, 3), red, green, blue from 0 to 255, and label.

    split "train" has 50,000 pictures, "test" 10,000, of the ten CIFAR_CLASSES in equal number. The set is not shipped:
    raises ValueError unless `full=True` permits the download, or for another split; ConnectionError, which says what
    to do, when it fails. Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", ch. 3.
    """
    about = hub.HUB["cifar10"]
    hub.check_request(about, split, ("train", "test"), full)
    return published_pictures(about, split, CIFAR_CLASSES, (32, 32, 3))
