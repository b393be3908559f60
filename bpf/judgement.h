/* SPDX-License-Identifier: GPL-2.0-only */
/* judgement.h - what was decided about a packet, and why. */
#ifndef XG_JUDGEMENT_H
#define XG_JUDGEMENT_H

#include "maps.h"

struct judgement {
	const struct xg_rule *rule; /* that decided, else NULL */
	__u32 number; /* of the rule, if there is one */
	enum xg_verdict verdict;
	enum xg_reason reason;
};

static __always_inline void decide(struct judgement *judged, enum xg_verdict verdict,
				   enum xg_reason reason)
{
	judged->verdict = verdict;
	judged->reason = reason;
}

static __always_inline void by_rule(__u32 number, struct judgement *judged)
{
	const struct xg_rule *rule = bpf_map_lookup_elem(&rules, &number);
	const __u32 actions = cfg.limits ? XG_ACTION_COUNT : XG_VERDICT_COUNT;

	if (!rule || rule->action >= actions) {
		decide(judged, cfg.default_verdict, XG_REASON_ERROR);
		return;
	}
	judged->rule = rule;
	judged->number = number;
	decide(judged, rule->action, XG_REASON_RULE);
	/* A limit decides only where a packet is over it. */
	if (cfg.limits && rule->action == XG_ACTION_LIMIT)
		decide(judged, XG_VERDICT_DROP, XG_REASON_LIMIT);
}

#endif
