"""Oracles that break their contract, and people and late answers that keep it."""

from __future__ import annotations

import time

from test_broken_acquirers import fails

from alseg.testing import check_oracle
from alseg.testing.tiny_images import CLASSES
from alseg.values import Answer, Answers


class Oracle:
    """Answers with the mask's class; what is spoilt is overridden."""

    sees_truth = True

    def __init__(self, images, classes):
        self.pool, self.classes, self.answers = images, classes, {}
        self.index = {images.key(i): i for i in range(len(images))}

    def name(self, question):
        value = self.pool.mask(self.index[question.image])[question.y, question.x]
        return None if value == self.classes.void else self.classes.names[value]

    def ask(self, questions):
        self.answers |= {q.item: Answer(q.item, self.name(q), "test") for q in questions}

    def collect(self):
        return Answers(tuple(self.answers.values()), complete=True)


class NoCollect:
    sees_truth = True

    def ask(self, questions):
        pass


class PerhapsTruth(Oracle):
    sees_truth = "yes"


class NeverComplete(Oracle):
    def collect(self):
        return Answers(tuple(self.answers.values()), complete=bool(self.answers))


class ReturnsAnswers(Oracle):
    def ask(self, questions):
        super().ask(questions)
        return self.collect()


class Listing(Oracle):
    def collect(self):
        return list(self.answers.values())


class ByValue(Oracle):
    def name(self, question):
        return super().name(question) and str(self.classes.index[super().name(question)])


class Skips(Oracle):
    def ask(self, questions):
        super().ask([q for q in questions if super(Skips, self).name(q) is not None])


class Slow(Oracle):
    def collect(self):
        return Answers((), complete=not self.answers)


class Appends(Oracle):
    def __init__(self, images, classes):
        super().__init__(images, classes)
        self.all = []

    def ask(self, questions):
        self.all += [Answer(q.item, self.name(q), "test") for q in questions]

    def collect(self):
        return Answers(tuple(self.all), complete=True)


class InMemory(Oracle):
    """Its answers come a while after the first `ask`, and are nowhere but here."""

    since = None

    def ask(self, questions):
        super().ask(questions)
        self.since = self.since or time.monotonic()

    def collect(self):
        there = self.since is None or time.monotonic() > self.since + 0.02
        return Answers(tuple(self.answers.values()) if there else (), complete=there)


class Drawn(Oracle):
    def name(self, question):
        return self.classes.names[len(self.answers) % 3]

    def ask(self, questions):
        for question in questions:
            if question.item not in self.answers:
                super().ask([question])


class CallsVoid(Oracle):
    def name(self, question):
        return super().name(question) or "sky"


class Swaps(Oracle):
    def name(self, question):
        mask = self.pool.mask(self.index[question.image]).T
        value = mask[min(question.y, len(mask) - 1), min(question.x, len(mask[0]) - 1)]
        return None if value == self.classes.void else self.classes.names[value]


class SaysGround(Oracle):
    def name(self, question):
        return super().name(question) and "ground"


class WritesMask(Oracle):
    def name(self, question):
        named = super().name(question)
        self.pool.mask(self.index[question.image])[question.y, question.x] = 0
        return named


class HalfAttends(Oracle):
    def attend(self, round):
        round.answer(round.unanswered()[0].item, "sky", "test")


ORACLES = [
    ("builds", NoCollect, "it has no collect", "see Oracle in alseg's documentation"),
    ("sees-truth", PerhapsTruth, "sees_truth is 'yes'", "say True where it reads stored masks"),
    ("nothing-asked", NeverComplete, "0 answers, complete=False", "be complete as long as nothing is open"),
    ("ask", ReturnsAnswers, "ask gave Answers", "return nothing"),
    ("ask", Listing, "collect() gave list", "give alseg.Answers(answers, complete)"),
    ("answers", ByValue, "the classes are ground, sky, disc", "a class's name, not its value"),
    ("answers", Skips, "it says it is complete and ['train-0 1'] has no answer", "answer None"),
    ("answers", Slow, "after 0.1 seconds collect() is not complete, 0 of 8", "give patience="),
    ("ask-again", Appends, "it has other answers, or more", "take each on once"),
    ("resumed", InMemory, "a run calls collect once, and `alseg resume` builds the oracle anew", "or let ask wait"),
    ("same-seed", Drawn, "asked in another order, it gives other answers", "alseg.noise.stream"),
    ("void", CallsVoid, "it calls a void pixel 'sky'", "classes.void"),
    ("truth", Swaps, "4 of its 4 answers are not the mask's class", "mask[y, x]"),
    ("truth", SaysGround, "2 of its 4 answers are not the mask's class", "mask[y, x]"),
    ("inputs", WritesMask, "it changed an image or mask", "work on a copy"),
    ("attend", HalfAttends, "it did 1 of 8 questions and returned", "is_person = True"),
]


class Person(Oracle):
    """Answers only when somebody types."""

    sees_truth = False
    is_person = True

    def ask(self, questions):
        self.open = {**getattr(self, "open", {}), **{q.item: q for q in questions}}

    def type(self, item, name):
        self.answers[item] = Answer(item, name, "somebody")

    def collect(self):
        return Answers(tuple(self.answers.values()), complete=len(self.answers) == len(getattr(self, "open", {})))


def test_a_person_is_checked_as_far_as_nobody_answers_and_wholly_where_somebody_plays_them():
    alone = check_oracle(Person, name="typing")
    assert "somebody answers in a run: give reply=, which plays them" in alone.left_out["answers"]
    assert {"builds", "ask", "nothing-asked", "sees-truth"} <= set(alone.passed)

    def reply(oracle, questions):
        for question in questions:
            oracle.type(question.item, CLASSES.names[0])

    forgets = "resumed"
    played = check_oracle(Person, name="typing", reply=reply, skip={forgets: "it is for one process"})
    assert {"answers", "ask-again", "inputs"} <= set(played.passed)
    fails("oracle", forgets, Person, "one that is built anew and asked the same has 0 of 8 of them", reply=reply)


def test_answers_that_come_late_and_are_kept_elsewhere_are_there_for_one_that_is_built_anew():
    kept: dict[str, Answer] = {}

    class Elsewhere(InMemory):
        def ask(self, questions):
            super().ask([q for q in questions if q.item not in kept])
            self.answers |= {q.item: kept[q.item] for q in questions if q.item in kept}

        def collect(self):
            if (self.answers and kept.keys() >= self.answers.keys()) or (given := super().collect()).complete:
                kept.update(self.answers)
                return Answers(tuple(self.answers.values()), complete=True)
            return given

    assert "resumed" in check_oracle(Elsewhere, name="elsewhere").passed
    assert kept


def test_an_oracle_that_keeps_one_waiting_is_found(monkeypatch):
    monkeypatch.setattr("alseg.testing.patience.SECONDS", 0.05)

    class Waits(Oracle):
        def ask(self, questions):
            time.sleep(1)

    fails("oracle", "ask", Waits, "ask(questions) has not returned after 0.05 seconds", "answer elsewhere, and return")
