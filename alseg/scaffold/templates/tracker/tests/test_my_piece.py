"""The tracker keeps alseg's contract, and writes a line a round."""

import csv

from alseg.testing import check_tracker, tiny_run

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_tracker(my_piece)


def test_it_writes_a_line_a_round(tmp_path):
    run = tiny_run(tmp_path / "run")
    tracker = my_piece(file="curve.csv")
    records = [{"round": number, "pixels_per_image": 2.0 * number, "miou": 0.5} for number in (1, 2)]
    tracker.run_started(folder=str(run), settings={})
    for record in records:
        tracker.round_finished(folder=str(run), record=record)
    tracker.run_finished(folder=str(run), records=records)
    with (run / "curve.csv").open() as file:
        assert list(csv.reader(file)) == [["1", "2.0", "0.5"], ["2", "4.0", "0.5"]]
