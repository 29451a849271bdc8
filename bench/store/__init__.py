"""The store: artifacts by content under one root, read back as untrusted input, and a cache of them on this node."""

from bench.store.cache import Cache
from bench.store.errors import Corrupt, Damaged, InfrastructureError, SpecChanged, is_full, is_infrastructure
from bench.store.records import (
    Entry,
    InputRef,
    Manifest,
    Part,
    Ref,
    digest_of,
    inputs_digest,
    manifest_key,
    parse,
    slice_name,
)
from bench.store.snapshot import Snapshot
from bench.store.store import Store

__all__ = [
    "Cache",
    "Corrupt",
    "Damaged",
    "Entry",
    "InfrastructureError",
    "InputRef",
    "Manifest",
    "Part",
    "Ref",
    "Snapshot",
    "SpecChanged",
    "Store",
    "digest_of",
    "inputs_digest",
    "is_full",
    "is_infrastructure",
    "manifest_key",
    "parse",
    "slice_name",
]
