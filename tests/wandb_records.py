"""Reading what a W&B run has written on this machine: records in LevelDB's log format."""

import struct

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, type
FULL, LAST = 1, 4


def read_records(path):
    """The records of a .wandb file."""
    data = path.read_bytes()
    position, parts = HEADER.size, b""  # the file begins with a header of its own, as long as that of a record
    while position + HEADER.size <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:
            position += left
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        parts += data[position : position + length]
        position += length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
