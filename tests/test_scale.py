"""Large journals and large pools."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from alseg.journal import Journal, as_events, fold
from alseg.values import Answer

pytestmark = pytest.mark.slow
SLOWNESS = float(os.environ.get("ALSEG_TEST_SLOWNESS", "1"))

# Peak memory in MB after asking a pixel of each of so many images of 32 x 32, none of them kept.
POOL = """
import resource, sys
import numpy as np, torch
from alseg.engine.acquire import Pool, ask_model
from alseg.engine.images import DecodedImages
from alseg.plugins import load_plugins
from alseg.values import Classes, PixelLabels

COUNT, CLASSES, CPU = int(sys.argv[1]), Classes(("a", "b", "c"), 255), torch.device("cpu")

class Many:
    def __len__(self):
        return COUNT
    def key(self, i):
        return str(i)
    def image(self, i):
        return np.full((32, 32, 3), i % 256, np.uint8)
    def mask(self, i):
        return None

class Point(torch.nn.Conv2d):
    def encode(self, images):
        return images
    def decode(self, features):
        return self(features)
    def parameter_groups(self):
        return {"encoder": [], "decoder": list(self.parameters())}

registry = load_plugins(third_party=False)
margin, selector = registry.find("acquirer", "margin"), registry.find("selector", "topk-then-uniform")
images = DecodedImages(Many(), CLASSES, 0, workers=0)
pool = Pool(images, CLASSES, PixelLabels(), skip_void=False, seed=0, round=1, device=CPU, batch_size=16)
pieces = margin.build({}), selector.build(selector.resolve({}))
asked = ask_model(pool, 1, Point(3, 3, 1), *pieces, CLASSES, size=None, device=CPU, precision=torch.float32)
assert [len(questions) for questions in asked] == [1] * COUNT
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_a_journal_of_a_million_lines_loads_in_five_seconds(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(as_events([Answer(f"r00-{i:07}", "road", "me", 1.25) for i in range(10**6)]))
    started = time.perf_counter()
    state = fold(journal.events())
    assert time.perf_counter() - started < 5 * SLOWNESS
    assert len(state) == 10**6
    started = time.perf_counter()
    journal.append(as_events([Answer("one more", "road", "me", 1.0)]))
    assert time.perf_counter() - started < 0.1 * SLOWNESS, "a key press waits for this"


def test_a_pool_of_a_hundred_thousand_images_needs_little_more_than_one_of_a_thousand():
    few, many = (
        float(subprocess.run([sys.executable, "-c", POOL, count], capture_output=True, text=True, check=True).stdout)
        for count in ("1000", "100000")
    )
    # the images alone would be 300 MB; names, sizes, digests and questions are 1 kB each
    assert many - few < 130
