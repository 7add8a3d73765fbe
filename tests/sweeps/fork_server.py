"""`fork_server.py SOCKET`: runs the commands that forked/panoptic asks for, each in a fork of this process.

Importing takes longer than a tiny training. Here it is done once; all else is the command's own code in a process of
its own. A trial is identified by its folder: what is left of its last attempt ends before the next one begins.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback

import panoptic.train  # noqa: F401  this is what takes long
from panoptic.__main__ import main
from panoptic.assembly import build_data, build_module, try_out
from panoptic.configuration import load_config, resolved
from panoptic.sweeps.trial_process import FOLDER_VARIABLE


class ForkServer:
    """Answers one request after the other; a request has the process id as its first answer, the status as its second.

    Args:
        path: of the socket.
    """

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.running = {}  # {trial's folder: (process id, its file, connection)}

    def serve(self):
        """Until this process is killed."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj in self.selector.get_map():  # an earlier event of this round may have ended it
                    key.data()

    def accept(self):
        """Fork for a request."""
        connection, _ = self.listener.accept()
        _, files, _, _ = socket.recv_fds(connection, 1, 2)
        line = connection.makefile().readline()
        if not line:  # killed while it asked
            return
        request = json.loads(line)
        trial = request["environment"][FOLDER_VARIABLE]
        self.end(trial)
        process = os.fork()
        if process == 0:
            _run(request, files)
        for file in files:
            os.close(file)
        handle = os.pidfd_open(process)
        self.running[trial] = process, handle, connection
        connection.sendall(f"{process}\n".encode())
        self.selector.register(handle, selectors.EVENT_READ, lambda: self.end(trial))
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.end(trial))  # it was killed

    def end(self, trial):
        """End what runs for a trial, if anything does, and answer with its status."""
        if trial not in self.running:
            return
        process, handle, connection = self.running.pop(trial)
        for item in (handle, connection):
            self.selector.unregister(item)
        signal.pidfd_send_signal(handle, signal.SIGKILL)  # nothing if it has ended
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.close(handle)
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
        connection.close()


def _run(request, files):
    """The command, in the fork."""
    status = 1
    try:
        for target, file in zip((1, 2), files, strict=True):
            os.dup2(file, target)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv = ["panoptic", *request["arguments"]]
        status = main(request["arguments"])
    except BaseException:  # noqa: BLE001  whatever it is, the fork must not go on as a server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _prepare():
    """Import parts by building them, and load compiled functions by using them; no thread is started by that."""
    config = resolved(load_config("train", ["experiment=deeperlab_scenes"]))
    try_out(build_module(config, build_data(config)))
    gc.freeze()


if __name__ == "__main__":
    _prepare()
    ForkServer(sys.argv[1]).serve()
