// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * debug.c - the ledger, chunk by chunk, in builds with -DXG_DEBUG: tells what is wrong and ends the
 * process, because from then on somebody else's frame would be overwritten.
 */
#include "xsk_internal.h"

#ifdef XG_DEBUG
#include <stdio.h>
#include <stdlib.h>

static const char *const owner_names[OWNERS] = { "free", "receiving", "held", "sending" };

void xg_debug_hand(struct xg_umem *umem, uint64_t addr, enum owner from, enum owner to)
{
	uint64_t chunk = addr >> umem->chunk_shift;

	if (chunk >= umem->chunks) {
		fprintf(stderr, "ledger: address %#llx is in no chunk\n", (unsigned long long)addr);
		abort();
	}
	if (umem->owner[chunk] != from) {
		fprintf(stderr, "ledger: chunk %llu goes from %s to %s, and is %s\n",
			(unsigned long long)chunk, owner_names[from], owner_names[to],
			owner_names[umem->owner[chunk]]);
		abort();
	}
	umem->owner[chunk] = (uint8_t)to;
}

void xg_debug_ledger(const struct xg_umem *umem)
{
	uint32_t count[OWNERS] = { 0 }, i;
	struct xg_ledger said;

	for (i = 0; i < umem->chunks; i++)
		count[umem->owner[i]]++;
	xg_umem_ledger(umem, &said);
	if (count[OWNER_FREE] != said.free || count[OWNER_RECEIVING] != said.receiving ||
	    count[OWNER_HELD] != said.held || count[OWNER_SENDING] != said.sending) {
		fprintf(stderr,
			"ledger: says free %u receiving %u held %u sending %u, is %u %u %u %u\n",
			said.free, said.receiving, said.held, said.sending, count[OWNER_FREE],
			count[OWNER_RECEIVING], count[OWNER_HELD], count[OWNER_SENDING]);
		abort();
	}
}
#else
/* An empty file is no C. */
typedef int xg_no_debug;
#endif
