"""The one table of pictures: drawn, real, watermarked and generated ones alike."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lmia.data.decoding import decode
from lmia.seeds import seed_of
from lmia.specs import RequestError

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("identity", pa.string()),
        pa.field("source", pa.string()),
        pa.field("part", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("image", pa.binary(), nullable=False),
    ]
)


class Pictures:
    """An immutable table of pictures with unique ids; images are PNG bytes, decoded once and kept."""

    def __init__(self, table: pa.Table):
        if not table.schema.equals(SCHEMA):
            raise ValueError(f"not a table of pictures: {table.schema.names} instead of {SCHEMA.names}")
        self.table = table
        self.ids: list[str] = table.column("id").to_pylist()
        self._row = {id_: row for row, id_ in enumerate(self.ids)}
        if len(self._row) != len(self.ids):
            twice = next(id_ for row, id_ in enumerate(self.ids) if self._row[id_] != row)
            raise RequestError(f"picture id {twice!r} occurs twice")
        self._decoded: dict[int | None, np.ndarray] = {}

    @classmethod
    def of(cls, ids: Sequence[str], images: np.ndarray, **columns: Sequence) -> "Pictures":
        """Pictures from arrays.

        Args:
            ids: unique names.
            images: uint8 [N, H, W, 3], RGB; stored without loss as PNG.
            **columns: identity, source, part, caption, prompt, seed, as far as they apply.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(ids):
            raise ValueError(f"expected {len(ids)} images as uint8 [N, H, W, 3], got {images.dtype} {images.shape}")
        made = cls.of_encoded(ids, [encode_png(image) for image in images], **columns)
        kept = images.copy()
        kept.setflags(write=False)
        made._decoded[None] = kept
        return made

    @classmethod
    def of_encoded(cls, ids: Sequence[str], images: Sequence[bytes], **columns: Sequence) -> "Pictures":
        """Pictures from encoded images, taken as they are."""
        unknown = set(columns) - set(SCHEMA.names)
        if unknown:
            raise ValueError(f"unknown columns {sorted(unknown)}; a picture has {SCHEMA.names}")
        data = {"id": list(ids), "image": list(images), **{name: list(values) for name, values in columns.items()}}
        arrays = [
            pa.array(data[field.name], field.type) if field.name in data else pa.nulls(len(ids), field.type)
            for field in SCHEMA
        ]
        return cls(pa.Table.from_arrays(arrays, schema=SCHEMA))

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def identities(self) -> list[str | None]:
        """The person on each picture."""
        return self.table.column("identity").to_pylist()

    @property
    def sources(self) -> list[str | None]:
        """The source of each picture."""
        return self.table.column("source").to_pylist()

    @property
    def captions(self) -> list[str | None]:
        """Each picture's own caption."""
        return self.table.column("caption").to_pylist()

    @property
    def captions_by_id(self) -> dict[str, str | None]:
        """Each picture's own caption by its record id."""
        return dict(zip(self.ids, self.captions, strict=True))

    @property
    def prompts(self) -> list[str | None]:
        """The prompt that each generated picture answers."""
        return self.table.column("prompt").to_pylist()

    def images(self, size: int | None = None) -> np.ndarray:
        """The decoded pictures; do not write into them, they are kept.

        Args:
            size: side in pixels; pictures of another size are resized (bicubic). Without it all must be of one size.

        Returns:
            uint8 [N, H, W, 3], RGB.
        """
        if size not in self._decoded:
            images = [
                decode(data, id_) for data, id_ in zip(self.table.column("image").to_pylist(), self.ids, strict=True)
            ]
            shapes = {image.shape[:2] for image in images}
            if size is not None:
                images = [resize(image, size) for image in images]
            elif len(shapes) > 1:
                raise RequestError(f"pictures of {len(shapes)} sizes, {sorted(shapes)[:3]}...: say which size to use")
            side = size or 1
            stack = np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8)
            stack.setflags(write=False)
            self._decoded[size] = stack
        return self._decoded[size]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Pictures":
        """The pictures at these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        made = Pictures(self.table.take(pa.array(rows)).combine_chunks())
        made._decoded = {size: images[rows] for size, images in self._decoded.items()}
        for images in made._decoded.values():
            images.setflags(write=False)
        return made

    def chunks(self, size: int) -> "Iterator[Pictures]":
        """The pictures in parts of at most `size`."""
        return (self.take(range(start, min(start + size, len(self)))) for start in range(0, len(self), size))

    def select(self, ids: Sequence[str]) -> "Pictures":
        """The pictures with these ids, in this order; KeyError names one that is missing."""
        missing = [id_ for id_ in ids if id_ not in self._row]
        if missing:
            raise KeyError(f"{len(missing)} pictures are not there, e.g. {missing[0]!r}")
        return self.take([self._row[id_] for id_ in ids])

    def sample(self, count: int) -> "Pictures":
        """The first pictures in an order that depends on the ids alone: a fair sample, the same in every run."""
        order = sorted(range(len(self)), key=lambda row: seed_of("take", self.ids[row]))
        return self.take(order[:count])

    def with_columns(self, **columns: Sequence) -> "Pictures":
        """The same pictures with some columns replaced."""
        table = self.table
        for name, values in columns.items():
            if name not in SCHEMA.names:
                raise ValueError(f"unknown column {name!r}; a picture has {SCHEMA.names}")
            at = SCHEMA.get_field_index(name)
            table = table.set_column(at, SCHEMA.field(at), pa.array(list(values), SCHEMA.field(at).type))
        made = Pictures(table)
        if "image" not in columns:
            made._decoded = dict(self._decoded)
        return made

    @staticmethod
    def concat(pictures: Sequence["Pictures"]) -> "Pictures":
        """All pictures after each other."""
        if not pictures:
            return Pictures(SCHEMA.empty_table())
        return Pictures(pa.concat_tables([part.table for part in pictures]).combine_chunks())

    def to_parquet(self) -> bytes:
        """The table as Parquet: equal tables give equal bytes."""
        sink = io.BytesIO()
        table = self.table.combine_chunks().replace_schema_metadata(None)
        # PNG does not compress further: what zstd is for are the text columns
        pq.write_table(
            table, sink, compression="zstd", use_dictionary=["source", "part", "prompt"], row_group_size=1024
        )
        return sink.getvalue()

    @staticmethod
    def from_parquet(parts: Sequence[bytes]) -> "Pictures":
        """The table from its parts, in their order."""
        return Pictures.concat([Pictures(pq.read_table(io.BytesIO(part)).cast(SCHEMA)) for part in parts])


def encode_png(image: np.ndarray) -> bytes:
    """One uint8 [H, W, 3] picture as PNG."""
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format="PNG", compress_level=1)
    return sink.getvalue()


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """One picture as [size, size, 3], bicubic; unchanged if it has that size."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
