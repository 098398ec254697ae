"""Facts to bytes and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from models.contract.records import SCHEMA, Column, Entry, Outcome
from models.errors import SlipstreamError
from models.signature import DATATYPE_OF, NUMPY, Array

#: Field of a stream entry that holds the packed Entry.
FIELD = b"e"

_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)
_texts = msgspec.msgpack.Decoder(list[str])


class UnreadableEntry(SlipstreamError):
    """An entry of another schema, or no entry at all."""


def pack(entry: Entry) -> bytes:
    return _encoder.encode(entry)


def unpack(data: bytes) -> Entry:
    """Raises UnreadableEntry where the bytes are not an Entry of this schema."""
    try:
        entry = _entry_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UnreadableEntry(f"not a fact of schema {SCHEMA}: {error}") from error
    if entry.schema != SCHEMA:
        raise UnreadableEntry(f"a fact of schema {entry.schema}; this monitor reads {SCHEMA}")
    return entry


def pack_outcome(outcome: Outcome) -> bytes:
    return _encoder.encode(outcome)


def unpack_outcome(data: bytes) -> Outcome:
    return _outcome_decoder.decode(data)


def column(arrays: Sequence[Array]) -> Column:
    """Stack the tensors of several requests. Their shapes differ in the first axis only."""
    stacked = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    texts = stacked.dtype == object
    data = pack_texts(stacked.ravel().tolist()) if texts else stacked.tobytes()
    return Column(DATATYPE_OF[stacked.dtype], stacked.shape, data)


def pack_texts(texts: list[str]) -> bytes:
    """The data of a BYTES column."""
    return _encoder.encode(texts)


def array(column: Column) -> Array:
    """The stacked tensor again."""
    if column.datatype == "BYTES":
        flat = np.array(_texts.decode(column.data), dtype=object)
        return flat.reshape(column.shape)
    return np.frombuffer(column.data, NUMPY[column.datatype]).reshape(column.shape)


def arrays(columns: Mapping[str, Column]) -> dict[str, Array]:
    return dict(_pairs(columns))


def _pairs(columns: Mapping[str, Column]) -> Iterator[tuple[str, Array]]:
    for name, packed in columns.items():
        yield name, array(packed)
