"""Bad input through the real command line: an exit code, one sentence that names the thing, nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import timm
import torch
from conftest import SMALL, one_sentence
from PIL import Image
from safetensors.torch import save_file

from alseg.config import RunConfig
from alseg.options import Between

SMALL_SHAPES = ["-o", "dataset.train_images=2", "-o", "dataset.val_images=1", "-o", "train.epochs=1"]
SHAPES = ["run", "--dataset", "shapes", "--device", "cpu", *SMALL_SHAPES]
CAMVID = ["run", "--dataset", "camvid", "--rounds", "1", *SMALL, "--data"]


def cases(names: Iterable[str]) -> Any:
    """Parametrise by name."""
    return pytest.mark.parametrize("case", [pytest.param(name, id=name[:60] or "''") for name in names])


USAGE = {
    "nonsense": "nonsense",
    "run extra": "extra",
    "run --nonsense": "--nonsense",
    "run --seed": "--seed",
    "resume": "RUN",
    "--plugin": "--plugin",
    "plugins --kind thing": "'thing'",
}


@cases(USAGE)
def test_words_that_are_no_command(cli, case):
    outcome = cli(*case.split())
    assert outcome.code == 2
    assert USAGE[case] in outcome.err
    assert "Something went wrong" not in outcome.err


@cases(["--version", "--help", "run --help"])
def test_words_that_ask_for_words(cli, case):
    outcome = cli(*case.split())
    assert (outcome.code, outcome.err) == (0, "")
    assert "alseg" in outcome.out


VALUES = {
    "--dataset shape": ["dataset 'shape'", "shapes"],
    "--dataset shapes:shapes": ["dataset 'shapes:shapes'"],
    "--model deeplab": ["model 'deeplab'", "deeplabv3plus"],
    "--acquirer margins": ["acquirer 'margins'", "did you mean margin"],
    "--acquirer zzz": ["acquirer 'zzz'", "entropy", "least-confidence", "margin", "random"],
    "--acquirer ": ["acquirer ''"],
    "--selector topk-uniform": ["selector 'topk-uniform'", "topk-then-uniform"],
    "--oracle ground_truth": ["oracle 'ground_truth'", "ground-truth"],
    "--recipe camvit": ["recipe 'camvit'", "camvid"],
    "-o acquirer.top=1": ["acquirer 'margin'", "no option 'top'"],
    "-o selector.topp=1": ["selector 'topk-then-uniform'", "'topp'", "did you mean top"],
    "-o dataset.data=x": ["dataset 'shapes'", "'data'"],
    "-o train.epoch=1": ["setting 'train.epoch'", "train.epochs"],
    "-o trane.epochs=1": ["setting 'trane.epochs'", "train.epochs"],
    "-o train=1": ["setting 'train'"],
    "-o train.epochs.more=1": ["setting 'train.epochs.more'"],
    "-o train.epochs": ["-o", "KEY=VALUE", "'train.epochs'"],
    "-o =3": ["-o", "KEY=VALUE", "'=3'"],
    "-o ": ["-o", "KEY=VALUE"],
    "--split train": ["split takes val or test", "'train'"],
    "--split test": ["'shapes'", "no split 'test'", "train, val"],
    "--void maybe": ["void takes skip or ask", "'maybe'"],
    "--precision float16": ["precision takes", "bfloat16", "'float16'"],
    "-o deterministic=perhaps": ["deterministic takes true or false"],
    "-o train.optimizer=lion": ["train.optimizer takes adam or sgd", "'lion'"],
    "-o augment.scale=1": ["augment.scale takes 2 comma-separated values"],
    "-o augment.fill=1,1": ["augment.fill takes 3 comma-separated values"],
    "-o augment.scale=2,0.5": ["augment.scale"],
    "--size 64": ["size takes a size HxW", "'64'"],
    "--size 64x": ["size takes a size HxW", "'64x'"],
    "--size 0x64": ["size takes a size HxW", "'0x64'"],
    "--size -8x8": ["size takes a size HxW", "'-8x8'"],
    "--size 8x8x8": ["size takes a size HxW", "'8x8x8'"],
    "--size 8.5x8": ["size takes a size HxW", "'8.5x8'"],
    "--size 999999x9": ["size takes a size HxW", "'999999x9'"],
    "--size 65535x65535": ["train.size 65535x65535", "GB"],
    "-o query.size=60000x60000": ["query.size 60000x60000", "GB"],
    "-o evaluate.size=60000x60000": ["evaluate.size 60000x60000", "GB"],
    "--first-pixels 11": ["first_pixels is 11", "budget of 10"],
    "--first-pixels 5000 --budget 9999": ["first_pixels is 5000", "4096 pixels"],
    "--seed 9223372036854775808": ["seed takes a whole number", "4294967295"],
    "-o dataset.side=31": ["dataset.side takes a whole number from 32 to 1024", "'31'"],
    "-o dataset.train_images=0": ["dataset.train_images", "'0'"],
    "-o dataset.train_images=six": ["dataset.train_images takes a whole number", "'six'"],
    "-o selector.top=1.5": ["selector.top takes a number from 0 to 1", "'1.5'"],
    "-o selector.top=nan": ["selector.top takes a number", "'nan'"],
    "-o model.channels=7": ["model.channels", "8"],
    "-o model.output_stride=12": ["model.output_stride takes 8 or 16 or 32", "'12'"],
    "--device gpu": ["device takes auto, cpu or cuda", "'gpu'"],
    "--device meta": ["device takes auto, cpu or cuda", "'meta'"],
    "--device cuda:99": ["GPU"],
    "--encoder resnet1x": ["encoder 'resnet1x'"],
    "--weights /nowhere/x.safetensors": ["/nowhere/x.safetensors"],
}


@cases(VALUES)
def test_a_bad_name_or_value_is_refused(refused, case):
    refused([*SHAPES, *case.split(" ")], *VALUES[case])


def test_memory_is_counted_for_the_batches_that_passes_cut(cli, tmp_path):
    """So many images at once would take terabytes, if there were as many."""
    more = ["-o", "evaluate.batch_size=10000000", "-o", "query.batch_size=10000000", "--rounds", 1]
    outcome = cli(*SHAPES, *more, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(refused):
    refused([*SHAPES, "--device", "cuda"], "GPU", "--device cpu")


def test_a_dataset_without_its_folder(refused, tmp_path):
    refused(["run", "--dataset", "camvid"], "dataset 'camvid'", "--data")
    refused(["run", "--dataset", "camvid", "--data", "/nowhere/camvid"], "/nowhere/camvid", "--data")
    (tmp_path / "file").touch()
    refused([*CAMVID, tmp_path / "file"], str(tmp_path / "file"), "folder")


def ranges(kind: type = RunConfig, prefix: str = "") -> dict[str, Between]:
    """Every setting that has a range."""
    found: dict[str, Between] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if is_dataclass(hint) and name in ("train", "augment", "query", "evaluate"):
            found |= ranges(hint, f"{name}.")
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Annotated:
                found[prefix + name] = next(a for a in get_args(part) if isinstance(a, Between))
    return found


RANGES = ranges()
PARTS = {"augment.scale": 2, "augment.blur_sigma": 2, "augment.fill": 3}


def test_every_number_has_a_range():
    numbers = {"first_pixels", "pixels_per_round", "budget", "rounds", "seed", "train.epochs", "augment.hue"}
    assert numbers | {"train.workers", "query.batch_size", "evaluate.batch_size", *PARTS} <= set(RANGES)


@cases(RANGES)
def test_a_number_out_of_its_range_or_none_at_all(refused, case):
    limits = RANGES[case]
    values = ["many", "nan", "inf", "1;2", repr(limits.low - 1)]
    values += [repr(limits.high * 2 + 1)] if limits.high != float("inf") else []
    for value in values:
        listed = ",".join([value] * PARTS.get(case, 1))
        refused([*SHAPES, "-o", f"{case}={listed}"], f"{case} takes ", repr(listed))


TOML = {
    "seed = 1\ntrain = = 2": ["settings.toml", "not TOML", "line 2"],
    "\udcff\udcfe": ["settings.toml", "not TOML"],
    'dataset = "folder"\n[dataset]\ndata = "PHOTOS"': ["not TOML", "named in it", 'name = "folder" in [dataset]'],
    "sed = 1": ["setting 'sed'", "seed"],
    "[train]\nepoch = 1": ["setting 'train.epoch'", "train.epochs"],
    "[trane]\nepochs = 1": ["setting 'trane.epochs'"],
    "train = 3": ["setting 'train'"],
    "[seed]\nvalue = 1": ["setting 'seed.value'"],
    "[train.more]\nepochs = 1": ["setting 'train.more.epochs'"],
    "seed = true": ["seed takes a whole number", "True"],
    "[train]\nepochs = 1.5": ["train.epochs takes a whole number", "1.5"],
    "[train]\nlearning_rate = nan": ["train.learning_rate takes a number"],
    "[train]\nlearning_rate = 1" + "0" * 400: ["train.learning_rate takes a number"],
    "[augment]\nscale = 2": ["augment.scale takes 2 comma-separated values"],
    '[model]\nname = "fpm"': ["model 'fpm'"],
    "[selector]\ntop = [1]": ["selector.top takes a number"],
    "dataset = 1979-05-27": ["dataset '1979-05-27'"],
}


@cases(TOML)
def test_bad_toml(refused, tmp_path, case):
    (tmp_path / "settings.toml").write_bytes(case.encode("utf-8", "surrogateescape"))
    refused(["run", "--config", tmp_path / "settings.toml"], *TOML[case])


def endless(path: Path) -> Path:
    """As good as /dev/zero, but that a reader who goes on and on comes to an end."""
    with path.open("wb") as file:
        file.truncate(2**25)
    return path


@cases(["--config ", "--dataset folder --data {data} -o dataset.classes_file=", "--oracle noisy -o oracle.confusion="])
def test_small_files_are_not_read_without_end(refused, camvid, tmp_path, case):
    words = f"run {case.format(data=camvid)}{endless(tmp_path / 'zeros')}"
    refused(words.split(), "zeros is larger than 16 MB: give a small text file")


def test_settings_may_come_through_a_pipe(refused):
    reading, writing = os.pipe()
    os.write(writing, b"sed = 1")
    os.close(writing)
    refused(["run", "--config", f"/dev/fd/{reading}"], "setting 'sed'")
    os.close(reading)


@pytest.mark.parametrize("full", ["no folder for it", "a full disk"])
def test_an_unexpected_error_is_told_where_its_log_cannot_be_written(cli, monkeypatch, tmp_path, full):
    def stumble(*given: object, **more: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("alseg.cli.app.load_plugins", stumble)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path if full == "a full disk" else tmp_path / "gone"))
    if full == "a full disk":
        monkeypatch.setattr("traceback.print_exception", lambda error, file: file.write("x" * 9) and no_space())
    outcome = cli("plugins")
    reason = "No space left on device" if full == "a full disk" else "No such file or directory"
    words = f"Something went wrong inside alseg (ValueError: odd); the details could not be written: {reason}."
    assert (outcome.code, outcome.err) == (1, f"alseg: {words}\n")
    assert not list(tmp_path.iterdir())


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("name", "reason"), [("none.toml", "No such file"), ("", "Is a directory")])
def test_toml_that_cannot_be_read(refused, tmp_path, name, reason):
    refused(["run", "--config", tmp_path / name], str(tmp_path / name), reason)


def save(path: Path, value: int, shape: tuple[int, ...] = (64, 64), kind: type = np.uint8) -> None:
    Image.fromarray(np.full(shape, value, kind)).save(path)


def resized(root: Path, *size: int) -> None:
    """Image and mask of train03 of another size."""
    save(root / "train/train03.png", 0, (*size, 3))
    save(root / "trainannot/train03.png", 0, size)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


FOLDERS = {
    "no train": (lambda r: shutil.rmtree(r / "train"), ["no folder train"]),
    "empty train": (lambda r: emptied(r / "train"), ["split train is empty", "/train"]),
    "empty val": (lambda r: emptied(r / "val"), ["split val is empty", "/val"]),
    "train image without mask": (lambda r: (r / "trainannot/train03.png").unlink(), ["train03", "no mask"]),
    "val image without mask": (lambda r: (r / "valannot/val01.png").unlink(), ["val01", "'val'", "no mask"]),
    "no train masks": (lambda r: shutil.rmtree(r / "trainannot"), ["train00", "no mask"]),
    "mask of another size": (
        lambda r: save(r / "trainannot/train03.png", 0, (64, 60)),
        ["mask of train03", "64x60", "64x64"],
    ),
    "class out of range": (
        lambda r: save(r / "valannot/val01.png", 12),
        ["mask of val01", "12 at (y 0, x 0)", "0 to 10", "void is 11"],
    ),
    "16-bit class out of range": (
        lambda r: save(r / "trainannot/train00.png", 256, kind=np.uint16),
        ["mask of train00", "256"],
    ),
    "RGB mask": (
        lambda r: save(r / "trainannot/train03.png", 0, (64, 64, 3)),
        ["trainannot/train03.png", "3 channels"],
    ),
    "truncated image": (lambda r: halved(r / "train/train03.png"), ["train/train03.png", "truncated"]),
    "truncated mask": (lambda r: halved(r / "valannot/val01.png"), ["valannot/val01.png"]),
    "not an image": (lambda r: (r / "train/train03.png").write_text("hello"), ["train/train03.png", "not an image"]),
    "zero-byte file": (lambda r: (r / "train/train03.png").write_bytes(b""), ["train/train03.png", "is empty"]),
    "two files of one stem": (lambda r: (r / "train/train03.jpg").touch(), ["train03.jpg", "train03.png"]),
    "dangling link": (lambda r: (r / "train/z.png").symlink_to("/nowhere"), ["train/z.png", "No such file"]),
    "folder named as an image": (lambda r: (r / "val/z.png").mkdir(), ["val/z.png", "Is a directory"]),
    "image of one pixel": (lambda r: resized(r, 1, 1), ["first_pixels is 10"]),
    "void masks only": (lambda r: [save(p, 11) for p in r.glob("trainannot/*")], ["void"]),
}


@cases(FOLDERS)
def test_bad_data_is_refused_before_the_run_begins(refused, camvid, case):
    damage, expected = FOLDERS[case]
    damage(camvid)
    refused([*CAMVID, camvid], *expected)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Files that are no good as weights of the tiny ResNet."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(timm.create_model("test_resnet.r160_in1k").state_dict(), folder / "truncated.safetensors")
    halved(folder / "truncated.safetensors")
    (folder / "empty.safetensors").touch()
    (folder / "pickle.pth").write_bytes(pickle.dumps({"weights": re.compile("x")}, protocol=2))
    save_file(timm.create_model("test_efficientnet.r160_in1k").state_dict(), folder / "another.safetensors")
    save_file({"blocks.0.weight": torch.zeros(3)}, folder / "foreign.safetensors")
    return folder


@cases([f"{n}.safetensors" for n in ("missing", "truncated", "empty", "another", "foreign")] + ["pickle.pth", "."])
def test_weights_that_do_not_fit_are_named(cli, camvid, weights, tmp_path, case):
    outcome = cli(*CAMVID, camvid, "--weights", weights / case, "--out", tmp_path / "run")
    one_sentence(outcome, str(weights / case))


@pytest.mark.parametrize(("name", "word"), [("resnet1x", "resnet1"), ("test_resnet.nosuchtag", "nosuchtag")])
def test_encoders_that_do_not_exist_are_named(cli, camvid, tmp_path, name, word):
    one_sentence(cli(*CAMVID, camvid, "--encoder", name, "--out", tmp_path / "run"), repr(name), word)
