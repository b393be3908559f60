/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * capture.h - shows a packet that is judged and counted to who captures on the port, if somebody does.
 *
 *   xdpgw.bpf.c: parse, judge, count, log --show()--> capture.bpf.c: filter, copy --act()--> the driver
 *                                            \---nobody there---act()--------------------> the driver
 *
 * A tail call takes the packet to the program of the capture, which does not come back: it carries out the
 * judgement that it finds in `judgements`, as this program would have. Where `captures` is empty, the call
 * falls through. The kernel empties it when the last process that has it open is gone, however it ended,
 * as nobody pins it: so no capture outlives its process.
 */
#ifndef XG_CAPTURE_H
#define XG_CAPTURE_H

#include "judgement.h"

/*
 * Of this port: a number that the capture chose, 0: nobody is there. What it saves is the way to the empty slot.
 * Who died could not take it back; the first packet then does, but not from who came meanwhile.
 */
volatile __u32 capturing = 0;

static __always_inline void show(struct xdp_md *ctx, const struct judgement *judged)
{
	struct xg_judged *shown;
	__u32 by, at = 0;

	if (!cfg.capture)
		return;
	by = capturing;
	if (!by)
		return;
	shown = bpf_map_lookup_elem(&judgements, &at);
	if (!shown)
		return;
	shown->rule = judged->rule ? judged->rule->slot : XG_NO_RULE;
	shown->verdict = judged->verdict;
	shown->reason = judged->reason;
	bpf_tail_call(ctx, &captures, 0);
	__sync_val_compare_and_swap(&capturing, by, 0);
}

#endif
