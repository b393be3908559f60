"""Where sources are: country and AS, from databases in MaxMind's format (`*.mmdb`).

The package that reads them is the extra `geo`. Databases of different kinds are asked one after
the other, and each adds what it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpgw.errors import XdpgwError

if TYPE_CHECKING:
    from types import TracebackType

    from xdpgw.talkers import Source

__all__ = ["Geo", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of where a source is; None is unknown."""

    country: str | None = None
    """ISO 3166: DE."""
    asn: int | None = None
    as_name: str | None = None


class Geo:
    """Open databases."""

    def __init__(self, files: Sequence[Path | str]) -> None:
        """Open them.

        Raises:
            XdpgwError: one is not there or no database, or the package is not installed.
        """
        self._files = tuple(map(str, files))
        self._readers: list[Any] = []
        self._owner = ExitStack()
        if not files:
            return
        try:
            import maxminddb
        except ImportError as error:
            raise XdpgwError(
                "the package maxminddb, which reads databases of places, is not installed",
                "pip install 'xdpgw[geo]', or take geoip out of [sources]",
            ) from error
        self._broken: tuple[type[Exception], ...] = (maxminddb.InvalidDatabaseError, ValueError)
        with ExitStack() as undo:
            for file in self._files:
                try:
                    reader = maxminddb.open_database(file)
                except OSError as error:
                    raise XdpgwError(
                        f"cannot read the database of places {file}: {error.strerror or error}",
                        "download it, or correct geoip in [sources]",
                    ) from error
                except self._broken as error:
                    raise _no_database(file) from error
                self._readers.append(undo.enter_context(reader))
            self._owner = undo.pop_all()

    def place(self, source: Source) -> Place:
        """What the databases know of a source; of a network: of its first address.

        Raises:
            XdpgwError: a database is damaged.
        """
        address = getattr(source, "network_address", source)
        found = Place()
        for file, reader in zip(self._files, self._readers, strict=True):
            if address.version == 6 and reader.metadata().ip_version == 4:
                continue
            try:
                record = reader.get(address)
            except self._broken as error:
                raise _no_database(file) from error
            found = _with(found, record if isinstance(record, dict) else {})
        return found

    def __enter__(self) -> Geo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner.close()


def _no_database(file: str) -> XdpgwError:
    return XdpgwError(
        f"{file} is not a database in MaxMind's format, or is damaged", "download it anew"
    )


def _with(place: Place, record: dict[str, Any]) -> Place:
    """A place with what a record adds."""
    country = record.get("country") or record.get("registered_country")
    if isinstance(country, dict):
        country = country.get("iso_code")
    if place.country is None and isinstance(country, str):
        place = replace(place, country=_printable(country))
    number, name = (record.get(f"autonomous_system_{x}") for x in ("number", "organization"))
    if place.asn is None and isinstance(number, int):
        name = _printable(name) if isinstance(name, str) else None
        place = replace(place, asn=number, as_name=name)
    return place


def _printable(text: str) -> str:
    """Somebody else wrote it, and it goes to a terminal."""
    return "".join(x if x.isprintable() else "?" for x in text)
