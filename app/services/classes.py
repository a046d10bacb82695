"""Classes: what a presenter shows to an audience now. They are kept in memory, for a day at most."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hydralora.errors import HydraError

MOST_CLASSES = 20
KEPT_SECONDS = 24 * 3600.0  # since the presenter last moved
MOST_VIEWERS = 300  # of one class
CODE_BYTES = 12


@dataclass(frozen=True)
class Shown:
    """What a presenter shows.

    Attributes:
        version: grows with every change.
        run: its id, "" for none.
        screen: the name of a screen of the run's lecture, "" for none.
        turn: ids of a conversation's answers by column; if there are any, they are shown instead of `screen`.
        token: the selected token of the answers, from 0.
        ended: whether the class is over.
    """

    version: int = 0
    run: str = ""
    screen: str = ""
    turn: Mapping[str, str] = field(default_factory=dict)
    token: int = 0
    ended: bool = False


@dataclass
class Class:
    """One class.

    Attributes:
        code: names it in the audience's address; it only lets people look.
        key: lets the presenter change what is shown.
        viewers: how many are connected.
    """

    code: str
    key: str
    shown: Shown
    touched: float
    viewers: int = 0


class Classes:
    """The classes of all presenters, under codes that can't be guessed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._classes: OrderedDict[str, Class] = OrderedDict()  # by code; the longest unused one first
        self._lock = threading.Lock()
        self._clock = clock

    def start(self) -> Class:
        """A new class. Beyond MOST_CLASSES, the one that was used longest ago ends."""
        started = Class(secrets.token_urlsafe(CODE_BYTES), secrets.token_urlsafe(CODE_BYTES), Shown(), self._clock())
        with self._lock:
            self._forget_old()
            self._classes[started.code] = started
            while len(self._classes) > MOST_CLASSES:
                self._end(next(iter(self._classes)))
        return started

    def get(self, code: str) -> Class:
        """The class with this code.

        Raises:
            HydraError: there is none, or it has ended.
        """
        with self._lock:
            self._forget_old()
            found = self._classes.get(code)
        if found is None:
            raise HydraError("This class has ended, or the address is wrong. Ask the presenter for a new one.")
        return found

    def show(self, code: str, key: str, shown: Shown) -> Shown:
        """Show something else; returns it with its version.

        Raises:
            HydraError: there is no such class, or the key is not its presenter's.
        """
        found = self._of_presenter(code, key)
        with self._lock:
            if replace(shown, version=found.shown.version) != found.shown:
                found.shown = replace(shown, version=found.shown.version + 1)
            found.touched = self._clock()
            if code in self._classes:
                self._classes.move_to_end(code)
        return found.shown

    def end(self, code: str, key: str) -> None:
        """End a class; its viewers are told.

        Raises:
            HydraError: there is no such class, or the key is not its presenter's.
        """
        self._of_presenter(code, key)
        with self._lock:
            self._end(code)

    def _of_presenter(self, code: str, key: str) -> Class:
        found = self.get(code)
        if not secrets.compare_digest(found.key.encode(), key.encode()):
            raise HydraError("Only the presenter of this class can change what it shows.")
        return found

    def _forget_old(self) -> None:
        now = self._clock()
        for code in [code for code, one in self._classes.items() if now - one.touched > KEPT_SECONDS]:
            self._end(code)

    def _end(self, code: str) -> None:
        ended = self._classes.pop(code, None)
        if ended:
            ended.shown = replace(ended.shown, version=ended.shown.version + 1, ended=True)
