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

/* The bare lookup of an address: what the match engine calls for a source. */
static __always_inline int lookup4(struct xdp_md *ctx)
{
	const void *source = bytes_of(ctx, SOURCE4_AT, sizeof(__u32));
	const struct xg_row *found = source ? row_prefix4(&src4, XG_DIM_SRC4, source) : NULL;

	return found && found->word[0] & 1 ? XDP_DROP : XDP_PASS;
}

static __always_inline int lookup6(struct xdp_md *ctx)
{
	const void *source = bytes_of(ctx, SOURCE6_AT, sizeof(struct in6_addr));
	const struct xg_row *found = source ? row_prefix6(&src6, XG_DIM_SRC6, source) : NULL;

	return found && found->word[0] & 1 ? XDP_DROP : XDP_PASS;
}

TRACE_PROGRAM(parsed, parse_only)
TRACE_PROGRAM(verdict, filter)
TRACE_PROGRAM(prefix4, lookup4)
TRACE_PROGRAM(prefix6, lookup6)
