"""The lists of a pre-trained base: which photos it was trained on, and what was kept unseen for which comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmia.specs import RequestError, UnknownName

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures

LISTS = "lists.parquet"
OF_ANYBODY = ("trained", "unseen_photo", "unseen_person")
"""The lists whose people have no name in their captions."""


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


def listed_pictures(name: str, list_name: str, count: int) -> "Pictures":
    """Some pictures of a list of a model that comes with lmia, drawn anew, spread over the whole list.

    Args:
        name: the model, such as `tiny`.
        list_name: trained, unseen_photo or unseen_person.
        count: how many, at most.
    """
    import json

    from lmia.data.pictures import Pictures
    from lmia.data.sources import SOURCES
    from lmia.embedded import embedded

    folder = embedded(name)
    rows = read_lists(folder)
    if list_name not in OF_ANYBODY:
        raise UnknownName("list of pictures", list_name, OF_ANYBODY)
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    source = SOURCES.get("population")
    spec = source.Spec(**{"size": recipe["architecture"]["size"], **recipe["population"]})
    chosen = rows[list_name][:: -(-len(rows[list_name]) // count)]
    return Pictures.concat(
        [
            source.pictures(spec, row["source"], list_name, [row["identity"]], [int(row["id"].rpartition("/")[2])])
            for row in chosen
        ]
    )


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
