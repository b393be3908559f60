/* SPDX-License-Identifier: GPL-2.0-only */
/* judgement.h - what was decided about a packet, and why. */
#ifndef XG_JUDGEMENT_H
#define XG_JUDGEMENT_H

#include "maps.h"

struct judgement {
	const struct xg_rule *rule; /* that decided, else NULL */
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

	/* An action that is no verdict cannot be here: control refuses it in this version. */
	if (!rule || rule->action >= XG_VERDICT_COUNT) {
		decide(judged, cfg.default_verdict, XG_REASON_ERROR);
		return;
	}
	judged->rule = rule;
	decide(judged, rule->action, XG_REASON_RULE);
}

#endif
