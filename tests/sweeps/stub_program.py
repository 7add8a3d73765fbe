"""A program for sweeps to start: `stub_program.py key=value ..`, which writes a metrics.csv as told.

x: val_pq of every epoch is x + epoch. epochs, seconds: how many there are and how long each takes. end: "well",
"crash", "silent" (no metrics), "deaf" (ignores SIGTERM). long: an x whose epochs take 4 s.
It fails where another process of the same x and seed runs.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

values = {"seed": "0", "epochs": "1", "seconds": "0.05", "end": "well", "long": "-"} | dict(
    word.split("=") for word in sys.argv[1:]
)
run = Path(os.environ["PANOPTIC_TRIAL_RUN"])
locks = run.parents[2] / "locks"
locks.mkdir(exist_ok=True)
lock = (locks / f"{values['x']}-{values['seed']}").open("w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: a trial runs twice at once
if values["end"] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
run.mkdir()
(run / "environment.json").write_text(json.dumps(dict(os.environ)))
if values["end"] != "silent":
    with (run / "metrics.csv").open("w") as file:
        print("epoch,train_loss,val_pq,val_pc", file=file, flush=True)
        for epoch in range(int(values["epochs"])):
            time.sleep(4.0 if values["x"] == values["long"] else float(values["seconds"]))
            print(f"{epoch},0.5,,", file=file, flush=True)
            print(f"{epoch},,{float(values['x']) + epoch},{10 * float(values['x'])}", file=file, flush=True)
if values["end"] == "crash":
    raise RuntimeError(f"stub crashed at {run} with x={values['x']}")
