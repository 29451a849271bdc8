"""The lists of a pre-trained base: which photos it was trained on, and what was kept unseen for which comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures

LISTS = "lists.parquet"


class Listed(NamedTuple):
    """The base model's pictures: one entry per photo, the same order in all fields."""

    lists: list[str]
    """trained, unseen_photo, unseen_person, domain_trained or domain_unseen."""
    domain: list[str | None]
    """The domain's name (the person's), null outside of domains."""
    pictures: "Pictures"

    def of(self, *names: str) -> np.ndarray:
        """Positions of the photos in some lists."""
        return np.flatnonzero([name in names for name in self.lists])


def write_lists(listed: Listed, path: Path) -> None:
    """The lists as Parquet: list, domain, id, identity, source, caption; the pictures follow from id and recipe."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = listed.pictures.table.select(["id", "identity", "source", "caption"])
    table = table.add_column(0, "domain", pa.array(listed.domain, pa.string()))
    table = table.add_column(0, "list", pa.array(listed.lists, pa.string()))
    pq.write_table(table, path, compression="zstd")


def read_lists(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The lists of a pre-trained base: list name -> rows with domain, id, identity, source, caption."""
    import pyarrow.parquet as pq

    path = folder / LISTS
    if not path.is_file():
        raise RequestError(f"base = {str(folder)!r}: it has no {LISTS}, so what it was trained on is not known")
    lists: dict[str, list[dict[str, str]]] = {}
    for row in pq.read_table(path).to_pylist():
        lists.setdefault(row.pop("list"), []).append(row)
    return lists
