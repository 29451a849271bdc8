"""Reading a file of scores: Parquet, CSV or TSV with `score` and `member`, checked cell by cell.

A mistake is a RequestError that names file, column and row. Rows are counted from 1; a header is not a row.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmia.specs import RequestError, UnknownName

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".pq", ".csv", ".tsv")
TRUE, FALSE = {"1", "1.0", "true"}, {"0", "0.0", "false"}


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """The columns of a file of scores, N rows.

    Attributes:
        path: Where it was read from, for messages.
        scores: float64 [N], finite.
        member: bool [N].
        ids: Picture names; None if the file has no such column.
        identity: Persons, None where the cell is empty; None if the file has no such column.
        labels: Column -> one value a row: `split`, `seed` and the columns to group by, as far as the file has them.
    """

    path: str
    scores: np.ndarray
    member: np.ndarray
    ids: list[str] | None
    identity: list[str | None] | None
    labels: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.scores)


def read_scores(
    path: str | os.PathLike[str], *, by: Sequence[str] = (), positive: str = "member", lower_is_member: bool = False
) -> ScoreFile:
    """Reads and checks a file of scores.

    Args:
        path: .parquet, .csv or .tsv (the last two also .gz).
        by: Columns to group by; they must exist and have no empty cells.
        positive: The column that marks members (bool or 0/1), or COLUMN=VALUE: members are the rows with that value.
        lower_is_member: Scores are distances, lower for members; they are negated.
    """
    return scores_of(_table(Path(path)), os.fspath(path), by=by, positive=positive, lower_is_member=lower_is_member)


def scores_of(
    table: "pa.Table", name: str, *, by: Sequence[str] = (), positive: str = "member", lower_is_member: bool = False
) -> ScoreFile:
    """The checked scores of a table; see `read_scores`. `name` is what messages call it."""
    column, _, value = positive.partition("=")
    for wanted in ("score", column, *by):
        if wanted not in table.column_names:
            missing = UnknownName("column", wanted, table.column_names)
            raise RequestError(f"{name}: {missing}")
    if table.num_rows == 0:
        raise RequestError(f"{name}: no rows")
    ids = _texts(table, name, "id", empty=False) if "id" in table.column_names else None
    scores = _numbers(table, name, "score", ids)
    if "=" in positive:
        texts = _texts(table, name, column, empty=False)
        member = np.array([text == value for text in texts])
        if not member.any():
            raise RequestError(f"{name}: column {column!r}: no row has the value {value!r}")
    else:
        member = _flags(table, name, column)
    identity = _texts(table, name, "identity", empty=True) if "identity" in table.column_names else None
    labels = {c: _labels(table, name, c) for c in dict.fromkeys([*by, *({"split", "seed"} & set(table.column_names))])}
    return ScoreFile(name, -scores if lower_is_member else scores, member, ids, identity, labels)  # type: ignore[arg-type]


def where(path: str, column: str, row: int | None = None) -> str:
    """How a place in a file is named in a message; `row` counts from 0 here and from 1 in the message."""
    return f"{path}: column {column!r}" + ("" if row is None else f", row {row + 1}")


def _table(path: Path) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import parquet

    suffixes = [s.lower() for s in path.suffixes]
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes[-1] if suffixes else "")
    if kind not in SUFFIXES:
        raise RequestError(f"{path}: a file of scores ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    try:
        table = parquet.read_table(path) if kind in (".parquet", ".pq") else _delimited(path, kind)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    twice = sorted({c for c in table.column_names if table.column_names.count(c) > 1})
    if twice:
        raise RequestError(f"{path}: columns given twice: {', '.join(twice)}")
    return table


def _delimited(path: Path, kind: str) -> "pa.Table":
    """All cells as text, so that what is wrong with one can be said of that one."""
    import pyarrow as pa
    from pyarrow import csv

    ragged: list[str] = []

    def refuse(row: "csv.InvalidRow") -> str:
        # Arrow counts the header; without threads the number is known.
        at = "" if row.number is None else f", row {row.number - 1}"
        ragged.append(f"{path}{at}: {row.actual_columns} cells where the header has {row.expected_columns}")
        return "skip"

    parse = csv.ParseOptions(
        delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True, invalid_row_handler=refuse
    )
    read = csv.ReadOptions(use_threads=False)
    with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        names = reader.schema.names
    ragged.clear()
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    table = csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    if ragged:
        raise RequestError(ragged[0])
    return table


def _numbers(table: "pa.Table", path: str, column: str, ids: Sequence[str | None] | None) -> np.ndarray:
    import pyarrow as pa

    array = table[column]
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        _no_nulls(array, path, column)
        values = array.cast(pa.float64(), safe=False).to_numpy()
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        texts = array.to_pylist()
        try:
            values = np.array([float(text) for text in texts], dtype=np.float64)
        except (TypeError, ValueError):
            row = next(i for i, text in enumerate(texts) if not _is_number(text))
            raise RequestError(f"{where(path, column, row)}: {texts[row]!r} is not a number") from None
    else:
        raise RequestError(f"{where(path, column)}: {array.type}, numbers are needed")
    values = np.ascontiguousarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        row = int(bad[0])
        known = "" if ids is None else " at ids " + ", ".join(str(ids[i]) for i in bad[:5])
        raise RequestError(
            f"{where(path, column, row)}: {values[row]} is not a finite number ({bad.size} such cells{known})"
        )
    return values


def _flags(table: "pa.Table", path: str, column: str) -> np.ndarray:
    import pyarrow as pa

    array = table[column]
    _no_nulls(array, path, column)
    if pa.types.is_boolean(array.type):
        return array.to_numpy().astype(bool)
    cells = array.to_pylist()
    texts = [str(cell).strip().lower() for cell in cells]
    for row, text in enumerate(texts):
        if text not in TRUE and text not in FALSE:
            raise RequestError(f"{where(path, column, row)}: {cells[row]!r} is neither true/false nor 0/1")
    return np.array([text in TRUE for text in texts])


def _texts(table: "pa.Table", path: str, column: str, *, empty: bool) -> list[str | None]:
    cells = table[column].to_pylist()
    texts = [None if cell is None or cell == "" else str(cell) for cell in cells]
    if not empty and None in texts:
        raise RequestError(f"{where(path, column, texts.index(None))}: empty")
    return texts


def _labels(table: "pa.Table", path: str, column: str) -> list[Any]:
    import pyarrow as pa

    array = table[column]
    cells = array.to_pylist()
    for row, cell in enumerate(cells):
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            raise RequestError(f"{where(path, column, row)}: empty (every row belongs to a group)")
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        try:
            numbers = {cell: int(cell) for cell in set(cells)}
        except ValueError:
            return cells
        # A text file's seed 0 is the number that Parquet has; names such as "007" stay names.
        return [numbers[c] for c in cells] if all(str(n) == c for c, n in numbers.items()) else cells
    if pa.types.is_nested(array.type):
        raise RequestError(f"{where(path, column)}: {array.type} cannot be grouped by")
    return [cell if isinstance(cell, bool | int | float | str) else str(cell) for cell in cells]


def _no_nulls(array: "pa.ChunkedArray", path: str, column: str) -> None:
    if array.null_count:
        row = array.is_null().to_pylist().index(True)
        raise RequestError(f"{where(path, column, row)}: empty")


def _is_number(text: str | None) -> bool:
    try:
        float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
