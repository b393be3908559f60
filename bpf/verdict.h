/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * verdict.h - from a packet to its verdict, in the order of docs/policy.md, and from there to what the
 * driver is told.
 */
#ifndef XG_VERDICT_H
#define XG_VERDICT_H

#include "block.h"
#include "count.h"
#include "follow.h"
#include "guard.h"
#include "match.h"

static __always_inline void by_default(struct xdp_md *ctx, const struct pkt *pkt,
				       struct judgement *judged)
{
	if (cfg.guard && cfg.default_verdict == XG_VERDICT_DROP && guarded(ctx, pkt))
		decide(judged, XG_VERDICT_PASS, XG_REASON_GUARD);
	else
		decide(judged, cfg.default_verdict, XG_REASON_DEFAULT);
}

static __always_inline void judge(struct xdp_md *ctx, const struct pkt *pkt,
				  struct judgement *judged)
{
	int number;

	if (blocked(ctx, pkt)) {
		decide(judged, XG_VERDICT_DROP, XG_REASON_BLOCK);
		return;
	}
	if (cfg.fragments == XG_FRAGMENTS_DROP &&
	    (pkt->frag == XG_FRAG_FIRST || pkt->frag == XG_FRAG_LATER)) {
		decide(judged, XG_VERDICT_DROP, XG_REASON_FRAGMENT);
		return;
	}
	if (cfg.fragments == XG_FRAGMENTS_FOLLOW && pkt->frag == XG_FRAG_LATER) {
		follow(pkt, judged);
		return;
	}
	number = match(ctx, pkt);
	if (number >= 0)
		by_rule(number, judged);
	else if (number == MATCH_NONE)
		by_default(ctx, pkt, judged);
	else
		decide(judged, cfg.default_verdict, XG_REASON_ERROR);
	if (cfg.fragments == XG_FRAGMENTS_FOLLOW && pkt->frag == XG_FRAG_FIRST)
		remember(pkt, judged, number);
}

static __always_inline enum xdp_action action_of(enum xg_verdict verdict)
{
	return verdict == XG_VERDICT_PASS ? XDP_PASS : XDP_DROP;
}

/*
 * Hands the packet to the socket of the rule's target on its queue. Only the kernel knows whether there
 * is one, and says so now, so that what becomes of the packet is known before it is counted: without one
 * the flags of the call are what it returns. `explain` takes the socket to be there.
 */
static __always_inline void hand_over(struct xdp_md *ctx, struct judgement *judged)
{
	const struct xg_rule *rule = judged->rule;
	__u32 queue = ctx->rx_queue_index, at;
	enum xdp_action otherwise;

	if (!cfg.af_xdp || cfg.explain || judged->verdict != XG_VERDICT_AF_XDP || !rule)
		return;
	otherwise = action_of(rule->otherwise);
	at = (cfg.port * XG_MAX_TARGETS + rule->target) * XG_MAX_QUEUES + queue;
	if (queue < XG_MAX_QUEUES && bpf_redirect_map(&xsks, at, otherwise) == XDP_REDIRECT)
		return;
	decide(judged, rule->otherwise, XG_REASON_NO_SOCKET);
}

/*
 * What the driver is told. Reject, redirect and forward are named by `explain` only in this version: control
 * attaches no policy that asks for one, so that a packet never meets the drop that stands here for them.
 */
static __always_inline enum xdp_action act(const struct judgement *judged)
{
	switch (judged->verdict) {
	case XG_VERDICT_PASS:
		return XDP_PASS;
	case XG_VERDICT_TX:
		return XDP_TX;
	case XG_VERDICT_AF_XDP:
		return XDP_REDIRECT;
	case XG_VERDICT_DROP:
	case XG_VERDICT_REJECT:
	case XG_VERDICT_REDIRECT:
	case XG_VERDICT_FORWARD:
	case XG_VERDICT_COUNT:
		return XDP_DROP;
	}
	return XDP_DROP;
}

#endif
