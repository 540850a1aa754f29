"""What a full or read-only disk says, in one place: SQLite and the file system say it each in its own words."""

from __future__ import annotations

import errno
import sqlite3

from cytoloop.domain.errors import StorageFull, StorageReadOnly

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def storage_error(error: BaseException) -> StorageFull | StorageReadOnly | None:
    """What an exception says of the disk; None if it is about something else.

    Examples
    --------
    >>> storage_error(OSError(errno.ENOSPC, "No space left on device", "masks/ab"))
    StorageFull('the disk of the home is full (masks/ab): nothing of this was stored; make room and repeat it')
    >>> storage_error(ValueError("other"))
    """
    where = ""
    is_full = is_read_only = False
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", None) or ""
        is_full = name == "SQLITE_FULL"
        is_read_only = name.startswith("SQLITE_READONLY") or name in ("SQLITE_CANTOPEN", "SQLITE_IOERR_WRITE")
    elif isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        is_full, is_read_only = error.errno in _FULL, error.errno in _READ_ONLY
    if is_full:
        return StorageFull(
            f"the disk of the home is full{where}: nothing of this was stored; make room and repeat it"
        )
    if is_read_only:
        return StorageReadOnly(
            f"the home cannot be written to{where}: nothing of this was stored; mount it for writing and repeat it"
        )
    return None
