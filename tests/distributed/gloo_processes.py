"""Processes that meet over gloo, kept through the tests because starting them takes most of the time."""

import os
import pickle
import tempfile
import traceback
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context

import torch
import torch.distributed as dist

MEETING_SECONDS = 60
"""How long a process waits for the others before it gives up."""


class GlooProcesses:
    """Runs a function in N processes that form one group, and gives back what each of them returned.

    Args:
        limit: processes to keep; N may be anything up to it.
    """

    def __init__(self, limit):
        self.limit = limit
        self.workers = []

    def run(self, num_processes, function, *arguments):
        """[what `function(*arguments)` returned, by rank]; all of it has to be picklable."""
        if not self.workers:
            self.workers = [_start() for _ in range(self.limit)]
        chosen = self.workers[:num_processes]
        with tempfile.TemporaryDirectory() as folder:
            for rank, (_, connection) in enumerate(chosen):
                connection.send_bytes(pickle.dumps((rank, num_processes, folder, function, arguments)))
            answers = [pickle.loads(connection.recv_bytes()) for _, connection in chosen]
        failed = [answer for worked, answer in answers if not worked]
        if failed:
            self.close()
            raise RuntimeError("\n".join(failed))
        return [answer for _, answer in answers]

    def close(self):
        """End the processes."""
        for process, connection in self.workers:
            connection.close()
            process.kill()
        self.workers = []


def _start():
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _work(connection):
    """Answer until the other end is closed."""
    torch.set_num_threads(1)
    while True:
        try:
            rank, num_processes, folder, function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            with _group(rank, num_processes, folder):
                answer = True, function(*arguments)
        except Exception:  # noqa: BLE001, the other side raises it
            answer = False, f"rank {rank}: {traceback.format_exc()}"
        connection.send_bytes(pickle.dumps(answer))


@contextmanager
def _group(rank, num_processes, folder):
    """A group of its own for every call, with the environment that torchrun gives its processes."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(num_processes), LOCAL_WORLD_SIZE=str(num_processes)
    )
    os.environ.update(GROUP_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0", TORCHELASTIC_RUN_ID="tests")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=num_processes,
        timeout=timedelta(seconds=MEETING_SECONDS),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
