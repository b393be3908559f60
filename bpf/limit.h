/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * limit.h - is a packet over the rate of a `limit`?
 *
 * A limit `per rule` has one bucket. Those `per source` share a table of lines, each one cache line of eight
 * buckets. A source's keyed hash names its line and its key, and a bucket is
 *
 *         63       44 43                     0
 *        +-----------+------------------------+
 *        |    key    |           0            |     whose
 *        +-----------+------------------------+
 *      +              time in ns                    when it will be empty
 *
 * so that bucket - key is a time of 64 bits to its owner, and far off the present to all others (but for one
 * in 2^20). What is there of a source that was last seen hours ago is far off, too, and as good as
 * nothing: an old bucket never refuses. To those who do not know the key, the low bits still tell by how much
 * the bucket is ahead of the clock. The one that is so the least gives way to a source that has none: one that
 * is empty costs nothing, and a flood of sources that send little finds empty ones before it finds the one of
 * a source that sends much. Who knows no seed cannot aim at a line.
 *
 * The clock is jiffies, which cost 1 ns where the exact clock costs 37. They go in steps of 1 to 10 ms, so that
 * a limit whose burst lasts for less than some of them asks the exact one.
 *
 * No lock. A bucket is moved by an atomic add, which is taken back where another CPU was quicker and
 * the bucket is full; a new owner, or an empty bucket, is set by compare-and-swap.
 */
#ifndef XG_LIMIT_H
#define XG_LIMIT_H

#include "parse.h"

#define LIMIT_TIME ((1ULL << XG_LIMIT_TIME_BITS) - 1)

/* A source's address as in struct xg_event: its first eight bytes, and the rest. Not IP: 0. */
struct limit_source {
	__u64 first;
	__u64 rest;
};

/* A packet that is not IP has no source: all of them are one. Not 0: it lacks what it must have. */
static __always_inline int limit_source(struct xdp_md *ctx, __u32 family, __u32 l3,
					struct limit_source *source)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;

	l3 &= OFFSET_MASK;
	if (family == 4) {
		const struct iphdr *ip = bytes_at(data, data_end, l3, sizeof(*ip));

		if (!ip)
			return -1;
		source->first = ip->saddr;
	} else if (family == 6) {
		const struct ipv6hdr *ip6 = bytes_at(data, data_end, l3, sizeof(*ip6));

		if (!ip6)
			return -1;
		__builtin_memcpy(source, &ip6->saddr, sizeof(*source));
	}
	return 0;
}

/* CLOCK_MONOTONIC by ticks, but for the part of a second that the system had run before its first one. */
static __always_inline __u64 tick_clock(void)
{
	return (bpf_jiffies64() - cfg.first_jiffy) * cfg.tick_ns;
}

static __always_inline __u64 limit_clock(const struct xg_limit *limit)
{
	return limit->exact ? bpf_ktime_get_ns() : tick_clock();
}

/* Leaves of a source the bits that are asked for, in network order. */
static __always_inline void mask_source(__u32 family, struct limit_source *source, __u32 mask4,
					__u64 mask6_first, __u64 mask6_rest)
{
	if (family == 4) {
		source->first &= mask4;
	} else if (family == 6) {
		source->first &= mask6_first;
		source->rest &= mask6_rest;
	}
}

#define GOLDEN_RATIO 0x9e3779b97f4a7c15 /* of 2^64, odd */

/* The other multipliers are those of splitmix64. */
static __always_inline __u64 hash_source(__u64 seed, __u32 family,
					 const struct limit_source *source)
{
	__u64 x = ((seed + family * GOLDEN_RATIO) ^ source->first) * GOLDEN_RATIO;

	x ^= x >> 32;
	x = (x ^ source->rest) * 0xbf58476d1ce4e5b9;
	x ^= x >> 32;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 32;
}

/*
 * Writes down who is over the rate, for people to see: in the one of a few places that its key points at,
 * if whom that holds was not over the rate for a second. `ts_ns` is set by compare-and-swap, so that one CPU
 * writes; `busy` keeps readers off.
 */
static __always_inline void note_offender(const __u32 *slot, __u32 family,
					  const struct limit_source *source, __u64 key, __u64 now)
{
	struct xg_offender *offender = bpf_map_lookup_elem(&limit_offenders, slot);
	__u64 *addr, seen;

	if (!offender)
		return;
	offender += key >> XG_LIMIT_TIME_BITS & (XG_OFFENDERS - 1);
	addr = (void *)offender->addr;
	seen = *(volatile __u64 *)&offender->ts_ns;
	if (addr[0] == source->first && addr[1] == source->rest && offender->family == family) {
		if (now - seen >= 1ULL << 28)
			*(volatile __u64 *)&offender->ts_ns = now;
		return;
	}
	if (now - seen < 1000000000 ||
	    __sync_val_compare_and_swap(&offender->ts_ns, seen, now) != seen)
		return;
	*(volatile __u32 *)&offender->busy = 1;
	addr[0] = source->first;
	addr[1] = source->rest;
	offender->family = family;
	*(volatile __u32 *)&offender->busy = 0;
}

/*
 * The cost in whole ns. A fraction of one counts as a whole as often as it is large, by chance, which is taken
 * from the bucket's number: it is never the same twice.
 */
static __always_inline __u64 whole_ns(__u64 cost, __u64 bucket)
{
	__u64 chance = bucket * GOLDEN_RATIO;

	chance ^= chance >> 32;
	chance *= GOLDEN_RATIO;
	return (cost + (chance >> (64 - XG_LIMIT_FRACTION_BITS))) >> XG_LIMIT_FRACTION_BITS;
}

/*
 * Takes the packet's cost from a bucket. True: there is not enough left, and nothing is taken. Where another
 * source gets the bucket between look and add, one packet is judged by that one's.
 */
static __always_inline bool overcharged(__u64 *bucket, __u64 key, __u64 now, __u64 cost,
					__u64 depth)
{
	__u64 seen = *(volatile __u64 *)bucket;
	__s64 ahead = seen - key - now;

	cost = whole_ns(cost, seen);
	if (ahead < 0) {
		if (__sync_val_compare_and_swap(bucket, seen, key + now + cost) == seen)
			return false;
		ahead = *(volatile __u64 *)bucket - key - now;
	}
	if (ahead > (__s64)depth)
		return true;
	ahead = __sync_fetch_and_add(bucket, cost) - key - now;
	if (ahead <= (__s64)depth)
		return false;
	__sync_fetch_and_add(bucket, -cost);
	return true;
}

/* Which of a line's buckets has the key: the first, as a race may have left two; or XG_LIMIT_WAYS. */
static __always_inline __u32 find_bucket(const struct xg_limit_line *line, __u64 key, __u64 now)
{
	__u64 earliest = key + now - (LIMIT_TIME >> 1);
	__u32 i;

	for (i = 0; i < XG_LIMIT_WAYS; i++) {
		__u64 bucket = *(const volatile __u64 *)&line->bucket[i];

		if (!((bucket - earliest) >> XG_LIMIT_TIME_BITS))
			break;
	}
	return i;
}

/*
 * The bucket that is ahead of the clock the least, and what is in it. How far behind, plus
 * cfg.limit_deepest_ns, is no less than 0 for any: a number of 44 bits, compared without branches, with
 * the bucket's place in the bits below.
 */
static __always_inline __u32 emptiest_bucket(const struct xg_limit_line *line, __u64 now)
{
	__u64 best = 0;

	for (__u32 i = 0; i < XG_LIMIT_WAYS; i++) {
		__u64 bucket = *(const volatile __u64 *)&line->bucket[i];
		__u64 rank = ((now + cfg.limit_deepest_ns - bucket) & LIMIT_TIME) << 3 | i;
		__u64 below = best - rank;

		opaque(below);
		best += (rank - best) * (below >> 63);
	}
	opaque(best);
	return best & (XG_LIMIT_WAYS - 1);
}

/* Again where another CPU took the bucket that was to be this source's, maybe for it. */
#define LIMIT_TRIES 2

/* `at` is room for the keys of lookups: one for all, as the stack is short. */
static __always_inline bool source_over_rate(const struct xg_limit *limit, __u32 family,
					     struct limit_source *source, __u64 now, __u64 cost,
					     __u32 *at)
{
	const __u64 *mask6 = (const void *)limit->mask6;
	struct xg_limit_line *line;
	__u64 hash, key;

	mask_source(family, source, limit->mask4, mask6[0], mask6[1]);
	hash = hash_source(limit->seed, family, source);
	key = hash & ~LIMIT_TIME;
	*at = hash & (XG_LIMIT_LINES - 1);
	line = bpf_map_lookup_elem(&limit_lines, at);
	if (!line)
		return false;
	for (int i = 0; i < LIMIT_TRIES; i++) {
		__u64 seen, fresh = key + now, *bucket;
		__u32 way = find_bucket(line, key, now);

		if (way < XG_LIMIT_WAYS) {
			if (!overcharged(&line->bucket[way], key, now, cost, limit->depth_ns))
				return false;
			*at = limit->slot;
			note_offender(at, family, source, key, now);
			return true;
		}
		bucket = &line->bucket[emptiest_bucket(line, now)];
		seen = *(volatile __u64 *)bucket;
		fresh += whole_ns(cost, fresh);
		if (__sync_val_compare_and_swap(bucket, seen, fresh) == seen)
			return false;
	}
	return false;
}

/* Whether a packet of `len` bytes from this source is over the rate of a limit; if not, it has paid. */
static __always_inline bool over_limit(__u32 number, __u32 family, struct limit_source *source,
				       __u32 len)
{
	const struct xg_limit *limit;
	__u64 now, cost, *bucket;
	__u32 at = number;

	limit = bpf_map_lookup_elem(&limits, &at);
	if (!limit)
		return false;
	now = limit_clock(limit);
	cost = limit->cost * (limit->bytes ? len : 1);
	if (limit->per_source)
		return source_over_rate(limit, family, source, now, cost, &at);
	at = limit->slot;
	bucket = bpf_map_lookup_elem(&limit_buckets, &at);
	return bucket && overcharged(bucket, 0, now, cost, limit->depth_ns);
}

/* What a limit must know of a packet, in one number. */
static __always_inline __u64 limit_packet(const struct pkt *pkt)
{
	return (__u64)pkt->family << 48 | (__u64)pkt->l3 << 32 | pkt->len;
}

/*
 * Whether the packet is over the rate of a limit; if not, it has paid. `packet` is its limit_packet(). Global, so
 * that the verifier walks it once, wherever and however often it is called.
 */
__noinline int over_rate(struct xdp_md *ctx, __u32 number, __u64 packet)
{
	struct limit_source source = {};
	__u32 family = packet >> 48;

	if (limit_source(ctx, family, packet >> 32, &source))
		return 0;
	return over_limit(number, family, &source, packet);
}

#endif
