"""The command `xdpgw metrics`."""

from __future__ import annotations

import sys

import click

from xdpgw.cli_json import as_json_option, print_json

__all__ = ["metrics"]


@click.command()
@click.option("--rules/--no-rules", default=True, help="With metrics of each rule.  [default: yes]")
@as_json_option
def metrics(rules: bool, as_json: bool) -> None:
    """Print the metrics once, as Prometheus reads them; also of an orphaned filter, or of none.

    `xdpgw run` serves the same where the policy says [metrics] listen = "127.0.0.1:9464".

    \b
    Example, for the textfile collector of node_exporter:
      xdpgw metrics > xdpgw.prom.new && mv xdpgw.prom.new xdpgw.prom
    """
    from xdpgw.metrics import families, page
    from xdpgw.pins import Instance
    from xdpgw.snapshot import Reader

    reader = Reader(Instance())
    if not as_json:
        sys.stdout.buffer.write(page(reader.read, rules=rules)[1])
        return
    print_json(
        [
            {"name": sample.name, "labels": sample.labels, "value": sample.value}
            for family in families(reader.read(), rules=rules)
            for sample in family.samples
        ]
    )
