"""The reference that alseg is timed against computes the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_camvid
from PIL import Image

from alseg.engine.augment import draw_geometry, draws_of
from alseg.engine.batches import Batch
from alseg.engine.evaluate import confusion_matrix
from alseg.engine.images import DecodedImages
from alseg.engine.predict import predict
from alseg.engine.train import point_loss
from alseg.settings import Augmentation
from alseg_datasets.camvid import CamVid
from alseg_pixelpick import deeplab
from alseg_pixelpick.deeplab import DeepLabV3Plus
from benchmarks import reference
from benchmarks.__main__ import main, peak, show
from benchmarks.accuracy import WAYS
from benchmarks.counts import counts
from benchmarks.equivalence import MARGIN, both_ways, interval, seeds_needed, verdict
from benchmarks.material import (
    CLASSES,
    Material,
    camvid,
    generated,
    is_lossy,
    labels_of,
    model,
    points_of,
    sparse_masks,
)
from benchmarks.rows import batches, reference_augmented

CPU, SMALL = torch.device("cpu"), "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return generated(tmp_path_factory.mktemp("images"), 4, (66, 98))


@pytest.fixture(scope="module")
def network() -> DeepLabV3Plus:
    found = model(SMALL)
    assert isinstance(found, DeepLabV3Plus)
    return found.eval()


@pytest.mark.parametrize("at_points", [True, False])
def test_the_loss_is_the_reference_s(images, network, at_points):
    labels = labels_of(images, 7)
    masks = sparse_masks(images, labels)
    pixels = torch.cat([reference.as_tensor(images.image(i)) for i in range(4)])
    ours = point_loss(network, Batch(pixels, *points_of(masks)), at_points)
    wanted = reference.loss(reference.plain(network), pixels, torch.from_numpy(masks))
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


def test_the_utilities_are_the_reference_s(images, network):
    prediction = predict(network, [images.image(0)], None, CPU, torch.float32)
    best, second = prediction.top2()
    wanted = reference.margin_map(reference.plain(network), images.image(0))
    np.testing.assert_allclose((second - best)[0].numpy(), wanted, atol=1e-5)


def test_the_confusion_matrix_is_the_reference_s(images, network):
    decoded = DecodedImages(images, CLASSES, 10**8, workers=0)
    ours = confusion_matrix(
        network, decoded, CLASSES, size=None, batch_size=3, device=CPU, precision=torch.float32, workers=0
    )
    arrays, masks = [images.image(i) for i in range(4)], [images.mask(i) for i in range(4)]
    wanted = reference.evaluate(reference.plain(network), arrays, masks, len(CLASSES))
    assert abs(ours - wanted).sum() <= 4, "all but ties"


@pytest.mark.parametrize("epoch", range(8))
def test_the_augmented_images_are_the_reference_s(images, epoch):
    """A batch of all images, in another order: each is one of the reference's."""
    labels, decoded = labels_of(images, 7), DecodedImages(images, CLASSES, 10**8, workers=0)
    material = Material(images, labels, sparse_masks(images, labels), batch_size=4, pixels=7)
    (ours,) = batches(material, decoded).epoch(epoch)
    draws = draws_of(0, 0, epoch, decoded.keys)
    arrays = [decoded.image(i) for i in range(4)]
    (wanted,) = reference_augmented(arrays, draws, decoded.sizes[0], Augmentation(), material)
    differences = (ours.images[:, None] - wanted).abs().amax((2, 3, 4))  # [ours, theirs]
    assert sorted(differences.argmin(1).tolist()) == [0, 1, 2, 3]
    assert differences.amin(1).max() < 1e-4


@pytest.mark.parametrize("epoch", range(8))
def test_the_augmented_masks_are_the_nearest_labels(images, epoch):
    """The reference's resized masks hold the labels that alseg's `augment.labels=nearest` has."""
    labels = labels_of(images, 7)
    masks = torch.from_numpy(sparse_masks(images, labels))
    draws = draws_of(0, 0, epoch, [images.key(i) for i in range(4)])
    for mask, drawn in zip(masks, draws, strict=True):
        geometry = draw_geometry(drawn, mask.shape, (40, 56), (0.5, 2.0), 0.5, base=(66, 98))
        moved = reference.augmented_mask(mask, geometry)
        pixels = (mask != reference.VOID).nonzero().numpy()
        places, owners = geometry.nearest(pixels)
        wanted = np.full((40, 56), reference.VOID)
        rows, columns = np.floor(places).astype(int).T
        wanted[rows, columns] = mask[tuple(pixels[owners].T)]
        assert (moved.numpy() == wanted).all()


def test_counted_operations_are_those_of_the_convolutions(network):
    """By hooks on every convolution, which know nothing of torch's counter."""
    total = 0

    def count(module, arguments, result):
        nonlocal total
        total += 2 * result.numel() * module.weight[0].numel()

    plain = reference.plain(network)
    hooks = [m.register_forward_hook(count) for m in plain.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        reference.full_size_logits(plain, torch.zeros(2, 3, 64, 96))
    for hook in hooks:
        hook.remove()
    at_points, dense, seen, by_winograd, dense_by_winograd = counts(SMALL, batch_size=2, pixels=3, size=(64, 96))
    assert at_points["reference"] == dense["reference"] == pytest.approx(total / 1e9)
    assert seen["reference"] == pytest.approx(total / 2e9)
    assert dense["ratio"] > 1 < at_points["ratio"]
    assert by_winograd["alseg"] < seen["alseg"] < seen["reference"]
    spared = seen["alseg"] - by_winograd["alseg"]  # of an image
    assert dense["alseg"] - dense_by_winograd["alseg"] == pytest.approx(2 * spared)
    assert dense_by_winograd["reference"] == dense["reference"]


@pytest.mark.slow
def test_accuracies_are_compared_by_way_and_gone_on_with(tmp_path):
    data = write_camvid(tmp_path / "camvid", train=4, val=2)
    results, root = tmp_path / "results.json", Path(__file__).parent.parent
    words = ["--data", data, "--weights", "none", "--encoder", SMALL, "--size", "48x64", "--epochs", 2, "--batch", 4]
    command = [sys.executable, "-m", "benchmarks.accuracy", *map(str, words), "--results", str(results)]
    for seeds, jobs in ((1, 1), (3, 2)):
        done = subprocess.run(
            [*command, "--seeds", str(seeds), "--jobs", str(jobs)], cwd=root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        rows = json.loads(results.read_text())
        assert [row["seed"] for row in rows] == list(range(seeds))
    for row in rows:
        for way in WAYS:
            assert 0 <= row[way]["miou"] <= 1 and 0 <= row[way]["pixel_accuracy"] <= 1 and row[way]["val_loss"] > 0
    means = {way: np.mean([row[way]["miou"] for row in rows]) for way in WAYS}
    for way in WAYS:
        assert f"| {way} | {means[way]:.4f} |" in done.stdout
    assert f"| alseg - reference | miou | {means['alseg'] - means['reference']:+.4f} |" in done.stdout


def test_a_lossy_copy_of_camvid_is_read_and_told(tmp_path):
    data = write_camvid(tmp_path / "camvid", train=3)
    assert not is_lossy(data)
    for file in sorted((data / "train").iterdir()):
        Image.open(file).save(file.with_suffix(".webp"), quality=90)
        file.unlink()
    assert is_lossy(data)
    found = camvid(data, 2)
    assert len(found) == 2 and found.image(0).shape == (64, 64, 3) and found.mask(1) is not None
    assert len(CamVid(data).images("train")) == 3 and CamVid(data).images("train").mask(0) is not None


def test_the_reference_picks_among_the_most_uncertain(network, images):
    free = [np.ones((66, 98), bool)]
    (picked,) = reference.acquire(network, [images.image(0)], free, 5, np.random.default_rng(0))
    utility = reference.margin_map(network, images.image(0)).ravel()
    assert len(set(picked.tolist())) == 5
    assert (utility[picked] >= np.sort(utility)[-int(np.ceil(0.05 * utility.size))]).all()


@pytest.mark.slow
def test_the_benchmarks_print_a_table_and_write_a_list(tmp_path):
    words = ["--size", "64x96", "--images", "4", "--repeats", "3", "--encoder", SMALL]
    words += ["--json", str(tmp_path / "out.json")]
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {"training-step", "augmentation", "acquisition", "evaluation"} <= {row["name"] for row in rows}
    for row in rows:
        assert row["ratio"] == pytest.approx(row["reference_seconds"] / row["alseg_seconds"])
        assert row["name"] in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--repeats 0", "argument --repeats: 0 is less than 1"),
        ("--images 0", "argument --images: 0 is less than 2"),
        ("--batch 1", "argument --batch: 1 is less than 2"),
        ("--pixels 0", "argument --pixels: 0 is less than 1"),
        ("--pixels two", "argument --pixels: invalid"),
        ("--size 32", "argument --size: invalid size value: '32'"),
        ("--size 32x0", "argument --size: 0 is less than 1"),
        ("--batch 400", "A batch of 400 takes as many images, and there are 2."),
        ("--pixels 7000", "The image 000 has 6144 pixels of a class, and --pixels is 7000."),
        ("--device bogus", "device takes auto, cpu or cuda, not 'bogus'."),
        ("--precision x", "argument --precision: invalid choice: 'x'"),
        ("--data /nonexistent", "Cannot read the folder /nonexistent/train"),
        ("--encoder nope", "timm has no encoder 'nope'"),
        ("--peak nope:alseg", "--peak takes a row of the table and reference or alseg"),
        ("--json /nonexistent/x.json", "argument --json: cannot write /nonexistent/x.json: No such file or directory"),
    ],
)
def test_what_the_benchmarks_cannot_do_is_one_sentence(words, said, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.__main__.measured", None)  # nothing is measured before
    small = ["--images", "2", "--batch", "2", "--size", "64x96", "--encoder", SMALL]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *small, *words.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    last = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2 and last.startswith(f"python -m benchmarks: error: {said}")


def test_memory_that_cannot_be_measured_is_an_empty_cell(images, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parent.parent)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--batch", "1"])
    memory = {"reference_peak_mb": peak("decoding", "reference"), "alseg_peak_mb": 3.0}
    assert memory["reference_peak_mb"] is None
    row = {"name": "decoding", "unit": "image", "reference_seconds": 2.0, "alseg_seconds": 1.0, "ratio": 2.0}
    show([row | memory], Material(images, labels_of(images, 1), np.zeros(0), batch_size=2, pixels=1))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("decoding"))
    assert line.split() == ["decoding,", "image", "2", "1", "2.00", "1"]


def test_a_power_calculation_is_what_simulation_finds():
    random, deviation = np.random.default_rng(0), 0.015
    count = seeds_needed(deviation)
    assert isinstance(count, int)

    def shown(pairs: int) -> float:
        found = [interval(random.normal(0, deviation, pairs)) for _ in range(2000)]
        return float(np.mean([low > -MARGIN and high < MARGIN for low, high in found]))

    assert shown(count) > 0.86
    assert shown(count - 2) < 0.9


def test_both_ways_train_on_the_same_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(deeplab, "PATCH_COST", deeplab.PATCH_COST)  # which is set
    settings = {"encoder": SMALL, "weights": "none"}
    settings = {f"model.{name}": value for name, value in settings.items()} | {"model.channels": 8, "device": "cpu"}
    settings |= {"dataset": "camvid", "dataset.data": str(write_camvid(tmp_path / "camvid")), "size": "64x64"}
    settings |= {"train.epochs": 1, "rounds": 2, "report": False}
    found, last = both_ways(settings, 0, 0), both_ways(settings, 1, 0)
    assert len(found["points"]) == len(found["dense"]) == 2
    assert last["points"][0] is last["dense"][0] is None
    for way in ("points", "dense"):
        assert {**last[way][1], "train_seconds": 0} == {**found[way][1], "train_seconds": 0}
    assert found["points"][1]["val_loss"] != found["dense"][1]["val_loss"]
    text = verdict([found, found, last])
    assert text.count("| 10 random |") == text.count("| 100, ") == 3
    assert text.count("| 2 |") >= 3 and text.count("| 3 |") >= 3
    assert "10 random" not in verdict([last, last])
