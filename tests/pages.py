"""Pages of the documentation walked from top to bottom: files are written, Python is run, commands are given."""

from __future__ import annotations

import contextlib
import glob
import os
import pickle
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from annotator import Listening, Working, answer_all
from conftest import SMALL, write_camvid
from photos import write_pair
from pieces import write_saved, write_segformer
from PIL import Image

import alseg
from alseg.answering import Attendance
from alseg.attending import annotate
from alseg.cli.app import run_cli
from alseg.plugins import load_plugins
from alseg.store import RunFolder

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# what stands for something of the reader's
PLACEHOLDERS = {"CAMVID": "camvid", "FOUR": "camvid", "PHOTOS": "photos", "LABELS": "start.csv", "SAVED": "saved"}
# and for a network that is large
PLACEHOLDERS |= {"vit_base_patch14_dinov2.lvd142m": "test_vit.r160_in1k"}
TINY_SHAPES = ("-o", "dataset.train_images=4", "-o", "dataset.val_images=2", "-o", "dataset.side=32")
TWO_ROUNDS = ("--rounds", "2")  # after the command's own, of which the last counts
TINY_RUN = {"train.epochs": 1, "train.batch_size": 4, "device": "cpu", "report": False}
TINY_MODEL = {"model.encoder": "test_resnet.r160_in1k", "model.weights": "none", "model.channels": 8}
TINY_SMP = {"model.encoder": "tu-test_resnet.r160_in1k", "model.weights": "none"}
TINY_FROZEN = {"model.encoder": "test_vit.r160_in1k", "model.weights": "none", "model.cache": "none"}
OURS = ("deeplabv3plus", "ensemble:deeplabv3plus", "fpn")  # models that take the tiny ones' options


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is, why it is not run, and the code that its commands end with."""

    language: str
    text: str
    title: str | None
    not_run: str | None
    ends: int = 0

    def commands(self) -> list[str]:
        """The lines after prompts, each whole and without its comment."""
        whole = self.text.replace("\\\n", " ")
        return [line[2:].split(" #")[0].strip() for line in whole.splitlines() if line.startswith("$ ")]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for language, info, text in FENCE.findall(page.read_text()):
        options = dict(re.findall(r'([\w-]+)="([^"]*)"', info))
        ends = int(options.get("ends", "0"))
        found.append(Block(language, text, options.get("title"), options.get("not-run"), ends))
    return found


def without(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Words of a command without `-o NAME=VALUE` of these names."""
    left = list(words)
    for at in reversed(range(len(left) - 1)):
        if left[at] == "-o" and left[at + 1].partition("=")[0] in names:
            del left[at : at + 2]
    return left


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder with small data, each run made as small as it can be."""

    cli: Callable[..., Any]
    folder: Path
    real: bool = False  # comparisons are carried out, and not just understood
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    def read(self, page: Path) -> None:
        """Do all that a page says."""
        if page.name == "huggingface.md":
            write_saved(Path("saved"))
            write_segformer(Path("checkpoint"))
        for block in blocks(page):
            if block.not_run:
                continue
            if block.title:
                place = self.folder / block.title
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(block.text)
            elif block.language == "python":
                with small_runs():
                    exec(compile(block.text, str(page), "exec"), self.names)
            elif block.language == "console":
                for command in block.commands():
                    if command.startswith("alseg"):
                        self.give(command, block.ends)
                    elif command.startswith("pip install -e ") and "." not in command:
                        install(Path(command.split()[-1]))

    def give(self, command: str, code: int = 0) -> None:
        """Give a command of alseg's, which must do what it is to do, or end with a code."""
        words = [self._filled(word) for word in shlex.split(command)[1:]]
        name = command_of(words)
        if any(word.startswith("dataset.path=") for word in words):
            understood(words)  # it needs the hub
        elif name == "run":
            self._run([*words, *tiny(words)], code)
        elif name == "annotate" or "--to" in words:
            understood(words)  # it waits for a person; it takes long and has tests of its own
        elif name == "compare":
            self._compare(words)
        else:
            if name == "import":
                Path("labels.csv").unlink(missing_ok=True)
            elif name == "export" and "--out" in words:  # what is there to be read is not written over
                at = words.index("--out") + 1
                words[at] = f"exported-{words[at]}"
            self._ends(words, code)

    def _run(self, words: list[str], code: int) -> None:
        if "human" not in words:
            self._ends(words, code)
            return
        before = set(Path("runs").glob("*"))
        self._ends([*words, "--no-wait"], code=3)
        (run,) = set(Path("runs").glob("*")) - before or {Path(words[words.index("--out") + 1])}
        if "--oracle" in words:  # else somebody picks, whom no program plays
            while waits(run):
                answer(run)
                self.cli("resume", run, "--no-wait")

    def _compare(self, words: list[str]) -> None:
        if "--commands" in words or "ray" in words:
            understood(words)
            return
        if words[words.index("compare") + 1].startswith("runs/"):
            self._ends(words)
            return
        varied = [axis.partition("=")[0] for flag, axis in pairwise(words) if flag == "--axis"]
        words += without(tiny(words), varied)
        if self.real:
            words += ["--seeds", "1"]
        if not self.real and "--executor" not in words:
            if "--jobs" in words:
                del words[words.index("--jobs") : words.index("--jobs") + 2]
            words = [word for word in words if word not in ("--ask-only", "--keep-models")] + ["--commands"]
        self._ends(words)

    def _ends(self, words: Sequence[str], code: int = 0) -> None:
        expanded = [match for word in words for match in (sorted(glob.glob(word)) if "*" in word else [word])]
        outcome = self.cli(*expanded)
        assert outcome.code == code, f"alseg {shlex.join(words)}\n{outcome.err}"

    def _filled(self, word: str) -> str:
        if word == "FILE":
            return "none"
        if word.startswith("model.checkpoint="):
            return "model.checkpoint=checkpoint"
        return PLACEHOLDERS.get(word, word)


def command_of(words: Sequence[str]) -> str:
    """Which command is given, after the flags of alseg itself."""
    at = 0
    while words[at].startswith("--"):
        at += 2 if words[at] == "--plugin" else 1
    return words[at]


def tiny(words: Sequence[str]) -> list[str]:
    """Flags that make what is given as small as it can be; a piece that the command names is left its own options."""
    given = set(words)
    if "--config" in given and "run" in given:
        return [*TWO_ROUNDS, *settings({**TINY_RUN, **TINY_MODEL})]
    flags = {
        flag: words[words.index(flag) + 1]
        for flag in ("--dataset", "--model", "--encoder", "--recipe")
        if flag in given
    }
    model = _tiny_model(flags.get("--model", OURS[0]), flags.get("--recipe"))
    if "--encoder" in given:
        model = {name: value for name, value in model.items() if name != "model.encoder"}
    more = [*TWO_ROUNDS, *settings({**TINY_RUN, **model})]
    if "--config" not in given and flags.get("--dataset", "shapes") == "shapes":
        more += TINY_SHAPES
    else:
        more += ["--size", "64x64"]
    return more


def _tiny_model(name: str, recipe: str | None) -> dict[str, Any]:
    """Options by which a model is small, where it takes any."""
    if recipe == "frozen":
        return TINY_FROZEN
    if name.startswith("smp-"):
        return TINY_SMP
    return TINY_MODEL if name in OURS and recipe != "hf" else {}


def settings(values: dict[str, Any]) -> list[str]:
    """Settings as flags."""
    return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def understood(words: Sequence[str]) -> None:
    """That the command line takes these words, without doing what they say."""
    import typer

    from alseg.cli.app import _plugin_flags, build_app

    rest, files, _ = _plugin_flags(list(words))
    command = typer.main.get_command(build_app(load_plugins(files)))
    context = command.make_context("alseg", rest)
    name, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    below.make_context(name, rest, parent=context)


@contextlib.contextmanager
def small_runs() -> Iterator[None]:
    """`alseg.run` with small settings beneath those that are given."""
    small = {**TINY_RUN, **TINY_MODEL, "rounds": 2, "train.size": "64x64", "query.size": "64x64"}
    before = alseg.__dict__.get("run")
    alseg.__dict__["run"] = partial(alseg.run, toml=small)
    try:
        yield
    finally:
        if before is None:
            del alseg.__dict__["run"]
        else:
            alseg.__dict__["run"] = before


def install(package: Path) -> None:
    """What `pip install -e` does to a package of `alseg plugins new`: its source and entry points are on the path."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    source = package.absolute() / "src"
    facts = source / f"{package.name}-{project['version']}.dist-info"
    facts.mkdir()
    facts.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["alseg"].items())
    facts.joinpath("entry_points.txt").write_text(f"[alseg]\n{points}")
    sys.path.append(str(source))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))


def waits(run: Path) -> bool:
    """Whether a run waits for answers."""
    folder = RunFolder(run)
    return bool(folder.questions(len(folder.rounds())))


def answer(run: Path) -> None:
    """Answer the open round of a run, as a person does at its page."""
    from alseg_human.server import stop_page

    listening, registry = Listening(), load_plugins()
    folder = RunFolder(run)
    work = Working(
        lambda: annotate(folder, registry=registry, attendance=Attendance(browser=False), progress=listening)
    )
    import httpx

    with httpx.Client(base_url=listening.address(), timeout=30) as client:
        names = [each["name"] for each in client.get("/api/state").json()["classes"]]
        answer_all(client, lambda item: names[item["x"] % len(names)])
    work.done()
    stop_page(run)


def furnish(folder: Path, run: Path) -> None:
    """What pages speak of: photos with masks, CamVid, labels to import, and finished runs."""
    write_camvid(folder / "camvid", test=2)
    for name in ("a.jpg", "b.png", "c.webp"):
        write_pair(folder / "photos", folder / "photos" / "masks", name)
    (folder / "start.csv").write_text("image,y,x,class\nb.png,1,2,road\nc,3,4,sky\n")
    (folder / "labels.json").write_text("image,y,x,class\nb.png,1,2,road\n")
    mask = np.full((32, 40), 255, np.uint8)
    mask[3:9, 2:30] = 1
    (folder / "scribbles").mkdir()
    Image.fromarray(mask).save(folder / "scribbles" / "b.png")
    (folder / "3_query").mkdir()
    query = np.zeros((64, 64), bool)
    query[5, 6] = True
    (folder / "3_query" / "queries.pkl").write_bytes(pickle.dumps({"/data/train00.png": query}))
    for name in ("NAME", "camvid-0", "margin-0", "random-0"):
        shutil.copytree(run, folder / "runs" / name)
    (folder / "examples").symlink_to(ROOT / "examples")


def finished_run(folder: Path) -> Path:
    """A run of two rounds that pages may call runs/NAME."""
    data = write_camvid(folder / "camvid")
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", 2, "--out", folder / "run"]
    assert run_cli(list(map(str, words))) == 0
    return folder / "run"
