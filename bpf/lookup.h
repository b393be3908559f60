/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lookup.h - from a value to what a table says of it.
 *
 * A table is a step function: ends in ascending order, and what holds up to each of them. It is
 * looked up 16 bits at a time. A node is the function of one such stride; what it finds is a value,
 * or the node of the next stride. So a prefix set of a million costs what one of a hundred costs, and
 * the lines that memory has to bring: three for an IPv4 address.
 *
 * A node is made of cache lines and as small as its steps allow: a leaf, or a line of ends that names
 * the leaf, or two such lines in a row, or, where even that is full, one value per number. Steps that
 * only say "in the set" and "not in it", in turn, take one line or two. An end is found by counting
 * those that are lower, four to a word and without a branch, as branches would make 32 paths of one
 * lookup to the verifier, and misses to the CPU.
 *
 * The first stride is what each packet comes by: there is a value per number, in pages, of which equal ones
 * are there once. Two loads in a row take a third of the time that counting takes.
 *
 * Invariant: what a node points to is inside the map. Where it is not, the lookup finds XG_BROKEN.
 */
#ifndef XG_LOOKUP_H
#define XG_LOOKUP_H

#include "parse.h"

#define XG_BROKEN 0xffffffffU /* a node that is nowhere: no value that is whole */
#define XG_REF_NODE ((__u32)XG_REF_LEAF) /* the bit that nodes have, and values do not */

#define LANES 0x0000ffff0000ffffULL /* two numbers of 16 bits, with room above each */
#define ABOVE 0x0001000000010000ULL
#define TWICE 0x0000000100000001ULL

static __always_inline const void *line_at(__u32 at)
{
	return bpf_map_lookup_elem(&lines, &at);
}

/* 1 where end < x, else 0; both below 2^63. */
static __always_inline __u64 is_below(__u64 end, __u64 x)
{
	end -= x;
	opaque(end);
	return end >> 63;
}

/* Which of the four numbers in a word are not below x: a bit each in two fields of 16 bits. */
static __always_inline __u64 not_below(__u64 four, __u64 twice_x)
{
	__u64 even = ((four & LANES) | ABOVE) - twice_x;
	__u64 odd = ((four >> 16 & LANES) | ABOVE) - twice_x;

	return (even & ABOVE) + (odd & ABOVE);
}

/* How many of a leaf's ends are below x. */
static __always_inline __u32 leaf_rank(const struct xg_leaf *leaf, __u32 x)
{
	const __u64 *ends = (const void *)leaf->end;
	__u64 block = is_below(leaf->end[3], x) + is_below(leaf->end[7], x), rest;

	opaque(block);
	block &= 3;
	if (block > 2) /* never: for the verifier */
		return 0;
	rest = not_below(ends[block], x * TWICE);
	return block * 4 + 4 - ((rest >> 16 & 7) + (rest >> 48));
}

/* How many of a line of ends are below x. */
static __always_inline __u32 index_rank(const struct xg_index *index, __u32 x)
{
	const __u64 *ends = (const void *)index;
	__u64 block, rest;

	block = is_below(index->end[7], x) + is_below(index->end[15], x) +
		is_below(index->end[23], x);
	opaque(block);
	block &= 3;
	rest = not_below(ends[block * 2], x * TWICE) + not_below(ends[block * 2 + 1], x * TWICE);
	return block * 8 + 8 - ((rest >> 16 & 15) + (rest >> 48));
}

/* Of steps that take turns it matters only how many ends are below x modulo 2. */
static __always_inline __u32 in_turn(const struct xg_turns *turns, __u32 x)
{
	const __u64 *ends = (const void *)turns->end;
	__u64 block = 0, rest;

	for (int i = 3; i < XG_TURNS_STEPS - 4; i += 4)
		block += is_below(turns->end[i], x);
	opaque(block);
	block &= 7;
	if (block > 6) /* never: for the verifier */
		return XG_BROKEN;
	rest = not_below(ends[block], x * TWICE);
	rest = (rest >> 16) + (rest >> 48);
	opaque(rest);
	return turns->value[rest & 1];
}

static __always_inline __u32 direct(__u32 at, __u32 x)
{
	const __u32 *values = line_at(at + x / XG_DIRECT_VALUES);

	return values ? values[x % XG_DIRECT_VALUES] : XG_BROKEN;
}

/* What a node finds for one stride of a value. */
static __always_inline __u32 step(__u32 node, __u32 x)
{
	__u32 kind = node & XG_REF_KIND, at = node & XG_REF_LINE, rank;
	const struct xg_turns *turns;
	const struct xg_index *index;
	const struct xg_leaf *leaf;

	if (kind == XG_REF_DIRECT)
		return direct(at, x);
	if (kind == XG_REF_PAGES)
		return direct(direct(at, x / XG_PAGE_VALUES) & XG_REF_LINE, x % XG_PAGE_VALUES);
	if (kind == XG_REF_TURNS2) {
		turns = line_at(at);
		if (!turns)
			return XG_BROKEN;
		at += is_below(turns->end[XG_TURNS_STEPS - 1], x);
	}
	if (kind == XG_REF_TURNS2 || kind == XG_REF_TURNS) {
		turns = line_at(at);
		return turns ? in_turn(turns, x) : XG_BROKEN;
	}
	if (kind == XG_REF_INDEX2) {
		index = line_at(at);
		if (!index)
			return XG_BROKEN;
		at += 1 + index_rank(index, x) * (1 + XG_INDEX_ENDS);
	}
	if (kind != XG_REF_LEAF) {
		index = line_at(at);
		if (!index)
			return XG_BROKEN;
		at += 1 + index_rank(index, x);
	}
	leaf = line_at(at);
	if (!leaf)
		return XG_BROKEN;
	rank = leaf_rank(leaf, x);
	opaque(rank);
	return leaf->value[rank & 15];
}

/* Of a table of one stride. */
static __always_inline __u32 find(__u32 root, __u32 x)
{
	return root & XG_REF_NODE ? step(root, x) : root;
}

/* Of a table of 32 bits. */
static __always_inline __u32 find4(__u32 root, __u32 address)
{
	__u32 ref = find(root, address >> XG_STRIDE_BITS);

	return find(ref, address & 0xffff);
}

/* Of a table of 128 bits. The halves are in host order. */
static __always_inline __u32 find6(__u32 ref, __u64 high, __u64 low)
{
	__u32 stride = 0;

	for (int i = 0; i < 8; i++) {
		if (!(ref & XG_REF_NODE))
			break;
		if ((ref & XG_REF_KIND) == XG_REF_PATH) {
			const struct xg_path *path = line_at(ref & XG_REF_LINE);

			if (!path)
				return XG_BROKEN;
			if (((high ^ path->wanted[0]) & path->mask[0]) |
			    ((low ^ path->wanted[1]) & path->mask[1])) {
				ref = path->miss;
			} else {
				ref = path->hit;
				stride = path->next;
			}
		} else {
			__u64 half = high ^ ((high ^ low) & -(__u64)(stride >> 2 & 1));

			ref = step(ref, half >> (48 - XG_STRIDE_BITS * (stride & 3)) & 0xffff);
			stride++;
		}
		opaque(stride);
	}
	return ref;
}

#endif
