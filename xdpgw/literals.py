"""The words that stand for values: numbers, ranges, ports, addresses, rates, times, names."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from difflib import get_close_matches
from typing import cast, get_args

from xdpgw.rule_types import Prefix, Rate, RateUnit

__all__ = [
    "NAME",
    "NAME_RULE",
    "Wrong",
    "addresses",
    "choice",
    "duration_ns",
    "likely",
    "listen_address",
    "number",
    "one_of",
    "port_range",
    "prefix_text",
    "rate",
    "size_bytes",
    "span",
]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
NAME_RULE = "begin with a letter, then letters, digits, _ - . up to 32 in all"

_NUMBER = re.compile(r"-?[0-9]{1,20}")
_RATE = re.compile(r"(-?[0-9]+)(/s|/m|Mbit/s|Gbit/s)")
_RATE_MAX = {"/s": 10**9, "/m": 6 * 10**10, "Mbit/s": 10**6, "Gbit/s": 10**3}
_TIME = re.compile(r"([0-9]{1,15})(us|ms|s|m|h|d)")
_NS = {"us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Wrong(ValueError):
    """A word that does not stand for a value; message and hint as in a Diagnostic."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def one_of(choices: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def likely(word: str, choices: Iterable[str]) -> str | None:
    """A hint with the choice that looks like the word, if there is one."""
    near = get_close_matches(word.lower(), list(choices), n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else None


def choice(word: str, choices: Iterable[str], what: str) -> str:
    """The word, if it is one of the choices.

    Raises:
        Wrong: with the nearest choice, or all of them.
    """
    known = list(choices)
    if word in known:
        return word
    quoted = one_of(f'"{x}"' for x in known)
    hint = likely(word, known) or f"write {quoted}"
    raise Wrong(f'{what} "{word}" is not known', hint)


def number(word: str, lo: int, hi: int, what: str) -> int:
    """A decimal number from lo to hi."""
    if not _NUMBER.fullmatch(word):
        if word.removeprefix("-").isdigit() and word.isascii():
            raise Wrong(f"{what} of {len(word)} digits is out of range", f"write {lo} to {hi}")
        raise Wrong(f'{what} "{word}" is not a number', f"write {lo} to {hi}")
    value = int(word)
    if not lo <= value <= hi:
        raise Wrong(f"{what} {word} is out of range", f"write {lo} to {hi}")
    if str(value) != word:
        raise Wrong(f"{what} {word} has a leading zero", f"write {value}")
    return value


def span(word: str, lo: int, hi: int, what: str) -> tuple[int, int]:
    """`N` or `N-N`, from lo to hi; first and last."""
    first_word, dash, last_word = word.partition("-")
    if not dash or not first_word:
        value = number(word, lo, hi, what)
        return value, value
    first = number(first_word, lo, hi, what)
    if not last_word:
        raise Wrong(f"{what} range {word} has no end", f"write {first}-{hi}")
    last = number(last_word, lo, hi, what)
    if first > last:
        raise Wrong(f"{what} range {word} runs backwards", f"write {last}-{first}")
    return first, last


def port_range(word: str) -> tuple[int, int]:
    """A transport port or a range of them; first and last."""
    if not word[:1].isdigit() and word[:1] != "-":
        raise Wrong(f'"{word}" is not a port', "write a number, a range such as 8000-8100, or @SET")
    return span(word, 0, 65535, "port")


def rate(word: str, *, counts: bool = False) -> Rate:
    """A rate.

    Args:
        counts: only packets or events a second or a minute will do.
    """
    units = ["/s", "/m"] if counts else list(get_args(RateUnit))
    match = _RATE.fullmatch(word)
    if match is None or match[2] not in units:
        raise Wrong(f'"{word}" is not a rate', f"write {one_of('N' + unit for unit in units)}")
    return Rate(number(match[1], 1, _RATE_MAX[match[2]], "rate"), cast(RateUnit, match[2]))


def duration_ns(word: str, lo: str, hi: str, what: str) -> int:
    """A time such as 20us, 500ms, 60s, 10m, 1h or 1d, in nanoseconds, from lo to hi."""
    value = _nanoseconds(word)
    if value is None:
        short = hi.endswith("ms")
        write = f"us or ms: {hi}" if short else "ms, s, m, h or d: 60s"
        raise Wrong(f'{what} "{word}" is not a time', f"write a number and {write}")
    if not (_nanoseconds(lo) or 0) <= value <= (_nanoseconds(hi) or 0):
        raise Wrong(f"{what} {word} is out of range", f"write {lo} to {hi}")
    return value


def _nanoseconds(word: str) -> int | None:
    match = _TIME.fullmatch(word)
    return None if match is None else int(match[1]) * _NS[match[2]]


def size_bytes(word: str, what: str) -> int:
    """A size such as 100MiB, in bytes."""
    match = _SIZE.fullmatch(word)
    if match is None:
        raise Wrong(f'{what} "{word}" is not a size', "write a number and B, KiB, MiB or GiB")
    return int(match[1]) * _BYTES[match[2]]


def _address(word: str) -> tuple[int, int] | None:
    """Family and number of an address."""
    try:
        if ":" in word:
            return 6, int.from_bytes(socket.inet_pton(socket.AF_INET6, word), "big")
        return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, word), "big")
    except (OSError, ValueError):
        return None


def _text(family: int, address: int) -> str:
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))


def listen_address(word: str) -> tuple[str, int]:
    """`ADDRESS:PORT` or `[ADDRESS]:PORT`, where to listen for TCP; canonical address and port."""
    hint = 'write "127.0.0.1:9464" or "[::1]:9464"'
    host, colon, port = word.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    found = _address(host[1:-1] if bracketed else host) if colon else None
    if found is None or bracketed != (found[0] == 6):
        raise Wrong(f'"{word}" is not an address with a port', hint)
    return _text(*found), number(port, 0, 65535, "port")


def prefix_text(prefix: Prefix) -> str:
    """A prefix in canonical form; an address where it is one."""
    family, address, bits = prefix
    text = _text(family, address)
    return text if bits == (32 if family == 4 else 128) else f"{text}/{bits}"


def addresses(word: str) -> list[Prefix]:
    """One address, a prefix, or FIRST-LAST, as prefixes.

    Raises:
        Wrong: it is none of these, has host bits set, runs backwards or mixes families.
    """
    if "-" in word:
        return _range(word)
    base, slash, bits_word = word.partition("/")
    found = _address(base)
    if found is None:
        raise _no_address(word)
    family, address = found
    width = 32 if family == 4 else 128
    if not slash:
        return [(family, address, width)]
    bits = number(bits_word, 0, width, "prefix length")
    host = address & ((1 << width - bits) - 1)
    if host:
        hint = f"write {_text(family, address - host)}/{bits}"
        raise Wrong(f"{word} has bits set behind its prefix", hint)
    return [(family, address, bits)]


def _no_address(word: str) -> Wrong:
    hint = "write an address, a prefix such as 10.0.0.0/8, or FIRST-LAST"
    return Wrong(f'"{word}" is not an address', hint)


def _range(word: str) -> list[Prefix]:
    first_word, _, last_word = word.partition("-")
    first, last = _address(first_word), _address(last_word)
    if first is None or last is None:
        raise _no_address(word)
    if first[0] != last[0]:
        raise Wrong(f"{word} mixes IPv4 and IPv6", "write a range of one family")
    if first > last:
        raise Wrong(f"address range {word} runs backwards", f"write {last_word}-{first_word}")
    family, at, end = first[0], first[1], last[1]
    width = 32 if family == 4 else 128
    out: list[Prefix] = []
    while at <= end:
        # The largest block that begins here: as far as the zeros of `at` go, and not past the end.
        free = min((at & -at).bit_length() - 1 if at else width, (end - at + 1).bit_length() - 1)
        out.append((family, at, width - free))
        at += 1 << free
    return out
