"""What a dataset must do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from alseg.calling import described
from alseg.data import check_classes
from alseg.dataset_check import check_dataset as read_all
from alseg.engine.images import digest
from alseg.errors import PROTOCOLS, UserMistake
from alseg.names import nearest
from alseg.opened import SPLITS
from alseg.options import Between
from alseg.plugins import Registry
from alseg.protocols import Dataset, Images
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Broken, Contract, Report, require
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.values import Classes

READERS = 8  # threads that read at once


@dataclass
class OfDataset:
    """A dataset, and how many images of each split are read."""

    subject: Subject
    most: int
    _made: list[Any] = field(default_factory=list)

    def new(self) -> Any:
        """A fresh one."""
        return built(self.subject)

    def dataset(self) -> Any:
        """One that the checks share."""
        if not self._made:
            self._made.append(self.new())
        return self._made[0]

    def places(self, dataset: Any) -> list[tuple[str, Images, int]]:
        """Split, its images, and a number, of everything that is read."""
        opened = {split: dataset.images(split) for split in dataset.splits}
        return [(split, images, i) for split, images in opened.items() for i in range(min(self.most, len(images)))]


CONTRACT: Contract[OfDataset] = Contract("dataset")


@explains_wrong_calls
def check_dataset(
    dataset: What,
    options: Mapping[str, Any] | None = None,
    *,
    most: Annotated[int, Between(1)] = 20,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check a dataset by the factory that is registered, or by its name; raises ContractError.

    most: how many images of each split are read; the names of all are.
    """
    subject = subject_of("dataset", dataset, options, name=name, around=around, registry=registry)
    return CONTRACT.judge(OfDataset(subject, most), subject.name, skip)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfDataset) -> None:
    """The factory gives an object with classes, splits, recipe and images(split)."""
    made = of.dataset()
    lacks = [name for name in ("classes", "splits", "recipe", "images") if not hasattr(made, name)]
    require(isinstance(made, Dataset), f"it has no {', '.join(lacks)}", f"see Dataset in {PROTOCOLS}")


@CONTRACT.check("classes", basic=True)
def _classes(of: OfDataset) -> None:
    """Classes are an alseg.Classes: names, each once, a void value that is none of them, a colour each or none."""
    classes = of.dataset().classes
    require(isinstance(classes, Classes), f"classes is {described(classes)}", "give an alseg.Classes(names, void)")
    check_classes(classes)
    names = [name for name in classes.names if not isinstance(name, str) or not name]
    require(not names, f"a class is called {names[:1]}", "name classes by strings")


@CONTRACT.check("splits", basic=True)
def _splits(of: OfDataset) -> None:
    """splits has "train", besides at most "val" and "test", and each holds images."""
    splits = of.dataset().splits
    require(
        isinstance(splits, tuple) and set(splits) <= set(SPLITS) and len(set(splits)) == len(splits),
        f"splits is {splits!r}",
        'give a tuple of those there are, of "train", "val" and "test"',
    )
    require("train" in splits, f"splits is {splits!r}, without train", "name the images that may be asked train")
    for split in splits:
        images = of.dataset().images(split)
        lacks = [part for part in ("key", "image", "mask", "__len__") if not hasattr(images, part)]
        require(not lacks, f"images({split!r}) has no {', '.join(lacks)}", f"see Images in {PROTOCOLS}")
        require(len(images), f"the split {split!r} is empty", "leave out of splits what holds no image")


@CONTRACT.check("keys", basic=True)
def _keys(of: OfDataset) -> None:
    """Each image of a split has a name of its own, a string, the same whenever the dataset is opened."""
    for split in of.dataset().splits:
        images, again = of.dataset().images(split), of.new().images(split)
        keys = [images.key(i) for i in range(len(images))]
        strange = [key for key in keys if not isinstance(key, str) or not key]
        require(not strange, f"a key of {split} is {strange[:1]}", "name images by strings")
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise Broken(f"two images of {split} are called {twice!r}", "let the key hold all that tells them apart")
        require(
            keys == [again.key(i) for i in range(len(again))],
            f"opened again, the images of {split} have other names or another order",
            "sort files by name, and count nothing that changes",
        )


@CONTRACT.check("images", basic=True)
def _images(of: OfDataset) -> None:
    """Images are uint8 [H, W, 3]; masks integers [H, W] of the image's size, class values or void, or None."""
    for split, images, i in of.places(of.dataset()):
        for what, read in (("image", images.image(i)), ("mask", images.mask(i))):
            require(
                isinstance(read, np.ndarray) or (what == "mask" and read is None),
                f"the {what} of {images.key(i)} in {split} is {described(read)}",
                "give a NumPy array" + (", or None where there is no mask" if what == "mask" else ""),
            )
    read_all(_Part(of.dataset(), of.most))


@CONTRACT.check("read-again")
def _read_again(of: OfDataset) -> None:
    """Reading an image or mask again gives the same, from a dataset that is opened again too."""
    first = dict(_digests(of, of.dataset()))
    for dataset, how in ((of.dataset(), "read again"), (of.new(), "opened and read again")):
        for place, found in _digests(of, dataset):
            require(
                first[place] == found,
                f"{how}, the image {place[1]} of {place[0]} or its mask is another",
                "read it from the same place each time; augmentation is alseg's own",
            )


@CONTRACT.check("threads")
def _threads(of: OfDataset) -> None:
    """Several threads may read at once."""
    places, wanted = of.places(of.dataset()), dict(_digests(of, of.new()))
    many = (places * READERS)[: max(64, len(places))]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda place: _digest(*place[1:]), many))
    for (split, images, i), seen in zip(many, found, strict=True):
        require(
            seen == wanted[split, images.key(i)],
            f"read by several threads at once, the image {images.key(i)} of {split} is another",
            "open a file for each read, or hold a threading.Lock while you seek and read",
        )


@CONTRACT.check("pickling")
def _pickling(of: OfDataset) -> None:
    """It can be pickled, after reading too, and reads the same in another process."""
    wanted = dict(_digests(of, of.dataset()))
    mend = "keep no open file, lock, lambda or generator in it, or leave them out in __getstate__"
    try:
        copy = pickle.loads(pickle.dumps(of.dataset()))
    except Exception as error:
        raise Broken(f"it cannot be pickled: {type(error).__name__}: {error}", mend) from error
    for place, found in _digests(of, copy):
        require(wanted[place] == found, f"after pickling the image {place[1]} of {place[0]} is another", mend)


@CONTRACT.check("stamps")
def _stamps(of: OfDataset) -> None:
    """Where images tell by a stamp whether they changed, it is a string or None, and unchanged images keep theirs."""
    for (split, images, i), (_, again, _) in zip(of.places(of.dataset()), of.places(of.new()), strict=True):
        if not hasattr(images, "stamp"):
            continue
        stamp, later = images.stamp(i), again.stamp(i)  # type: ignore[attr-defined]
        require(
            stamp is None or isinstance(stamp, str),
            f"the stamp of {images.key(i)} in {split} is {described(stamp)}",
            "give a string, such as alseg.file_stamp of its files, or None where it cannot be told",
        )
        require(
            stamp == later or None in (stamp, later),
            f"opened again, the image {images.key(i)} of {split} has another stamp",
            "let it tell what the image and mask are read from, and nothing of this process or time",
        )


@CONTRACT.check("recipe")
def _recipe(of: OfDataset) -> None:
    """Its recipe is a registered one."""
    name = of.dataset().recipe
    known = [piece.name for piece in of.subject.registry.of("recipe")]
    require(isinstance(name, str), f"recipe is {described(name)}", "give a registered recipe's name")
    try:
        of.subject.registry.find("recipe", name)
    except UserMistake as error:
        raise Broken(
            f"its recipe {name!r} is not registered{nearest(name, known)}",
            "register it with register_recipes and pass that registry (registry=load_plugins([FILE])), or name default",
        ) from error


@CONTRACT.check("published")
def _published(of: OfDataset) -> None:
    """Where it says how many images each split was published with, these are numbers of splits."""
    published = getattr(of.dataset(), "published", {})
    fits = isinstance(published, Mapping) and all(k in SPLITS and isinstance(v, int) for k, v in published.items())
    require(fits, f"published is {published!r}", 'give a mapping such as {"train": 367}')


def _digest(images: Images, i: int) -> tuple[str, str | None]:
    mask = images.mask(i)
    return digest(images.image(i)), None if mask is None else digest(mask)


def _digests(of: OfDataset, dataset: Any) -> Iterator[tuple[tuple[str, str], tuple[str, str | None]]]:
    for split, images, i in of.places(dataset):
        yield (split, images.key(i)), _digest(images, i)


class _Part:
    """The first images of each split."""

    def __init__(self, dataset: Any, most: int) -> None:
        self._dataset, self._most = dataset, most
        self.classes, self.splits, self.recipe = dataset.classes, dataset.splits, dataset.recipe

    def images(self, split: str) -> Images:
        """Those of a split."""
        return _First(self._dataset.images(split), self._most)


class _First:
    """The first of some images."""

    def __init__(self, images: Images, most: int) -> None:
        self._images, self._count = images, min(most, len(images))
        self.key, self.image, self.mask = images.key, images.image, images.mask

    def __len__(self) -> int:
        return self._count
