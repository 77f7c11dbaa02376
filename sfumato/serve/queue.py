"""Who is next: a bounded queue in which clients take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

WAITING = 256  # jobs of all clients
EACH = 64  # jobs of one client, so that nobody fills the queue alone


class Full(Exception):
    """There is no place; `seconds` is when to ask again."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = max(1, min(600, round(seconds)))


class Queue:
    """Jobs by client, each client's oldest first, the clients in turn. Of one thread."""

    def __init__(self, waiting: int = WAITING, each: int = EACH) -> None:
        self.waiting, self.each = waiting, each
        self._lines: OrderedDict[str, deque[str]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        """The jobs in the order in which they will be taken."""
        lines = [deque(line) for line in self._lines.values()]
        while lines:
            yield from [line.popleft() for line in lines]
            lines = [line for line in lines if line]

    def check(self, client: str, service: float) -> None:
        """Raises Full when this client may not add a job; `service` is the mean number of seconds per job."""
        if self._size >= self.waiting:
            raise Full(f"{self._size} jobs wait already", service * self._size / 4)
        mine = len(self._lines.get(client, ()))
        if mine >= self.each:
            raise Full(f"{mine} jobs of yours wait already", service * mine)

    def add(self, job: str, client: str) -> None:
        self._lines.setdefault(client, deque()).append(job)
        self._size += 1

    def take(self) -> str:
        """The next job; its client goes to the end of the line. Raises IndexError when nothing waits."""
        if not self._lines:
            raise IndexError("nothing waits")
        client, line = self._lines.popitem(last=False)
        job = line.popleft()
        if line:
            self._lines[client] = line
        self._size -= 1
        return job

    def put_back(self, job: str, client: str) -> None:
        """What was taken last and cannot begin yet: it is next again."""
        self._lines.setdefault(client, deque()).appendleft(job)
        self._lines.move_to_end(client, last=False)
        self._size += 1

    def drop(self, job: str) -> bool:
        """Leave a job out; False when it does not wait."""
        for client, line in self._lines.items():
            if job in line:
                line.remove(job)
                self._size -= 1
                if not line:
                    del self._lines[client]
                return True
        return False

    def position(self, job: str) -> int | None:
        """How many jobs are before this one; None when it does not wait."""
        return next((k for k, other in enumerate(self) if other == job), None)
