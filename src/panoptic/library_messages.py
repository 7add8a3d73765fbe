"""Messages of libraries that would mislead a user of the commands, each with the reason why it is left out."""

from __future__ import annotations

import logging
import warnings

UNTRUE = (
    "Experiment logs directory .* exists and is not empty",  # a run folder is new: what lies there is its own record
    "You're resuming from a checkpoint that ended before the epoch ended",  # the data module keeps the position
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside Lightning
    r"It is recommended to use `self.log\('val_\w+', ..., sync_dist=True\)`",  # computed over all processes already
    r"The ``compute`` method of metric ImageMeans was called before the ``update``",  # a process without an image
    r"Found \d+ module\(s\) in eval mode at the start of training",  # batch norm with frozen statistics
    r"The '\w+_dataloader' does not have many workers",  # the number is the user's, and results do not depend on it
)
ADVERTISEMENT = "litlogger"
"""Occurs in Lightning's hint at a logger that is not installed."""


def leave_out_untrue_messages() -> None:
    """For the rest of this process."""
    for message in UNTRUE:
        warnings.filterwarnings("ignore", message=f".*{message}")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return ADVERTISEMENT not in record.getMessage()
