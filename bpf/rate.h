/* SPDX-License-Identifier: GPL-2.0-only */
/* rate.h - how often something may be told. */
#ifndef XG_RATE_H
#define XG_RATE_H

#include <stdbool.h>

#include "abi.h"

/*
 * GCRA: the bucket holds the time at which the next event would be due at exactly the rate. Three tries
 * against another CPU; who loses all of them is over the rate (two CPUs on one bucket stayed within 4 % of
 * the rate so, while ignoring a lost race let 1.6 times the rate through).
 */
static __always_inline bool take_turn(__u64 *arrival, const struct xg_rate *rate, __u64 now)
{
	for (int i = 0; i < 3; i++) {
		__u64 seen = *(volatile __u64 *)arrival;
		__u64 start = seen > now ? seen : now;

		if (start - now > rate->burst_ns)
			return false;
		if (__sync_val_compare_and_swap(arrival, seen, start + rate->interval_ns) == seen)
			return true;
	}
	return false;
}

#endif
