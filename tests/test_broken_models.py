"""Each check of models and terms finds what it is for, and says how to mend it."""

from __future__ import annotations

import pytest
import torch
from test_broken_acquirers import fails
from torch import nn

from alseg.testing import checks_of
from alseg.testing.tiny_models import TinyModel


class Plain(TinyModel):
    """The tiny model, of which the others are spoilt."""


class NoParts(nn.Module):
    def encode(self, images):
        return images


class Half(TinyModel):
    def decode(self, features):
        return super().decode(features).half()


class Elsewhere(TinyModel):
    def decode(self, features):
        return super().decode(features).to("meta")


class OneMap(TinyModel):
    def decode(self, features):
        return super().decode(features).argmax(1)


class Likely(TinyModel):
    def decode(self, features):
        return super().decode(features).softmax(1)


class Mirrored(TinyModel):
    def encode(self, images):
        return super().encode(images.flip(3))


class Transposed(TinyModel):
    def encode(self, images):
        return super().encode(images.transpose(2, 3))


class Halving(TinyModel):
    """Takes even sizes only."""

    def encode(self, images):
        return nn.functional.pixel_unshuffle(images, 2)[:, : self.first.out_channels] + super().encode(images).mean()


class ThreeClasses(TinyModel):
    def __init__(self, classes):
        super().__init__(max(classes, 4))


class Rounded(TinyModel):
    def decode(self, features):
        return self.classifier(self.dropout(self.embedding(features)))


class InPlaceImages(TinyModel):
    def encode(self, images):
        return super().encode(images.sub_(0.5))


class InPlaceFeatures(TinyModel):
    def embedding(self, features):
        return self.norm(features.relu_())


class AlwaysDropping(TinyModel):
    def decode(self, features):
        return nn.functional.dropout(super().decode(features), 0.5, training=True)


class OverTheBatch(TinyModel):
    def embedding(self, features):
        return features / features.amax()


class Shifted(TinyModel):
    def decode_at(self, features, points):
        return super().decode_at(features, points.flip(-1))


class ElsewhereSampled(TinyModel):
    def decode_sampled(self, features, points):
        return self.decode_at(features, points.flip(-1))


class Vector(TinyModel):
    def embedding(self, features):
        return super().embedding(features)

    def __init__(self, classes):
        super().__init__(classes)
        self.embedding = lambda features: features.mean((2, 3))

    def decode(self, features):
        return self.classifier(self.dropout(self.norm(features).relu()))


class WrongCopy(TinyModel):
    def for_inference(self, precision):
        return TinyModel(self.classifier.out_channels).eval()


class FoldsItself(TinyModel):
    def for_inference(self, precision):
        import copy

        made = copy.deepcopy(self)
        self.classifier.weight.data += 1
        return made


class OtherGroups(TinyModel):
    def parameter_groups(self):
        return {"backbone": list(self.parameters())}


class Incomplete(TinyModel):
    def parameter_groups(self):
        return {**super().parameter_groups(), "decoder": list(self.classifier.parameters())}


class Doubled(TinyModel):
    def parameter_groups(self):
        return {**super().parameter_groups(), "decoder": list(self.parameters())}


class FromNone(TinyModel):
    origin = property(lambda self: {"weights": None})


class Unused(TinyModel):
    def __init__(self, classes):
        super().__init__(classes)
        self.other = nn.Linear(2, 2)

    def parameter_groups(self):
        groups = super().parameter_groups()
        return {**groups, "decoder": [*groups["decoder"], *self.other.parameters()]}


class Detached(TinyModel):
    def decode(self, features):
        return super().decode(features).detach()


def of_own_seed(classes):
    made, generator = TinyModel(classes), torch.Generator()
    generator.seed()
    nn.init.normal_(made.classifier.weight, generator=generator)
    return made


class Lazy(TinyModel):
    def __init__(self, classes):
        super().__init__(classes)
        self.classifier = nn.LazyConv2d(classes, 1)


class Notes(TinyModel):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        """Nothing of it is used."""


class Hidden(TinyModel):
    """Learns something that it does not store."""

    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("offset", torch.rand(1), persistent=False)

    def decode(self, features):
        return super().decode(features) + self.offset


def all_frozen(classes):
    return TinyModel(classes).requires_grad_(False)


class SameMembers(nn.Module):
    """One model twice over."""

    def __init__(self, classes):
        super().__init__()
        self.one = TinyModel(classes)
        self.members = [self.one, self.one]

    def encode(self, images):
        return self.one.encode(images)

    def decode(self, features):
        return self.one.decode(features)

    def parameter_groups(self):
        return self.one.parameter_groups()


MODELS = [
    (
        "builds",
        lambda classes: NoParts(),
        "it has no decode, parameter_groups",
        "see Model in alseg's documentation",
    ),
    ("builds", lambda classes: lambda images: images, "no nn.Module", "derive it from nn.Module"),
    ("builds", Lazy, "'classifier.weight' of a lazy layer, which has no shape yet", "its number of inputs"),
    ("builds", Notes, "dict as '_extra_state' in its state_dict", "do without get_extra_state"),
    ("shapes", Half, "decode gave torch.float16; expected torch.float32", "end with .float()"),
    ("shapes", Elsewhere, "decode gave a tensor on meta for images on cpu", "device=features.device"),
    ("shapes", Likely, "decode gave probabilities", "leave the softmax out"),
    ("places", Mirrored, "changed in its upper right, and the logits most in their upper left", "rows before columns"),
    ("places", Transposed, "and the logits most in their lower left", "rows before columns"),
    ("shapes", OneMap, "expected float32 [2, 4, h, w]", "one map of logits for each class"),
    ("sizes", Halving, "it raised RuntimeError", "pixel_unshuffle"),
    ("classes", ThreeClasses, "with classes=1 it gave 4 logits a pixel", "size the last layer by it"),
    ("precision", Rounded, "decode gave torch.bfloat16: rounded logits would tie", "enabled=False"),
    ("inputs", InPlaceImages, "encode changed its images", "without sub_ and div_"),
    ("inputs", InPlaceFeatures, "decode changed features, which is decoded again", "ReLU(inplace=True)"),
    ("evaluation", AlwaysDropping, "it gave two answers for the same images", "self.training"),
    ("evaluation", OverTheBatch, "where others are in its batch", "running statistics"),
    ("decode-at", Shifted, "decode_at differs from decode's map at the points", "alseg.grid.sample"),
    ("decode-sampled", ElsewhereSampled, "decode_sampled differs from decode's map at the points", "alseg.grid.sample"),
    (
        "embedding",
        Vector,
        "gave torch.float32 [2, 8]; expected float [2, D, h, w]",
        "what the classifier sees",
    ),
    ("inference", WrongCopy, "for_inference's logits differ", "fold norms exactly"),
    ("inference", FoldsItself, "for_inference changed the model itself", "copy.deepcopy it"),
    (
        "parameter-groups",
        OtherGroups,
        "has the names backbone; expected encoder and decoder",
        'the rest under "decoder"',
    ),
    ("parameter-groups", Incomplete, "lacks norm.weight, norm.bias, which would never be trained", "not in encoder"),
    ("parameter-groups", Doubled, "twice", "each parameter in one group"),
    ("origin", FromNone, "it has NoneType under 'weights' in its origin; it must be a mapping", "tells weights apart"),
    ("gradient", Unused, "no gradient reaches other.weight, other.bias by decode", "requires_grad_(False)"),
    ("gradient", Detached, "no gradient comes out of decode", "leave out torch.no_grad"),
    ("trainable", all_frozen, "nothing of it is trainable", "requires_grad"),
    ("same-seed", of_own_seed, "built twice from the same seed, classifier.weight differ", "no generator of your own"),
    ("state-dict", Hidden, "loaded into another its logits differ", "persistent=False"),
    ("samples", SameMembers, "two members, give the same logits", "build members anew"),
]


class Term(nn.Module):
    """Pulls a number towards the mean loss."""

    def __init__(self):
        super().__init__()
        self.guess = nn.Parameter(torch.zeros(()))

    def loss(self, model, taught):
        return (self.guess - taught.losses.detach().mean()).square()


class Each(Term):
    def loss(self, model, taught):
        return (self.guess - taught.losses.detach()).square()


class DividesByLabels(Term):
    def loss(self, model, taught):
        return self.guess * 0 + taught.losses.detach().sum() / (taught.classes >= 0).sum()


class Constant(Term):
    def loss(self, model, taught):
        return torch.tensor(taught.losses.mean().item())


class OfNothing(nn.Module):
    def loss(self, model, taught):
        return torch.tensor(1.0)


class LazyTerm(Term):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyConv2d(1, 1)


class Aside(Term):
    def loss(self, model, taught):
        return taught.losses.mean()


class Writes(Term):
    def loss(self, model, taught):
        taught.images.clamp_(0.2, 0.8)
        return super().loss(model, taught)


class SeesFlat(Term):
    def seen(self, features):
        return features.mean((1, 2, 3))


class Counts(Term):
    def after_step(self, model, done, of):
        """One argument too many."""


class Outside(Term):
    """Keeps its parameter where no state_dict finds it."""

    def __init__(self):
        super().__init__()
        self._kept = [nn.Parameter(torch.zeros(()))]

    def parameters(self, recurse=True):
        return iter([self.guess, *self._kept])


TERMS = [
    ("builds", lambda: Term().loss, "no nn.Module", "derive it from nn.Module"),
    ("builds", lambda: nn.Linear(2, 2), "it has no loss", "add loss(model, taught)"),
    ("builds", LazyTerm, "'layer.weight' of a lazy layer, which has no shape yet", "its number of inputs"),
    ("loss", Each, "loss gave torch.float32 [2, 3]; expected a float scalar", ".mean() or .sum()"),
    ("loss", DividesByLabels, "loss of a batch without labels is nan", "count.clamp(min=1)"),
    ("loss", Constant, "without gradient in the first step, so that its 1 numbers learn nothing", "leave out detach"),
    ("loss", OfNothing, "of 1 without gradient in the first step, so that it changes nothing", "leave out detach"),
    ("gradient", Aside, "no gradient reaches guess", "use it in loss, or leave it out"),
    ("inputs", Writes, "loss changed taught['images']", "work on a copy"),
    ("seen", SeesFlat, "seen gave torch.float32 [2]; expected float32 [2, 1, h, w]", "one map for each image"),
    ("after-step", Counts, "TypeError", "missing 1 required positional argument: 'of'"),
    ("stored", Outside, "its parameters are not in the model's state_dict", "register them"),
]
TABLE = [("model", *row) for row in MODELS] + [("term", *row) for row in TERMS]


@pytest.mark.parametrize(("kind", "check", "factory", "found", "mend"), TABLE)
def test_a_broken_one_is_found_and_told_how_to_mend_it(kind, check, factory, found, mend):
    fails(kind, check, factory, found, mend)


@pytest.mark.parametrize("kind", ["model", "term"])
def test_each_check_has_a_broken_piece(kind):
    assert {row[1] for row in TABLE if row[0] == kind} == set(checks_of(kind))
