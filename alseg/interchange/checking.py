"""Labels from elsewhere held against a dataset: names matched, places and classes checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alseg.errors import UserMistake
from alseg.interchange.fields import shown
from alseg.interchange.known import Known, may_be_one
from alseg.interchange.labelset import LabelSet, Size
from alseg.names import nearest
from alseg.values import Classes, PixelLabel


def matched(found: LabelSet, known: Known, ignore_missing: bool, whose: str = "the dataset's images") -> LabelSet:
    """The labels under the dataset's names; UserMistake where an image matches none, unless those are left out.

    So it is where names match one image that can be no more than one's, such as a/1 and b/1.
    """
    names = {label.image: known.match(label.image) for label in found.labels}
    of: dict[str, str] = {}
    for image, key in names.items():
        if key is not None and not may_be_one(other := of.setdefault(key, image), image):
            raise UserMistake(f"{shown(other)} and {shown(image)} both seem to be {shown(key)}: use the images' keys.")
    missing = [image for image, key in names.items() if key is None]
    if missing and not ignore_missing:
        are = "image is" if len(missing) == 1 else "images are"
        raise UserMistake(f"{len(missing)} {are} none of {whose}: {listed(missing)}.")
    labels = tuple(label._replace(image=key) for label in found.labels if (key := names[label.image]) is not None)
    if not labels:
        raise UserMistake(f"None of the {len(missing)} images is one of {whose}: {listed(missing)}.")
    sizes: dict[str, Size] = {}
    for image, size in found.sizes.items():
        key = names.get(image)
        if key is None:
            continue
        own = known.size(key)
        if size != own:
            raise UserMistake(
                f"The image {shown(key)} is {own[0]}x{own[1]}, but its labels are for {size[0]}x{size[1]}."
            )
        sizes[key] = size
    left = len(found.labels) - len(labels)
    notes = found.notes + ((f"{left} labels of {len(missing)} images that match none were left out.",) if left else ())
    return LabelSet(labels, sizes, found.classes, notes=notes)


def checked(found: LabelSet, classes: Classes | None, size: Callable[[str], Size] | None = None) -> LabelSet:
    """The labels in the order they were asked, each pixel once.

    UserMistake names the first that is outside its image, of two classes, or of none that is known.

    size: an image's height and width, where a dataset says so.
    """
    sizes = {image: size(image) if size else None for image in {label.image for label in found.labels}}
    sizes |= dict(found.sizes)
    once: dict[tuple[str, int, int], PixelLabel] = {}
    unknown: dict[str, str] = {}
    for label in found.labels:
        image, place = sizes[label.image], f"(y {label.y}, x {label.x}) of {shown(label.image)}"
        if image is not None and not (0 <= label.y < image[0] and 0 <= label.x < image[1]):
            raise UserMistake(f"The label at {place} lies outside the image of {image[0]}x{image[1]}.")
        if classes is not None and label.name is not None and label.name not in classes.index:
            unknown.setdefault(label.name, place)
        first = once.setdefault((label.image, label.y, label.x), label)
        if first.name != label.name:
            raise UserMistake(f"The pixel {place} is {_named(first)} and {_named(label)}: keep one of the two.")
    if unknown and classes is not None:
        name, place = next(iter(unknown.items()))
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserMistake(f"{shown(name)}{more}, at {place}, is no class{nearest(name, classes.names)}.")
    double = len(found.labels) - len(once)
    notes = found.notes + (
        (f"{double} labels say what another says of the same pixel; one was kept.",) if double else ()
    )
    labels = tuple(sorted(once.values(), key=lambda label: (label.round, label.item)))
    return LabelSet(labels, found.sizes, classes or found.classes, found.files, notes)


def listed(names: Sequence[str]) -> str:
    """The first three, and how many there are more."""
    first = ", ".join(shown(name) for name in names[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _named(label: PixelLabel) -> str:
    return 'answered "can\'t tell"' if label.name is None else shown(label.name)
