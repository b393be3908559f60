/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * follow.h - `fragments = "follow"`: later fragments get the verdict of their first one.
 *
 * A later fragment has no ports, so rules cannot judge it as they judged the packet that it is a part of.
 * Here the first fragment leaves verdict, reason and rule in a bounded LRU table; a later one takes them
 * over for XG_FRAGMENT_SECONDS, and is dropped where there is nothing to take: it came before the first,
 * the first was malformed or is too old, a flood of others pushed it out, or the policy changed in between.
 *
 * A verdict is taken over before hand_over(), so that each fragment of an af_xdp rule asks for its socket
 * itself.
 */
#ifndef XG_FOLLOW_H
#define XG_FOLLOW_H

#include "judgement.h"
#include "parse.h"

static __always_inline int fragment_key(const struct pkt *pkt, struct xg_fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->family = pkt->family;
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		if (!ip)
			return -1;
		__builtin_memcpy(key->src, &ip->saddr, sizeof(ip->saddr));
		__builtin_memcpy(key->dst, &ip->daddr, sizeof(ip->daddr));
		key->id = ip->id;
		key->proto = ip->protocol;
	} else {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);
		const struct ext_header *ext =
			bytes_at(pkt->data, pkt->data_end, pkt->fragment, sizeof(*ext));

		if (!ip6 || !ext)
			return -1;
		__builtin_memcpy(key->src, &ip6->saddr, sizeof(ip6->saddr));
		__builtin_memcpy(key->dst, &ip6->daddr, sizeof(ip6->daddr));
		__builtin_memcpy(&key->id, ext->rest, sizeof(key->id));
		key->proto = ext->next;
	}
	return 0;
}

/* Tells later fragments what their first one got; `number` is the rule's, where one decided. */
static __always_inline void remember(const struct pkt *pkt, const struct judgement *judged,
				     __u32 number)
{
	struct xg_fragment found = {
		.ts_ns = bpf_ktime_get_coarse_ns(),
		.rule = judged->rule ? number : XG_NO_RULE,
		.verdict = judged->verdict,
		.reason = judged->reason,
	};
	struct xg_fragment_key key;

	if (!fragment_key(pkt, &key))
		bpf_map_update_elem(&fragments, &key, &found, BPF_ANY);
}

static __always_inline void follow(const struct pkt *pkt, struct judgement *judged)
{
	const __u64 lifetime_ns = XG_FRAGMENT_SECONDS * 1000000000ULL;
	const struct xg_fragment *first;
	struct xg_fragment_key key;

	if (fragment_key(pkt, &key)) {
		decide(judged, XG_VERDICT_DROP, XG_REASON_ERROR);
		return;
	}
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || bpf_ktime_get_coarse_ns() - first->ts_ns > lifetime_ns) {
		decide(judged, XG_VERDICT_DROP, XG_REASON_FRAGMENT);
		return;
	}
	if (first->rule == XG_NO_RULE)
		decide(judged, first->verdict, first->reason);
	else
		by_rule(first->rule, judged);
}

#endif
