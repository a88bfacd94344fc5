"""Starts again at once what has ended, as systemd or Kubernetes does; and remembers what ended by itself."""

from __future__ import annotations

import threading
import time

from tests.platform import Process


class Supervisor:
    """Watches processes from a thread of its own."""

    def __init__(self, processes: list[Process]) -> None:
        self.ended: list[str] = []
        """What ended though nobody had killed it."""
        self._processes = processes
        self._doomed: set[int] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(5)

    def kill(self, process: Process) -> None:
        """kill -9, in the middle of whatever it does; returns once it runs again."""
        with self._lock:
            assert process.process is not None
            pid = process.process.pid
            self._doomed.add(pid)
            process.kill()
        while process.process.pid == pid:
            time.sleep(0.02)

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            for process in self._processes:
                with self._lock:
                    if process.process is None or process.process.poll() is None:
                        continue
                    if process.process.pid not in self._doomed:
                        tail = process.said()[-3000:]
                        self.ended.append(f"{process.name} ended with {process.process.returncode}:\n{tail}")
                    process.start()
