"""What a run tells of itself, as it comes."""

import json
import os
from pathlib import Path
from typing import Any


def event_line(event: dict[str, Any]) -> str:
    """An event as a line for a person; "" for one that tells a person nothing."""
    if "stage" in event:
        return f"{event['stage']} ..."
    if event["kind"] == "train":
        return f"step {event['step']:5}  loss {event['loss']:.4f}  {event['tokens_per_second']:.0f} tokens/s"
    if event["kind"] == "gates":
        gates = " ".join(f"{gate:.2f}" for gate in event["mean_gate"])
        return f"            gates {gates}  entropy {event['entropy']:.2f}"
    if event["kind"] == "eval":
        return f"held out ({event['split']}): loss {event['loss']:.4f}, exact match {event['exact_match']:.1%}"
    return str(event.get("message", ""))


class EventTail:
    """A run's events; each look reads only what is new, and all of it where the file was written anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._read = -1, 0
        self._events: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """All events so far; the list stays the caller's to read, not to change."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read:
                    self._inode, self._read, self._events = status.st_ino, 0, []
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")  # a last line may still be being written
        except FileNotFoundError:
            return []
        self._read += len(whole) + len(newline)
        self._events = self._events + [json.loads(line) for line in whole.splitlines() if line]
        return self._events
