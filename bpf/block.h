/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * block.h - sources that control blocks, for a while or until further notice.
 *
 *   source -> block_lengths: which prefix lengths are in use?    none: done, which is one array lookup
 *          -> block_filter:  two bits of one line, for each      no: done, which is most of what is not blocked
 *          -> blocks:        its end                             over, or not there: done
 *          -> allowed, the SSH session
 *
 * One hash table holds all blocks, by address and prefix length. The filter before it is a Bloom filter of 512 KiB:
 * with 500,000 blocks, a source that is not blocked costs 30 ns in place of 350, which two cache misses
 * in a large table take; one in 25 goes on to the table.
 *
 * Lengths and filter hold more than the table at any time: who puts a block in writes them first, who takes one out
 * writes them last. They may be read half written, as any mix of the old bits and the new ones has all that are
 * in both.
 *
 * A block is over when its time has come, whether or not it was taken out of the table since. The clock is
 * CLOCK_BOOTTIME, which goes on while the machine sleeps; a block without an end does not ask for it.
 *
 * No block covers the sources that the policy allows (`allowed`), nor the operator's SSH session.
 */
#ifndef XG_BLOCK_H
#define XG_BLOCK_H

#include "guard.h"

/* The first 64 bits and the last ones of an address without what lies behind a prefix; without a branch. */
static __always_inline __u64 first_bits(__u32 bits)
{
	return ~(~0ULL >> (bits & 63)) | -(__u64)(bits >> 6 & 1) | -(__u64)(bits >> 7);
}

static __always_inline __u64 last_bits(__u32 bits)
{
	return (~(~0ULL >> (bits & 63)) & -(__u64)(bits >> 6 & 1)) | -(__u64)(bits >> 7);
}

/* Multiply and shift, with the constants of splitmix64; xdpgw/block_table.py has the same, in numpy. */
static __always_inline __u64 block_hash(const struct xg_block *key)
{
	__u64 hash = (key->high ^ key->bits) * GOLDEN_RATIO;

	hash ^= hash >> 32;
	hash = (hash ^ key->low) * 0xbf58476d1ce4e5b9;
	return hash ^ hash >> 29;
}

/* Bits 51 to 63 of the hash choose the line, 42 to 50 and 33 to 41 its bits. */
static __always_inline __u64 line_bit(const struct xg_line *line, __u32 at)
{
	__u32 word = at >> 6 & 7;

	opaque(word);
	return line->word[word & 7] >> (at & 63);
}

static __always_inline bool may_be_in(const struct xg_block *key)
{
	__u64 hash = block_hash(key);
	__u32 at = hash >> 51;
	const struct xg_line *line = bpf_map_lookup_elem(&block_filter, &at);

	return !line || line_bit(line, hash >> 42) & line_bit(line, hash >> 33) & 1;
}

static __always_inline bool is_allowed(__u32 family, __u64 high, __u64 low)
{
	struct xg_allowed key = { .bits = 8 * 17, .family = family };

	if (!cfg.allow)
		return false;
	high = bpf_cpu_to_be64(high);
	low = bpf_cpu_to_be64(low);
	__builtin_memcpy(key.addr, &high, sizeof(high));
	__builtin_memcpy(key.addr + sizeof(high), &low, sizeof(low));
	return bpf_map_lookup_elem(&allowed, &key);
}

/* An address as two numbers; IPv4 in the upper half of the first. */
static __always_inline int source_number(const struct pkt *pkt, __u64 *high, __u64 *low)
{
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		if (!ip)
			return -1;
		*high = (__u64)bpf_ntohl(ip->saddr) << 32;
		*low = 0;
	} else {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);

		if (!ip6)
			return -1;
		*high = half_of(&ip6->saddr, 0);
		*low = half_of(&ip6->saddr, 2);
	}
	return 0;
}

/*
 * Is there a block in force of this length over an address? This and the next ones are global functions of scalars,
 * so that the verifier walks each by itself: the loop over this one, inlined, cost 7,000 verified instructions
 * more, and all in one function 38,000 (6.18, clang 16).
 */
__noinline int one_block(__u64 high, __u64 low, __u32 bits, __u32 family)
{
	struct xg_block key = {
		.high = high & first_bits(bits),
		.low = low & last_bits(bits),
		.bits = bits,
		.family = family,
	};
	const __u64 *end;

	if (!may_be_in(&key))
		return false;
	end = bpf_map_lookup_elem(&blocks, &key);
	return end && (!*end || bpf_ktime_get_boot_ns() < *end);
}

/* Is there one of any of these lengths: bit n is length first + n? */
__noinline int any_block(__u64 high, __u64 low, __u64 lengths, __u32 first, __u32 family)
{
	for (int turn = 0; turn < 64 && lengths; turn++) {
		__u64 lowest = lengths & -lengths;

		opaque(lowest); /* or the verifier learns of `lengths` bit by bit */
		if (one_block(high, low, first + lowest_bit(lengths), family))
			return true;
		lengths ^= lowest;
	}
	return false;
}

/* Is the packet's source blocked? `head` and `more` as pack_head() and pack_more() give them. */
__noinline int is_blocked(struct xdp_md *ctx, __u64 head, __u64 more)
{
	struct pkt pkt = unpack(ctx, head, more);
	const struct xg_block_lengths *used;
	__u64 high, low;
	__u32 at = 0;
	bool found;

	used = bpf_map_lookup_elem(&block_lengths, &at);
	if (!used || source_number(&pkt, &high, &low))
		return false;
	if (pkt.family == 4)
		found = any_block(high, 0, used->v4, 0, 4);
	else
		found = (used->v6[2] && any_block(high, low, used->v6[2], 128, 6)) ||
			(used->v6[1] && any_block(high, low, used->v6[1], 64, 6)) ||
			(used->v6[0] && any_block(high, low, used->v6[0], 0, 6));
	return found && !is_allowed(pkt.family, high, low) && !is_session(&pkt);
}

static __always_inline bool blocked(struct xdp_md *ctx, const struct pkt *pkt)
{
	const struct xg_block_lengths *used;
	__u32 at = 0;

	if (!pkt->family)
		return false;
	used = bpf_map_lookup_elem(&block_lengths, &at);
	if (!used)
		return false;
	if (pkt->family == 4 ? !used->v4 : !(used->v6[0] | used->v6[1] | used->v6[2]))
		return false;
	return is_blocked(ctx, pack_head(pkt), pack_more(pkt));
}

#endif
