// SPDX-License-Identifier: GPL-2.0-only
/*
 * limit.bpf.c - asks a limit per source for packets of many sources: PACKETS of them a run, as the test run
 * itself costs more than what is measured. `subject` says who is asked: the datapath's own
 * bpf/limit.h, or the same bucket in a BPF_MAP_TYPE_LRU_HASH of as many entries.
 */
#include "limit.h"

enum { PACKETS = 64, LEN_BYTES = 60, ENTRIES = XG_LIMIT_LINES * XG_LIMIT_WAYS };
enum subject { NOBODY, LINES, LRU_HASH };
enum class { SPOOFED, GOOD, HOT, CLASSES };

const volatile __u32 subject = NOBODY;
const volatile __u32 sources_mask = 0; /* the number of sources, a power of two, less one */
/* The program `mixed`: how many sources that keep to the limit, and that do not, and what each sends. */
const volatile __u32 few = 1;
const volatile __u32 good_pps = 0;
const volatile __u32 hot_pps = 0;

struct counts {
	__u64 sent[CLASSES];
	__u64 passed[CLASSES];
	__u64 begun_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ENTRIES);
	__type(key, __u64);
	__type(value, __u64);
} lru SEC(".maps");

static __always_inline bool over_by_lru(__u64 source)
{
	__u32 zero = 0;
	const struct xg_limit *limit = bpf_map_lookup_elem(&limits, &zero);
	__u64 *bucket, now, fresh;

	if (!limit)
		return false;
	now = limit_clock(limit);
	bucket = bpf_map_lookup_elem(&lru, &source);
	if (bucket)
		return overcharged(bucket, 0, now, limit->cost, limit->depth_ns);
	fresh = now + (limit->cost >> XG_LIMIT_FRACTION_BITS);
	bpf_map_update_elem(&lru, &source, &fresh, BPF_ANY);
	return false;
}

static __always_inline bool over(__u64 source)
{
	struct limit_source from = { .first = source };

	if (subject == LINES)
		return over_limit(0, 4, &from, LEN_BYTES);
	if (subject == LRU_HASH)
		return over_by_lru(source);
	return source & 1;
}

static __always_inline void ask(struct counts *counts, enum class class, __u64 source)
{
	counts->sent[class]++;
	counts->passed[class] += !over(source);
}

/* An odd factor, so that all sources come once before one comes again, and no two neighbours follow. */
static long next(__u32 index __attribute__((unused)), struct counts **to)
{
	struct counts *counts = *to;

	ask(counts, SPOOFED, (counts->sent[SPOOFED] * 0x9e3779b1 + 1) & sources_mask);
	return 0;
}

/* Who is due by the clock: a good source, a hot one, else one that was never seen before. */
static long next_due(__u32 index __attribute__((unused)), struct counts **to)
{
	struct counts *counts = *to;
	__u64 ran_ns = bpf_ktime_get_coarse_ns() - counts->begun_ns, nth;

	if ((nth = counts->sent[GOOD]) * 1000000000 < ran_ns * good_pps * few)
		ask(counts, GOOD, 0xc0000000 + nth % few);
	else if ((nth = counts->sent[HOT]) * 1000000000 < ran_ns * hot_pps * few)
		ask(counts, HOT, 0xe0000000 + nth % few);
	else
		ask(counts, SPOOFED, counts->sent[SPOOFED] * 0x9e3779b1 & 0x7fffffff);
	return 0;
}

SEC("xdp")
int alike(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 zero = 0;
	struct counts *to = bpf_map_lookup_elem(&counts, &zero);

	if (to)
		bpf_loop(PACKETS, next, &to, 0);
	return XDP_PASS;
}

SEC("xdp")
int mixed(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 zero = 0;
	struct counts *to = bpf_map_lookup_elem(&counts, &zero);

	if (!to)
		return XDP_ABORTED;
	if (!to->begun_ns)
		to->begun_ns = bpf_ktime_get_coarse_ns();
	bpf_loop(PACKETS, next_due, &to, 0);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
