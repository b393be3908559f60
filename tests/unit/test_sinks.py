"""All sinks against the contract of `xdpgw.sinks.Sink`, alone and behind a pump."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.net.process import until
from xdpgw import sinks
from xdpgw._abi import Frag, Has, Reason
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.events import Pump
from xdpgw.sink_options import Spec
from xdpgw.sinks import Sink

from .batches import batch, numbered
from .sink_adapters import Adapter, Breakable, adapters, kinds

VARIANTS = [(kind, variant) for kind in kinds() for variant in adapters(kind)]


@pytest.fixture(params=VARIANTS, ids="-".join)
def adapter(
    request: pytest.FixtureRequest, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Adapter]:
    kind, variant = request.param
    made = adapters(kind)[variant](tmp_path, lambda: capfdbinary.readouterr().out)
    yield made
    made.close()


@pytest.fixture
def sink(adapter: Adapter) -> Iterator[Sink]:
    made = sinks.make(adapter.settings)
    yield made
    made.close()


def test_every_kind_has_its_adapter() -> None:
    assert sinks.kinds() == kinds()


def test_sink_shows_each_event_once_after_flush(sink: Sink, adapter: Adapter) -> None:
    sink.write(numbered(1, 2))
    sink.write(numbered(3))
    sink.flush()
    assert adapter.sources(3) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_sink_shows_all_after_close_and_closes_twice(sink: Sink, adapter: Adapter) -> None:
    sink.write(numbered(1))
    sink.close()
    sink.close()
    assert adapter.sources(1) == ["192.0.2.1"]


def test_sink_that_took_nothing_flushes_and_closes(sink: Sink, adapter: Adapter) -> None:
    sink.flush()
    sink.close()
    assert adapter.sources(0) == []


def test_sink_leaves_the_batch_alone(sink: Sink) -> None:
    given = batch({}, {})
    before = given.events.tobytes()
    sink.write(given)
    assert given.events.tobytes() == before


def test_sink_has_a_name_that_tells_its_kind(sink: Sink, adapter: Adapter) -> None:
    assert sink.name.split()[0] == adapter.settings.kind


def test_sink_takes_many_events_of_any_content(sink: Sink, adapter: Adapter) -> None:
    odd: list[dict[str, Any]] = [
        {"family": 0, "has": 0, "frag": Frag.NOT_IP, "rule": 0xFFFF, "reason": Reason.DEFAULT},
        {"family": 6, "src": "2001:db8::1", "dst": "::", "proto": 58, "has": Has.PROTO | Has.ICMP},
        {"port": 63, "rule": 2047, "proto": 255},
    ]
    sink.write(batch(*odd * 1000))
    sink.flush()
    assert adapter.sources(3000) == ["", "2001:db8::1", "192.0.2.7"] * 1000


def test_sink_behind_a_pump_writes_all_that_it_was_given(adapter: Adapter) -> None:
    said: list[str] = []
    with Pump.of([adapter.settings], on_error=said.append) as pump:
        for number in range(1, 51):
            pump.put(numbered(*[number] * 3))
    assert adapter.sources(150) == [f"192.0.2.{n}" for n in range(1, 51) for _ in range(3)]
    (books,) = pump.stats
    assert (books.written, books.lost, books.queued) == (150, 0, 0)
    assert said == []


def test_sink_whose_far_end_goes_and_comes_back_loses_nothing(adapter: Adapter) -> None:
    if not hasattr(adapter, "break_"):
        pytest.skip("this way tells nobody that the far end is gone")
    far = cast(Breakable, adapter)
    said: list[str] = []
    with Pump.of([far.settings], on_error=said.append) as pump:
        pump.put(numbered(1, 2))
        far.sources(2)
        far.break_()
        pump.put(numbered(3))
        pump.put(numbered(4, 5))
        until(lambda: pump.stats[0].failing, "a complaint")
        assert pump.stats[0].failing_since_ns is not None
        far.mend()
        until(lambda: pump.stats[0].written == 5, "all written")
        pump.put(numbered(6))
        until(lambda: pump.stats[0].written == 6, "one more")
        until(lambda: pump.stats[0].failing is None, "no more complaint")
    assert far.sources(6) == [f"192.0.2.{n}" for n in range(1, 7)]
    assert pump.stats[0].lost == 0
    begins, ends = said
    assert "fails; events wait for it: " in begins
    assert ends.endswith("is well again; it has lost 0 events so far")


def test_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(XdpgwError, match="no such sink: carrier-pigeon") as error:
        sinks.make(SinkSettings("carrier-pigeon"))
    assert error.value.hint == f"there are {', '.join(sinks.kinds())}"


@pytest.mark.parametrize("kind", sinks.kinds())
def test_kind_says_what_a_policy_may_say_of_it(kind: str) -> None:
    spec = sinks.spec(kind)
    assert isinstance(spec, Spec)
    assert {"queue", "retry"} < set(spec.options) or not spec.main
    assert spec.main is None or spec.main in spec.options
    assert not spec.needed or (spec.main and spec.example)
