"""A collector's reading of IPFIX, from RFC 7011 alone: it knows of records what templates say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Reading", "names_of", "numbers_of"]

VARIABLE = 0xFFFF
TEMPLATES = 2

Record = dict[int, bytes]
"""Values by number of the element."""


@dataclass
class Reading:
    """What was read of the datagrams of one exporter, in order."""

    templates: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Elements and lengths by number of the template."""
    template_sets: int = 0
    records: list[Record] = field(default_factory=list)
    domains: set[int] = field(default_factory=set)
    export_times: list[int] = field(default_factory=list)
    sequence_errors: int = 0
    _sequence: int | None = None

    def take(self, datagram: bytes) -> None:
        """Read one datagram."""
        version, length, exported, sequence, domain = struct.unpack_from(">HHIII", datagram)
        assert (version, length) == (10, len(datagram))
        self.domains.add(domain)
        self.export_times.append(exported)
        if self._sequence is not None and sequence != self._sequence:
            self.sequence_errors += 1
        before, at = len(self.records), 16
        while at < len(datagram):
            number, size = struct.unpack_from(">HH", datagram, at)
            assert size > 4 and at + size <= len(datagram)
            body = datagram[at + 4 : at + size]
            if number == TEMPLATES:
                self._templates(body)
            else:
                self.records += self._records(body, self.templates[number])
            at += size
        self._sequence = (sequence + len(self.records) - before) % 2**32

    def _templates(self, body: bytes) -> None:
        self.template_sets += 1
        at = 0
        while at < len(body):
            number, count = struct.unpack_from(">HH", body, at)
            assert number >= 256 and count
            words = struct.unpack_from(f">{2 * count}H", body, at + 4)
            self.templates[number] = list(zip(words[::2], words[1::2], strict=True))
            at += 4 + 4 * count

    @staticmethod
    def _records(body: bytes, template: list[tuple[int, int]]) -> Iterator[Record]:
        at = 0
        while at < len(body):
            record: Record = {}
            for element, length in template:
                if length == VARIABLE:
                    length, at = body[at], at + 1
                    assert length < 255
                record[element] = body[at : at + length]
                assert len(record[element]) == length
                at += length
            yield record


def numbers_of(record: Record) -> dict[int, int]:
    """The elements that are numbers."""
    return {e: int.from_bytes(x, "big") for e, x in record.items() if e not in NAMES}


def names_of(record: Record) -> dict[int, str]:
    """The elements that are text."""
    return {e: x.decode() for e, x in record.items() if e in NAMES}


NAMES = {82, 335}
