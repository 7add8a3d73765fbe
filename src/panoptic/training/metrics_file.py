"""The logger that writes `metrics.csv`, row by row, and that a resumed run goes on with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only


class MetricsFile(Logger):
    """One row per call, written at once, so that a killed run keeps its rows.

    Lightning's CSVLogger deletes a file that it finds, and is not safe while it adds a column.

    Args:
        save_dir: folder of `metrics.csv`.
        rows: of those in an existing file so many are kept; a resumed run writes the others again.
    """

    def __init__(self, save_dir: str | Path, *, rows: int = 0) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._rows = 0
        self._keep = rows
        self._is_open = False

    @property
    def name(self) -> str:
        """Nothing: the run's folder is the name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the run's folder is the version."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.path.parent)

    @property
    def num_rows(self) -> int:
        """Rows under the header, in the first process."""
        self._open()
        return self._rows

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; a new column goes into the header by a new file in the place of the old one."""
        self._open()
        row = {**metrics, "step": step}
        if set(row) - set(self._columns):
            self._rewrite(sorted({*self._columns, *row}), self._read())
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)
        self._rows += 1

    def _open(self) -> None:
        """Cut an existing file to the rows that are kept, once."""
        if self._is_open:
            return
        self._is_open = True
        kept = self._read()[: self._keep]
        if len(kept) < self._keep:
            raise ValueError(
                f"expected at least {self._keep} rows in {self.path}, got {len(kept)}: the checkpoint knows of more; "
                "put the file back, or train anew in another run="
            )
        if self.path.is_file():
            self._rewrite(self._columns, kept)
        self._rows = len(kept)

    def _read(self) -> list[dict[str, str]]:
        """All whole rows; of a killed run the last one may lack its end."""
        if not self.path.is_file():
            return []
        text = self.path.read_text()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        self._columns = list(reader.fieldnames or [])
        return list(reader)

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        part = self.path.with_name("metrics.csv.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)
        self._columns = columns
