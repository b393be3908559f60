// SPDX-License-Identifier: GPL-2.0-only
/*
 * harness.bpf.c - the datapath, whole and in parts, over a trace: another object with the datapath's own
 * source, maps and `cfg`. See trace.h.
 */
#include "xdpgw.bpf.c"

#include "trace.h"

static __always_inline int parse_only(struct xdp_md *ctx)
{
	struct pkt pkt = {};
	int err = parse(ctx, &pkt);

	asm volatile("" : : "r"(&pkt) : "memory"); /* all of it is wanted */
	return err ? XDP_DROP : XDP_PASS;
}

/*
 * The bare lookup of a source, by what the match engine calls for it, under a policy whose only rule asks for
 * nothing else: then what is found is a bit, whether the rule holds.
 */
static __always_inline int source_action(__u32 found)
{
	return found == 1 ? XDP_DROP : XDP_PASS;
}

static __always_inline int lookup4(struct xdp_md *ctx)
{
	const __be32 *source = bytes_of(ctx, SOURCE4_AT, sizeof(*source));

	if (!source)
		return XDP_PASS;
	return source_action(find4(cfg.root[XG_DIM_SRC4], bpf_ntohl(*source)));
}

static __always_inline int lookup6(struct xdp_md *ctx)
{
	const struct in6_addr *source = bytes_of(ctx, SOURCE6_AT, sizeof(*source));

	if (!source)
		return XDP_PASS;
	return source_action(find6(cfg.root[XG_DIM_SRC6], half_of(source, 0), half_of(source, 2)));
}

TRACE_PROGRAM(parsed, parse_only)
TRACE_PROGRAM(verdict, filter)
TRACE_PROGRAM(prefix4, lookup4)
TRACE_PROGRAM(prefix6, lookup6)
