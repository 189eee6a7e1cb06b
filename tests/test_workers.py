"""A process that does a comparison's jobs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict

from alseg.compare.jobs import Job

READS = """\
import subprocess, sys
print(len(subprocess.run(["cat"], stdout=subprocess.PIPE).stdout) + len(sys.stdin.read()), "letters read")
"""


def test_what_a_plugin_reads_is_no_order(tmp_path):
    plugin, log = tmp_path / "reads.py", tmp_path / "log"
    plugin.write_text(READS)
    job = Job("one", str(tmp_path / "run"), {"dataset": "nowhere"}, plugins=[str(plugin)])
    order = json.dumps({"job": asdict(job), "log": str(log)}) + "\n"
    command = [sys.executable, "-m", "alseg.compare.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        timer = threading.Timer(60, worker.kill)
        timer.start()
        worker.stdin.write(2 * order)
        worker.stdin.flush()
        answers = [worker.stdout.readline() for _ in range(2)]
        assert all("nowhere" in json.loads(answer)["error"] for answer in answers)
        timer.cancel()
        worker.kill()
    assert log.read_text().count("0 letters read") == 2
