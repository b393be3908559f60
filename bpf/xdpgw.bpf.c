// SPDX-License-Identifier: GPL-2.0-only
/*
 * xdpgw.bpf.c - the datapath: one frame in, one verdict out.
 *
 * Loaded once per port, with the port's view of the policy in `cfg` and the policy's rules in the image maps.
 * Uses UAPI headers only and no CO-RE relocation: one object for all kernels from the floor on. Of the kernel's BTF
 * it takes one thing, the type of the context of its global functions.
 */
#include "maps.h"

#include "parse.h"
#include "match.h"
#include "verdict.h"
#include "event.h"
#include "talker.h"
#include "capture.h"

static __always_inline enum xdp_action filter(struct xdp_md *ctx)
{
	struct judgement judged = {};
	struct pkt pkt = {};

	if (parse(ctx, &pkt))
		decide(&judged, cfg.malformed_verdict, XG_REASON_MALFORMED);
	else
		judge(ctx, &pkt, &judged);

	hand_over(ctx, &judged);
	count(&pkt, &judged);
	count_source(ctx, &pkt, &judged);
	if (cfg.explain)
		explain_packet(ctx, &pkt, &judged);
	else
		log_packet(ctx, &pkt, &judged);
	show(ctx, &judged);
	return act(&judged);
}

SEC("xdp")
int xdpgw(struct xdp_md *ctx)
{
	return filter(ctx);
}

char LICENSE[] SEC("license") = "GPL";
