"""What an oracle must do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from alseg.calling import described
from alseg.errors import PROTOCOLS
from alseg.options import Between
from alseg.plugins import Registry
from alseg.protocols import Oracle
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Broken, Contract, Inapplicable, Report, require
from alseg.testing.open_rounds import questions_of, require_attends
from alseg.testing.patience import at_once
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.testing.tiny_images import TinyDataset
from alseg.values import Answer, Answers, Question

SIZE = (48, 64)  # of the images: rows and columns are not to be mistaken for one another
LOOK_EVERY = 0.01  # seconds
Reply = Callable[[Any, Sequence[Question]], None]


@dataclass(frozen=True)
class OfOracle:
    """An oracle; reply plays whoever answers it; patience: seconds that it may take to answer everything."""

    subject: Subject
    reply: Reply | None
    patience: float

    @property
    def images(self) -> Any:
        """The pool: four images with masks."""
        return TinyDataset({"train": 4}, SIZE).images("train")

    @property
    def questions(self) -> list[Question]:
        """A few of each image, the last of which is void."""
        return questions_of(self.images)

    def new(self, seed: int = 0, images: Any = None) -> Any:
        """A fresh one."""
        given = {"images": images or self.images, "classes": TinyDataset.classes, "seed": seed}
        return built(self.subject, **given, run=f"checked with seed {seed}")

    def answers(self, questions: Sequence[Question], oracle: Any = None) -> dict[str, Answer]:
        """What a fresh one, or this one, says when all is in, by item; Inapplicable where a person must answer."""
        oracle = oracle or self.new()
        self.ask(oracle, questions)
        return self.waited(oracle, questions)

    def waited(self, oracle: Any, questions: Sequence[Question]) -> dict[str, Answer]:
        """What one that was asked says when all is in; see `answers`."""
        latest = time.monotonic() + self.patience
        while not (found := self.collected(oracle)).complete:
            if self.reply is None and (hasattr(oracle, "attend") or getattr(oracle, "is_person", False)):
                raise Inapplicable("somebody answers in a run: give reply=, which plays them")
            if time.monotonic() > latest:
                raise Broken(
                    f"after {self.patience:g} seconds collect() is not complete, {len(found.answers)} of "
                    f"{len(questions)} answers are in",
                    "say complete=True once all are in; give patience= if it is slower, reply= if somebody answers",
                )
            time.sleep(LOOK_EVERY)
        return {answer.item: answer for answer in found.answers}

    def ask(self, oracle: Any, questions: Sequence[Question]) -> None:
        """Ask, and let the answers be given."""
        _asked(oracle, questions)
        if self.reply is not None:
            self.reply(oracle, questions)

    def collected(self, oracle: Any) -> Answers:
        """The answers so far."""
        found = at_once(oracle.collect, "collect()", "give what is in, and return")
        require(
            isinstance(found, Answers) and isinstance(found.complete, bool),
            f"collect() gave {described(found)}",
            "give alseg.Answers(answers, complete)",
        )
        return found


CONTRACT: Contract[OfOracle] = Contract("oracle")


@explains_wrong_calls
def check_oracle(
    oracle: What,
    options: Mapping[str, Any] | None = None,
    *,
    reply: Reply | None = None,
    patience: Annotated[float, Between(0)] = 10.0,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check an oracle by the factory that is registered, or by its name; raises ContractError.

    It is asked of four images of 48x64 with the classes ground, sky and disc. reply: called with the oracle and the
    questions after each `ask`, where somebody else answers and the test plays them. patience: seconds that it may
    take.
    """
    subject = subject_of("oracle", oracle, options, name=name, around=around, registry=registry)
    return CONTRACT.judge(OfOracle(subject, reply, patience), subject.name, skip)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfOracle) -> None:
    """The factory gives an object with ask, collect and sees_truth."""
    made = of.new()
    lacks = [name for name in ("ask", "collect", "sees_truth") if not hasattr(made, name)]
    require(isinstance(made, Oracle), f"it has no {', '.join(lacks)}", f"see Oracle in {PROTOCOLS}")


@CONTRACT.check("sees-truth")
def _sees_truth(of: OfOracle) -> None:
    """sees_truth is True or False: where it is True, void is kept out of the questions and masks are needed."""
    found = of.new().sees_truth
    require(isinstance(found, bool), f"sees_truth is {found!r}", "say True where it reads stored masks, else False")


@CONTRACT.check("nothing-asked")
def _nothing_asked(of: OfOracle) -> None:
    """Asked nothing, it has no answers and is complete."""
    found = of.collected(of.new())
    require(
        not found.answers and found.complete,
        f"before it is asked collect() gave {len(found.answers)} answers, complete={found.complete}",
        "be complete as long as nothing is open",
    )


@CONTRACT.check("ask", basic=True)
def _ask(of: OfOracle) -> None:
    """ask takes questions on and returns at once, with None; collect does not wait either."""
    oracle = of.new()
    given = _asked(oracle, of.questions)
    require(given is None, f"ask gave {described(given)}", "return nothing; answers are collected")
    of.collected(oracle)


@CONTRACT.check("answers")
def _answers(of: OfOracle) -> None:
    """When complete there is one answer to each item, a class's name or None, and who gave it."""
    oracle = of.new()
    answers = of.answers(of.questions, oracle)
    asked, names = [question.item for question in of.questions], TinyDataset.classes.names
    unknown, missing = [item for item in answers if item not in asked], [i for i in asked if i not in answers]
    require(not unknown, f"it answers {unknown[:1]}, which was not asked", "keep each question's item as it is")
    require(not missing, f"it says it is complete and {missing[:1]} has no answer", "answer None for 'cannot tell'")
    for answer in answers.values():
        require(
            isinstance(answer, Answer) and (answer.name is None or answer.name in names),
            f"it answers {getattr(answer, 'name', answer)!r}; the classes are {', '.join(names)}",
            "give alseg.Answer with a class's name, not its value, or None for 'cannot tell'",
        )
        require(isinstance(answer.who, str), f"who is {answer.who!r}", "name who answered by a string")
    total = len(of.collected(oracle).answers)
    require(total == len(asked), f"collect() gave {total} answers to {len(asked)} items", "keep one for each item")


@CONTRACT.check("ask-again")
def _ask_again(of: OfOracle) -> None:
    """Asking again what was asked changes nothing: a resumed run asks so."""
    oracle = of.new()
    before = of.answers(of.questions, oracle)
    oracle.ask(of.questions[:3])
    oracle.ask(of.questions)
    found = of.answers(of.questions, oracle)
    require(
        {k: a.name for k, a in found.items()} == {k: a.name for k, a in before.items()}
        and len(of.collected(oracle).answers) == len(before),
        "asked again what it was asked, it has other answers, or more",
        "remember questions by their item and take each on once",
    )


@CONTRACT.check("resumed")
def _resumed(of: OfOracle) -> None:
    """Answers that were not in at once are there for an oracle that is built anew, as each resume builds it."""
    questions, oracle = of.questions, of.new()
    if hasattr(oracle, "attend"):
        raise Inapplicable("it writes its answers into the run itself")
    _asked(oracle, questions)
    if of.collected(oracle).complete:
        return
    if of.reply is not None:
        of.reply(oracle, questions)
    of.waited(oracle, questions)
    anew = of.new()
    _asked(anew, questions)
    found = {answer.item for answer in of.collected(anew).answers}
    count = sum(question.item in found for question in questions)
    require(
        count == len(questions),
        f"its answers came after collect(), and one that is built anew and asked the same has {count} of "
        f"{len(questions)} of them, so that no run gets them: a run calls collect once, and `alseg resume` builds the "
        "oracle anew",
        "keep what was asked and answered outside of the process (alseg's documentation, docs/guides/services.md), or "
        "let ask wait for the answers",
    )


@CONTRACT.check("same-seed")
def _same_seed(of: OfOracle) -> None:
    """One that is built alike gives the same answers, in whatever order and parts it is asked."""
    if of.reply is not None:
        raise Inapplicable("somebody else answers")
    questions, parts = of.questions, of.new(seed=5)
    wanted = of.answers(questions, of.new(seed=5))
    of.answers(questions[3:][::-1], parts)
    found = of.answers(questions[:3], parts)
    require(
        {k: a.name for k, a in wanted.items()} == {k: found[k].name for k in wanted if k in found},
        "with the same seed, asked in another order, it gives other answers",
        "let chance follow from seed, image and pixel: alseg.noise.stream(seed, 0, 'a purpose', f'{image} {y} {x}')",
    )


@CONTRACT.check("truth")
def _truth(of: OfOracle) -> None:
    """One that sees the truth gives the mask's class at row y and column x, more often than not."""
    if not of.new().sees_truth:
        raise Inapplicable("it does not see the truth")
    answers, classes = of.answers(of.questions), TinyDataset.classes
    masks = {of.images.key(i): of.images.mask(i) for i in range(len(of.images))}
    known = [(q, masks[q.image][q.y, q.x]) for q in of.questions if masks[q.image][q.y, q.x] != classes.void]
    right = sum(answers[question.item].name == classes.names[value] for question, value in known)
    require(
        2 * right > len(known),
        f"{len(known) - right} of its {len(known)} answers are not the mask's class",
        "read the mask of the question's image at mask[y, x]; one that errs as often on purpose leaves this check out",
    )


@CONTRACT.check("void")
def _void(of: OfOracle) -> None:
    """One that sees the truth cannot tell a void pixel's class."""
    if not of.new().sees_truth:
        raise Inapplicable("it does not see the truth")
    answers, classes = of.answers(of.questions), TinyDataset.classes
    index = {of.images.key(i): i for i in range(len(of.images))}
    for question in of.questions:
        value = of.images.mask(index[question.image])[question.y, question.x]
        require(
            value != classes.void or answers[question.item].name is None,
            f"it calls a void pixel {answers[question.item].name!r}",
            "answer None where the mask has classes.void",
        )


@CONTRACT.check("inputs")
def _inputs(of: OfOracle) -> None:
    """Images and masks stay as they are."""
    images = _Kept(of.images)
    before = [(image.copy(), mask.copy()) for image, mask in images.pairs]
    of.answers(of.questions, of.new(images=images))
    same = all(
        np.array_equal(one[k], other[k]) for one, other in zip(before, images.pairs, strict=True) for k in (0, 1)
    )
    require(same, "it changed an image or mask", "work on a copy")


@CONTRACT.check("attend")
def _attend(of: OfOracle) -> None:
    """One that attends takes an open round, one to be picked too, and returns where nobody is waited for."""
    made = of.new()
    if not hasattr(made, "attend"):
        raise Inapplicable("it is asked by ask and collect")
    person = getattr(made, "is_person", True)
    require(isinstance(person, bool), f"is_person is {person!r}", "say True where a person stands behind it")
    require_attends(made, picks=False, asks_class=True)
    require_attends(of.new(), picks=True, asks_class=True)


def _asked(oracle: Any, questions: Sequence[Question]) -> Any:
    """What `ask` gives, which must not keep a run waiting."""
    return at_once(partial(oracle.ask, questions), "ask(questions)", "take them on, answer elsewhere, and return")


class _Kept:
    """Images that are handed out without a copy."""

    def __init__(self, images: Any) -> None:
        self._images = images
        self.pairs = [(images.image(i), images.mask(i)) for i in range(len(images))]

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, i: int) -> str:
        """The image's name."""
        return self._images.key(i)

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return self.pairs[i][0]

    def mask(self, i: int) -> np.ndarray:
        """Class values [H, W]."""
        return self.pairs[i][1]
