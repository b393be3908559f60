"""Large policies, prefix sets and traffic for them: realistic ones, and what hurts a match engine.

    made = classbench.policy("acl", 1000)
    batch = classbench.frames(classbench.headers(made, "match", 65536))

Everything is a function of its arguments, the seed among them. Policies are text, for any reader of
docs/policy.md, and arrays, for traffic and for what is measured without a reader; nothing of the
package is used.
"""

from __future__ import annotations

from tests.classbench.policies import FAMILIES, KINDS, RULE, Policy, policy
from tests.classbench.prefixes import PREFIX, PREFIX_KINDS, prefix_text, prefixes
from tests.classbench.traffic import FLOWS, HEADER, TRACES, frames, headers

__all__ = [
    "FAMILIES",
    "FLOWS",
    "HEADER",
    "KINDS",
    "PREFIX",
    "PREFIX_KINDS",
    "RULE",
    "TRACES",
    "Policy",
    "frames",
    "headers",
    "policy",
    "prefix_text",
    "prefixes",
]
