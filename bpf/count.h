/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * count.h - the books. Each packet is counted once, under (port, verdict, reason), and once more under the
 * rule that decided. All counters are per CPU and only grow.
 */
#ifndef XG_COUNT_H
#define XG_COUNT_H

#include "judgement.h"
#include "parse.h"

static __always_inline void add(struct xg_counter *counter, __u32 len)
{
	counter->packets++;
	counter->bytes += len;
}

static __always_inline void count(const struct pkt *pkt, const struct judgement *judged)
{
	__u32 at =
		(cfg.port * XG_VERDICT_COUNT + judged->verdict) * XG_REASON_COUNT + judged->reason;
	struct xg_counter *counter = bpf_map_lookup_elem(&counters, &at);

	if (counter)
		add(counter, pkt->len);
	if (judged->rule) {
		__u32 slot = judged->rule->slot;

		counter = bpf_map_lookup_elem(&rule_counters, &slot);
		if (counter)
			add(counter, pkt->len);
	}
}

static __always_inline void count_log(enum xg_log_counter which)
{
	__u32 at = which;
	__u64 *counter = bpf_map_lookup_elem(&log_counters, &at);

	if (counter)
		(*counter)++;
}

#endif
