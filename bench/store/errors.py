"""What goes wrong with a store: disk and network, damaged files, an artifact of another spec."""

import contextlib
import errno
from collections.abc import Iterator


class InfrastructureError(RuntimeError):
    """Disk, network or cluster failed: not a mistake in the request. Exit status 3."""


class Damaged(InfrastructureError):
    """A file of the store does not hold what was written: `key` says which, `why` what is wrong."""

    def __init__(self, key: str, why: str):
        super().__init__(f"{key} is damaged: {why}")
        self.key = key
        self.why = why


class Corrupt(Damaged):
    """An artifact's manifest or one of its parts is damaged or missing; the driver discards and remakes it.

    Attributes:
        manifest: key of the artifact's manifest.
        part: key of the part; empty where it is the manifest itself.
    """

    def __init__(self, manifest: str, part: str, why: str):
        super().__init__(part or manifest, why)
        self.manifest = manifest
        self.part = part


class SpecChanged(RuntimeError):
    """An artifact lies at this address but was made from another resolved spec."""


@contextlib.contextmanager
def infrastructure(doing: str, *, absence: bool = True) -> Iterator[None]:
    """Turn what the disk or the network says into an InfrastructureError that names what was being done.

    Args:
        doing: what, for people.
        absence: FileNotFoundError is an answer (as when reading) and passes; otherwise it is a failure too.
    """
    try:
        yield
    except (InfrastructureError, ValueError, TypeError):
        raise
    except Exception as error:  # clients of object stores raise what they like when there is no network
        if absence and isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, PermissionError) and "://" in doing:
            raise InfrastructureError(
                f"{doing}: access denied ({error}); check the credentials (such as AWS_PROFILE or AWS_ACCESS_KEY_ID) "
                "and what the bucket's policy lets them read, write, list and delete"
            ) from error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InfrastructureError(f"{doing}: {error}{' (the disk is full)' if full else ''}") from error


def is_infrastructure(error: BaseException | None) -> bool:
    """Whether disk or network failed, here or further down (libraries wrap what the disk said)."""
    for one in _chain(error):
        broken = isinstance(one, OSError) and one.errno in (errno.EIO, errno.EROFS, errno.ESTALE)
        if isinstance(one, InfrastructureError) or broken:
            return True
    return is_full(error)


def is_full(error: BaseException | None) -> bool:
    """Whether a disk was full."""
    words = ("No space left on device", "Disk quota exceeded", "database or disk is full")
    return any(
        (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT)) or any(w in str(one) for w in words)
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
