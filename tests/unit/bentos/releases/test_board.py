"""Notes between processes: only those of living ones count."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bentos.releases import board as module
from bentos.releases.board import Board

POSTER = """
import sys, time
from pathlib import Path
from bentos.releases.board import Board
Board(Path(sys.argv[1])).post("runner", {"ready": ["1"]}); print("posted", flush=True); time.sleep(60)
"""


def test_a_note_is_replaced_whole(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    assert board.notes("runner") == []
    for number in range(3):
        board.post("runner", {"ready": [number]})
        assert Board(tmp_path / "board").notes("runner") == [{"ready": [number]}]
    board.close()
    assert board.notes("runner") == []


def test_the_note_of_a_killed_process_counts_no_more_and_is_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(tmp_path)
    with subprocess.Popen([sys.executable, "-c", POSTER, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"posted\n"
        assert board.notes("runner") == [{"ready": ["1"]}]
        other.kill()
        other.wait()
    assert board.notes("runner") == []
    assert len(list(tmp_path.glob("runner.*"))) == 1
    monkeypatch.setattr(module, "ABANDONED_S", 0.0)
    time.sleep(0.01)
    assert board.notes("runner") == []
    assert not list(tmp_path.glob("runner.*"))


def test_a_claim_is_granted_once(tmp_path: Path) -> None:
    one, other = Board(tmp_path), Board(tmp_path)
    assert one.claim("swap-13")
    assert not other.claim("swap-13")
    assert other.claim("swap-14")


def test_a_note_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(tmp_path)
    board.post("runner", {"ready": ["1"]})

    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        board.post("runner", {"ready": ["2"]})
    assert board.notes("runner") == [{"ready": ["1"]}]
    assert list(tmp_path.glob(".*")) == []
