"""The newest request of each kind in a session; only that one may fill the page."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEPT_REQUESTS = 1000


@dataclass(frozen=True, eq=False)
class _Request:
    arrived: int
    run_id: str | None


class Sessions:
    """The newest request of every kind in every session.

    Newest is what a person caused last. Threads may begin two requests in another order than they arrived in, so each
    brings the time of its arrival: `time.monotonic_ns()`, by default now.
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[tuple[str, str], _Request] = OrderedDict()
        self._lock = threading.Lock()

    def newest(
        self, session: str, kind: str, run_id: str | None = None, arrived: int | None = None
    ) -> Callable[[], bool]:
        """Register a request. The returned function says whether it is still the newest of its kind in the session.

        Args:
            run_id: the run concerned, for `switch_to`.
        """
        request = _Request(time.monotonic_ns() if arrived is None else arrived, run_id)
        with self._lock:
            before = self._newest.get((session, kind))
            if before and before.arrived > request.arrived:
                return lambda: False
            self._newest[session, kind] = request
            self._newest.move_to_end((session, kind))
            while len(self._newest) > KEPT_REQUESTS:
                self._newest.popitem(last=False)
        return lambda: self._newest.get((session, kind), request) is request

    def switch_to(self, session: str, kind: str, run_id: str | None, arrived: int | None = None) -> bool:
        """Switch to a run, which supersedes all earlier requests of the kind. Returns False, and does nothing, if the
        newest request already concerns that run, as a page may report its choice late, or arrived later."""
        newest = self._newest.get((session, kind))
        if run_id is not None and newest and newest.run_id == run_id:
            return False
        return self.newest(session, kind, run_id, arrived)()
