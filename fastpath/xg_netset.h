/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * xg_netset.h - files of addresses into columns of prefixes; a part of xg.h.
 *
 * A file has one address, prefix or range FIRST-LAST a line; '#' begins a comment. The reader takes
 * what it is sure of. Any other line, be it wrong or only unusual, is odd: the caller, who knows
 * the whole grammar and how to complain, looks at it. So the reader may refuse what is right, and
 * never takes what is wrong.
 */
#ifndef XG_NETSET_H
#define XG_NETSET_H

#include <stddef.h>
#include <stdint.h>

#ifndef XG_MUST_CHECK
#define XG_MUST_CHECK
#endif

/* A range makes at most 2 * 128 - 2 prefixes: rows that a line may need. */
enum xg_netset_limits { XG_NETSET_LINE_ROWS = 254 };

/*
 * The columns, the caller's, and how far they are filled. Addresses are numbers of the host's byte
 * order; their host bits are clear. Rows stand in the order of the lines.
 */
struct xg_netset {
	uint32_t *v4_addr;
	uint8_t *v4_bits;
	uint64_t *v6_hi;
	uint64_t *v6_lo;
	uint8_t *v6_bits;
	uint64_t *odd_line; /* number of an odd line, from 1 */
	uint64_t *odd_offset; /* where it begins, in bytes */
	uint32_t room; /* rows of each column */
	uint32_t n4; /* rows in use */
	uint32_t n6;
	uint32_t n_odd;
	uint64_t offset; /* where to go on, in bytes: 0 at first, the length at the end */
	uint64_t line; /* its number: 1 at first */
};

/*
 * Reads from set->offset on, until the text ends or a column may be too short for one more line:
 * then the caller takes the rows, sets n4, n6 and n_odd to 0 and calls again. -EINVAL: room for
 * less than XG_NETSET_LINE_ROWS, or offset behind the end.
 */
XG_MUST_CHECK int xg_netset_read(const char *text, size_t len_bytes, struct xg_netset *set);

#endif
