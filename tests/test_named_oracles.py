"""An oracle that misbehaves in a run is named, and what was answered properly is kept."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from broken_runs import HEAD, PLUGIN, RUN, TINY, journal, line_of, told  # noqa: F401
from test_named_datasets import DATASET

ORACLE = """
class Mine:
    sees_truth = False
    said = 0

    def __init__(self, images):
        self.images, self.answers = images, []

    def ask(self, questions):
        {ask}
        self.answers += [Answer(q.item, "sky", "me") for q in questions]

    def collect(self):
        {collect}

@hookimpl
def register_oracles(register):
    register("mine", lambda images: Mine(images))
"""
ALL = "return Answers(self.answers, True)"
ASK = [*RUN, "--oracle", "mine"]

# what ask does first, what collect does, what is said, how many answers are kept of 8
BROKEN = {
    "ask raises": ("raise ValueError('no line')", ALL, "failed in ask: ValueError: no line (FILE, line {ask})", 0),
    "ask raises late": (
        "self.answers = [Answer(questions[0].item, 'sky', 'me')]; 1 / 0",
        ALL,
        "failed in ask: ZeroDivisionError: division by zero (FILE, line {ask})",
        1,
    ),
    "ask raises and collect exits": (
        "raise ValueError('no line')",
        "raise SystemExit(7)",
        "failed in ask: ValueError: no line (FILE, line {ask})",
        0,
    ),
    "ask exits": ("raise SystemExit(7)", ALL, "failed in ask: SystemExit: 7 (FILE", 0),
    "collect raises": ("pass", "return self.nothing", "failed in collect: AttributeError: ", 0),
    "a list": ("pass", "return self.answers", "gave list in collect; it must give alseg.Answers", 0),
    "no answers in it": ("pass", "return Answers(5, True)", "gave Answers in collect; it must give", 0),
    "a tuple": ("pass", "return Answers([*self.answers, ('x', 'sky')], True)", "gave ('x', 'sky') among its", 8),
    "a stranger": (
        "pass",
        "return Answers([Answer('r07-1', 'sky', 'me'), *self.answers], True)",
        "answered 'r07-1', which was never asked: an answer has its question's item; what it answered properly is kept",
        8,
    ),
    "no class": (
        "pass",
        "return Answers([*self.answers[:5], *(a._replace(name='moon') for a in self.answers[5:])], True)",
        "answered 'moon' to r00-0000005; the classes are ground, sky, disc; what it answered properly is kept",
        5,
    ),
    "a value": ("pass", "return Answers([a._replace(name=1) for a in self.answers], True)", "answered 1 to r00", 0),
    "two answers": (
        "pass",
        "return Answers([*self.answers, self.answers[2]._replace(name='disc')], True)",
        "answered r00-0000002 with 'sky' and with 'disc'",
        7,
    ),
    "writes": (
        "self.images.image(0)[:] = 0",
        ALL,
        "failed in ask: ValueError: assignment destination is read-only (FILE, line {ask})",
        0,
    ),
    "writes masks": ("self.images.mask(0)[:] = 0", ALL, "failed in ask: ValueError: assignment destination is", 0),
    "takes the questions away": (
        "questions.clear()",
        ALL,
        "says that all is answered, and 8 of 8 questions have no answer",
        0,
    ),
    "perhaps all": (
        "pass",
        "return Answers(self.answers, torch.ones(8))",
        "failed in collect: RuntimeError: Boolean value of Tensor with more than one value is ambiguous",
        8,
    ),
    "nobody": ("pass", "return Answers([self.answers[0]._replace(who=None)], True)", "says that None answered r00", 0),
    "no time": ("pass", "return Answers([self.answers[0]._replace(seconds='2 s')], True)", "took '2 s' seconds; it", 0),
    "not all": (
        "pass",
        "return Answers(self.answers[:6], True)",
        "says that all is answered, and 2 of 8 questions have no answer, the first of them r00-0000006: answer None",
        6,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_oracle_is_named_and_its_answers_are_kept(told, tmp_path, case):  # noqa: F811
    ask, collect, words, kept = BROKEN[case]
    text = ORACLE.format(ask=ask, collect=collect)
    said = told(text, *ASK)
    assert said.startswith("The oracle 'mine' of FILE "), said
    assert words.replace("{ask}", str(line_of(text, ask))) in said
    assert journal(tmp_path / "run").count('"answered"') == kept


def test_an_oracle_that_does_not_say_whether_it_sees_masks_is_named(told, tmp_path):  # noqa: F811
    text = ORACLE.format(ask="pass", collect=ALL).replace("sees_truth = False", "sees_truth = 'no'")
    assert "The oracle 'mine' of FILE has 'no' as sees_truth; it must be True or False." in told(text, *ASK)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_from_what_was_kept(told, cli, tmp_path):  # noqa: F811
    told(ORACLE.format(ask="pass", collect="return Answers(self.answers[:6], True)"), *ASK)
    (tmp_path / "mine.py").write_text(HEAD + ORACLE.format(ask="assert len(questions) == 2", collect=ALL))
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", "resume", tmp_path / "run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("raise ValueError('away')", "failed in ask: ValueError: away"),
        ("import errno; raise OSError(errno.ENOSPC, 'No space left', 'x.db')", "No space left: x.db. Whatever was"),
    ],
)
def test_how_a_run_goes_on_is_said_by_the_name_it_was_given(cli, tmp_path, monkeypatch, ask, said):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(HEAD + ORACLE.format(ask=ask, collect=ALL))
    first = cli(*TINY, "--plugin", "mine.py", *ASK, "--out", "my run").err.splitlines()
    assert said in first[-2]
    plugins = f"--plugin {PLUGIN} --plugin mine.py"
    assert first[-1] == f"alseg: `alseg {plugins} resume 'my run'` goes on from the last phase."
    Path("mine.py").write_text(HEAD + ORACLE.format(ask="pass", collect=ALL))
    _, *words = shlex.split(first[-1].split("`")[1])
    assert cli(*words).code == 0


def test_a_damaged_run_is_not_said_to_go_on(told, cli, tmp_path):  # noqa: F811
    told(ORACLE.format(ask="raise ValueError", collect=ALL), *ASK)
    questions = tmp_path / "run/rounds/00/questions.jsonl"
    questions.write_bytes(questions.read_bytes()[:-9])
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", "resume", tmp_path / "run")
    assert outcome.code == 1
    assert "questions.jsonl is no JSON" in outcome.err and "goes on" not in outcome.err


def test_an_oracle_may_answer_another_time_and_earlier_rounds_again(cli, tmp_path):
    later = "return Answers(self.answers[: 5 if len(self.answers) == 8 else 99], len(self.answers) != 8)"
    (tmp_path / "mine.py").write_text(HEAD + ORACLE.format(ask="pass", collect=later))
    words = [*TINY, "--plugin", tmp_path / "mine.py"]
    waits = cli(*words, *ASK[:-3], 2, "--oracle", "mine", "--out", tmp_path / "run")
    assert waits.code == 3, waits.err
    assert "waits for 3 of 8 answers" in waits.err
    again = cli(*words, "resume", tmp_path / "run")  # 3 in the first round and, with those again, 8 more in the second
    assert again.code == 0, again.err
    assert journal(tmp_path / "run").count('"answered"') == 16


UNSURE = "return Answers([a._replace(name={name}) for a in self.answers], True)"


def test_an_oracle_that_can_tell_nothing_ends_the_run_before_its_training(told, tmp_path):  # noqa: F811
    said = told(ORACLE.format(ask="pass", collect=UNSURE.format(name=None)), *ASK, "-o", "trust.audit=3", code=2)
    assert said == (
        "The oracle 'mine' of FILE named no class at any of the 8 pixels asked, so that round 0 has nothing to train "
        'on: None is "can\'t tell"; see why it answers that, and start another run, perhaps with more --first-pixels.'
    )
    assert not list((tmp_path / "run").rglob("model*"))


def test_an_oracle_that_sees_masks_and_tells_nothing_is_not_excused_by_them(told):  # noqa: F811
    text = ORACLE.format(ask="pass", collect=UNSURE.format(name=None))
    said = told(text.replace("sees_truth = False", "sees_truth = True"), *ASK, code=2)
    assert 'None is "can\'t tell"; see why it answers that' in said and "void" not in said


def test_an_oracle_that_can_tell_one_pixel_goes_on(cli, tmp_path):
    one = UNSURE.format(name="'sky' if a.item == 'r00-0000003' else None")
    (tmp_path / "mine.py").write_text(HEAD + ORACLE.format(ask="pass", collect=one))
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", *ASK[:-3], 2, "--oracle", "mine", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert journal(tmp_path / "run").count('"unsure"') == 15


def test_masks_that_are_void_wherever_they_are_asked_end_the_run(cli, tmp_path):
    corner = "Pictures.mask = lambda self, i: (torch.arange(64 * 64).view(64, 64).clamp(max=1) * 255).numpy()"
    text = DATASET.format(broken=corner)  # a class at (0, 0) alone
    (tmp_path / "mine.py").write_text(HEAD + text)
    words = ["run", "--dataset", "mine", "--model", "alseg-tiny", "--rounds", 1, "--void", "ask"]
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", *words, "--out", tmp_path / "run")
    assert outcome.code == 2, outcome.err
    assert "The oracle 'ground-truth' of alseg named no class at any of the 8 pixels asked" in outcome.err
    assert "the masks are void there; start another run with --void skip" in outcome.err


ATTENDS = """
class Mine:
    sees_truth = False

    def attend(self, round):
        for question in round.unanswered():
            round.answer(question.item, {name}, "me")

@hookimpl
def register_oracles(register):
    register("mine", lambda: Mine())
"""


@pytest.mark.parametrize(
    ("name", "words", "kept"),
    [
        ("'sky' if question.item < 'r00-0000003' else 1 / 0", "failed in attend: ZeroDivisionError: division", 3),
        ("'moon'", "did in attend what the round does not take: 'moon' is no class; there are ground", 0),
    ],
)
def test_an_oracle_that_attends_is_named(told, tmp_path, name, words, kept):  # noqa: F811
    said = told(ATTENDS.format(name=name), *ASK)
    assert f"The oracle 'mine' of FILE {words}" in said
    assert journal(tmp_path / "run").count('"answered"') == kept


@pytest.mark.parametrize(
    ("name", "words"),
    [("'sky'", "failed in dismiss: OverflowError: late"), ("1 / 0", "failed in attend: ZeroDivision")],
)
def test_an_oracle_that_cannot_be_dismissed_hides_nothing_else(told, name, words):  # noqa: F811
    leaves = "    def dismiss(self, message, done):\n        raise OverflowError('late')\n\n@hookimpl"
    said = told(ATTENDS.format(name=name).replace("@hookimpl", leaves), *ASK)
    assert f"The oracle 'mine' of FILE {words}" in said


def test_an_oracle_without_its_parts_is_named_before_the_run(told, tmp_path):  # noqa: F811
    text = "@hookimpl\ndef register_oracles(register):\n    register('mine', lambda: object())\n"
    assert "The oracle 'mine' of FILE has no ask and no collect and no sees_truth" in told(text, *ASK)
    assert not (tmp_path / "run").exists()


def test_an_errors_own_words_for_users_follow_the_pieces_name(cli, tmp_path):
    text = ORACLE.format(ask="from alseg import UserMistake; raise UserMistake('Give a key.')", collect=ALL)
    (tmp_path / "mine.py").write_text(HEAD + text)
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", *ASK, "--out", tmp_path / "run")
    said = f"alseg: The oracle 'mine' of {tmp_path}/mine.py: Give a key."
    assert (outcome.code, outcome.err.splitlines()[-2]) == (2, said)


PICKS = """
class Mine:
    def attend(self, round):
        raise KeyError("where")

    def __call__(self, batch, utility, n):
        raise NotImplementedError

@hookimpl
def register_selectors(register):
    register("mine", lambda: Mine())
"""


def test_a_selector_that_lets_pick_is_named(told):  # noqa: F811
    said = told(PICKS, *RUN[:-1], 2, "--selector", "mine")
    assert "The selector 'mine' of FILE failed in attend: KeyError: 'where' (FILE, line " in said


ACQUIRER = """
class Wordless(Exception):
    def __str__(self):
        raise ValueError("no words")

def mine():
    def utility(batch):
        raise {raises}
    return utility

@hookimpl
def register_acquirers(register):
    register("mine", mine)
"""


def test_an_error_whose_own_words_fail_is_told_by_its_type(told):  # noqa: F811
    said = told(ACQUIRER.format(raises="Wordless"), *RUN, "--acquirer", "mine")
    assert said == "The acquirer 'mine' of FILE failed: Wordless (FILE, line 14)."


def test_memory_that_runs_out_before_the_run_is_said_as_in_it(cli, tmp_path):
    (tmp_path / "mine.py").write_text(HEAD + ACQUIRER.format(raises="MemoryError"))
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    assert (outcome.code, outcome.out) == (1, "")
    assert (
        outcome.err == "alseg: There is not enough memory for choosing pixels in batches of 1: give a smaller size.\n"
    )
