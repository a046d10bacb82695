"""The newest request of each kind in a session; only that one may fill the page."""

import threading
from collections import OrderedDict
from collections.abc import Callable

KEPT_REQUESTS = 1000


class Sessions:
    """The newest request of every kind in every session."""

    def __init__(self) -> None:
        self._newest: OrderedDict[tuple[str, str], tuple[int, str | None]] = OrderedDict()
        self._lock = threading.Lock()

    def newest(self, session: str, kind: str, run_id: str | None = None) -> Callable[[], bool]:
        """Register a request. The returned function says whether it is still the newest of its kind in the session.

        Args:
            run_id: the run concerned, for `switch_to`.
        """
        with self._lock:
            request = self._newest.pop((session, kind), (0, None))[0] + 1, run_id
            self._newest[session, kind] = request
            while len(self._newest) > KEPT_REQUESTS:
                self._newest.popitem(last=False)
        return lambda: self._newest.get((session, kind), request) == request

    def switch_to(self, session: str, kind: str, run_id: str | None) -> bool:
        """Switch to a run, which supersedes all earlier requests of the kind. Returns False, and does nothing, if the
        newest request already concerns that run: a page may report its choice late."""
        if run_id is not None and self._newest.get((session, kind), (0, None))[1] == run_id:
            return False
        self.newest(session, kind, run_id)
        return True
