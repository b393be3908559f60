// SPDX-License-Identifier: GPL-2.0-only
/*
 * talkers.bpf.c - the datapath over a trace, with its own count of sources or with what a user would take instead:
 * a hash of the kernel that forgets the least recently used. Its key and value hold the same. See trace.h.
 */
#include "xdpgw.bpf.c"

#include "trace.h"

enum { ENTRIES = 8192 };

struct sent {
	__u64 packets;
	__u64 bytes;
	__u64 dropped;
	__u64 first_ns;
	__u64 last_ns;
	__u64 verdict;
};

#define XG_PEER_HASH(name, kind) \
	struct { \
		__uint(type, kind); \
		__uint(max_entries, ENTRIES); \
		__type(key, struct xg_source); \
		__type(value, struct sent); \
	} name SEC(".maps")

XG_PEER_HASH(lru_table, BPF_MAP_TYPE_LRU_HASH);
XG_PEER_HASH(lru_percpu_table, BPF_MAP_TYPE_LRU_PERCPU_HASH);

/* As of the datapath, in a table of which each CPU has a value of its own, or not. */
static __always_inline void tally_in(void *table, bool shared, struct xdp_md *ctx, int action)
{
	const __be32 *address = bytes_of(ctx, SOURCE4_AT, sizeof(*address));
	struct xg_source source = { .family = 4 };
	struct sent *sent, fresh = {};
	__u64 now = tick_clock(), len = ctx->data_end - ctx->data;

	if (!address)
		return;
	__builtin_memcpy(source.addr, address, sizeof(*address));
	sent = bpf_map_lookup_elem(table, &source);
	if (!sent) {
		fresh = (struct sent){ 1, len, action == XDP_DROP, now, now, action };
		bpf_map_update_elem(table, &source, &fresh, BPF_ANY);
		return;
	}
	if (shared) {
		__sync_fetch_and_add(&sent->packets, 1);
		__sync_fetch_and_add(&sent->bytes, len);
		if (action == XDP_DROP)
			__sync_fetch_and_add(&sent->dropped, 1);
	} else {
		sent->packets++;
		sent->bytes += len;
		sent->dropped += action == XDP_DROP;
	}
	sent->last_ns = now;
	sent->verdict = action;
}

static __always_inline int with_lru(struct xdp_md *ctx)
{
	int action = filter(ctx);

	tally_in(&lru_table, true, ctx, action);
	return action;
}

static __always_inline int with_lru_percpu(struct xdp_md *ctx)
{
	int action = filter(ctx);

	tally_in(&lru_percpu_table, false, ctx, action);
	return action;
}

TRACE_PROGRAM(own, filter)
TRACE_PROGRAM(lru, with_lru)
TRACE_PROGRAM(lru_percpu, with_lru_percpu)
