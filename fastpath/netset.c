// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Files of addresses into columns of prefixes: see xg_netset.h.
 *
 * Every function takes a piece of the text by its two ends, begin and end; nothing reads outside.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "xg_netset.h"

struct address {
	uint64_t hi; /* 0 for IPv4 */
	uint64_t lo;
	unsigned int width; /* 32 or 128 */
};

struct piece {
	const char *begin;
	const char *end;
};

/* What Python's str.strip() takes away, too; of its other white space a line becomes odd. */
static bool is_blank(char byte)
{
	return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static struct piece stripped(const char *begin, const char *end)
{
	while (begin < end && is_blank(*begin))
		begin++;
	while (begin < end && is_blank(end[-1]))
		end--;
	return (struct piece){ begin, end };
}

static const char *find(struct piece in, char byte)
{
	return in.begin == in.end ? NULL : memchr(in.begin, byte, (size_t)(in.end - in.begin));
}

/* inet_pton(3) is what Python asks, too. */
static bool read_address(struct piece word, struct address *out)
{
	char text[INET6_ADDRSTRLEN];
	size_t len = (size_t)(word.end - word.begin);
	uint64_t halves[2];
	uint32_t addr;

	if (len == 0 || len >= sizeof(text) || find(word, '\0'))
		return false;
	memcpy(text, word.begin, len);
	text[len] = '\0';
	if (inet_pton(AF_INET, text, &addr) == 1) {
		*out = (struct address){ 0, ntohl(addr), 32 };
		return true;
	}
	if (inet_pton(AF_INET6, text, halves) != 1)
		return false;
	*out = (struct address){ be64toh(halves[0]), be64toh(halves[1]), 128 };
	return true;
}

/* A decimal number without leading zeros, from 0 to max, which has three digits at most. */
static bool read_bits(struct piece word, unsigned int max, unsigned int *out)
{
	unsigned int value = 0;

	if (word.begin == word.end || word.end - word.begin > 3)
		return false;
	if (*word.begin == '0' && word.end - word.begin > 1)
		return false;
	for (const char *at = word.begin; at < word.end; at++) {
		if (*at < '0' || *at > '9')
			return false;
		value = value * 10 + (unsigned int)(*at - '0');
	}
	*out = value;
	return value <= max;
}

/* n ones at the low end, n up to 64. */
static uint64_t ones(unsigned int n)
{
	return n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
}

/* The last address of the block that begins here and has 2^free addresses. */
static struct address block_end(struct address at, unsigned int free)
{
	at.lo |= ones(free < 64 ? free : 64);
	at.hi |= ones(free < 64 ? 0 : free - 64);
	return at;
}

static bool beyond(struct address a, struct address b)
{
	return a.hi > b.hi || (a.hi == b.hi && a.lo > b.lo);
}

static void add(struct xg_netset *set, struct address at, unsigned int bits)
{
	if (at.width == 32) {
		set->v4_addr[set->n4] = (uint32_t)at.lo;
		set->v4_bits[set->n4++] = (uint8_t)bits;
	} else {
		set->v6_hi[set->n6] = at.hi;
		set->v6_lo[set->n6] = at.lo;
		set->v6_bits[set->n6++] = (uint8_t)bits;
	}
}

/* The largest blocks, one behind the other: it takes XG_NETSET_LINE_ROWS at most. */
static void add_range(struct xg_netset *set, struct address at, struct address last)
{
	for (;;) {
		unsigned int free = at.width;
		struct address end;

		if (at.lo)
			free = (unsigned int)__builtin_ctzll(at.lo);
		else if (at.hi)
			free = 64 + (unsigned int)__builtin_ctzll(at.hi);
		while (beyond(block_end(at, free), last))
			free--;
		add(set, at, at.width - free);
		end = block_end(at, free);
		if (!beyond(last, end))
			return;
		at.lo = end.lo + 1;
		at.hi = end.hi + (at.lo == 0);
	}
}

static bool read_range(struct xg_netset *set, struct piece word, const char *dash)
{
	struct address first, last;

	if (!read_address(stripped(word.begin, dash), &first) ||
	    !read_address(stripped(dash + 1, word.end), &last))
		return false;
	if (first.width != last.width || beyond(first, last))
		return false;
	add_range(set, first, last);
	return true;
}

static bool read_prefix(struct xg_netset *set, struct piece word)
{
	const char *slash = find(word, '/');
	struct address at, end;
	unsigned int bits;

	if (!read_address((struct piece){ word.begin, slash ? slash : word.end }, &at))
		return false;
	bits = at.width;
	if (slash && !read_bits((struct piece){ slash + 1, word.end }, at.width, &bits))
		return false;
	end = block_end((struct address){ 0, 0, at.width }, at.width - bits);
	if ((at.hi & end.hi) || (at.lo & end.lo))
		return false;
	add(set, at, bits);
	return true;
}

/* One line without its end. False: it is odd, and nothing came of it. */
static bool read_line(struct xg_netset *set, const char *begin, const char *end)
{
	const char *comment = find((struct piece){ begin, end }, '#');
	struct piece word = stripped(begin, comment ? comment : end);
	const char *dash = find(word, '-');

	if (word.begin == word.end)
		return true;
	return dash ? read_range(set, word, dash) : read_prefix(set, word);
}

static bool has_room(const struct xg_netset *set)
{
	uint32_t enough = set->room - XG_NETSET_LINE_ROWS;

	return set->n4 <= enough && set->n6 <= enough && set->n_odd <= enough;
}

int xg_netset_read(const char *text, size_t len_bytes, struct xg_netset *set)
{
	if (set->room < XG_NETSET_LINE_ROWS || set->offset > len_bytes)
		return -EINVAL;
	while (set->offset < len_bytes && has_room(set)) {
		const char *begin = text + set->offset, *end = text + len_bytes;
		const char *newline = find((struct piece){ begin, end }, '\n');

		if (!read_line(set, begin, newline ? newline : end)) {
			set->odd_line[set->n_odd] = set->line;
			set->odd_offset[set->n_odd++] = set->offset;
		}
		set->offset = newline ? (uint64_t)(newline + 1 - text) : len_bytes;
		set->line++;
	}
	return 0;
}
