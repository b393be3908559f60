// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * umem.c - the memory of the frames, and the ledger of who owns which chunk; see xg_xsk.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "xsk_internal.h"

#define HUGE_PAGE_BYTES (2UL << 20)

static int map_area(size_t bytes, uint8_t **out, size_t *out_bytes, int *hugepages)
{
	size_t rounded = (bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *area;

	area = mmap(NULL, rounded, prot, flags | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (area != MAP_FAILED) {
		*hugepages = 1;
		*out_bytes = rounded;
		*out = area;
		return 0;
	}
	/* Populated now: later each page would cost a fault in the middle of traffic. */
	area = mmap(NULL, bytes, prot, flags | MAP_POPULATE, -1, 0);
	if (area == MAP_FAILED)
		return -errno;
	*hugepages = 0;
	*out_bytes = bytes;
	*out = area;
	return 0;
}

static uint32_t log2_of(uint32_t power)
{
	uint32_t shift = 0;

	while (power >> shift > 1)
		shift++;
	return shift;
}

int xg_umem_create(uint32_t chunks, uint32_t chunk_bytes, struct xg_umem **out)
{
	struct xg_umem *umem;
	uint32_t i;
	int err;

	if (chunks == 0 || chunks > XG_CHUNKS_MAX || chunk_bytes < XG_CHUNK_BYTES_MIN ||
	    chunk_bytes > (unsigned long)sysconf(_SC_PAGESIZE) || chunk_bytes & (chunk_bytes - 1))
		return -EINVAL;
	umem = calloc(1, sizeof(*umem));
	if (!umem)
		return -ENOMEM;
	umem->chunks = chunks;
	umem->chunk_bytes = chunk_bytes;
	umem->chunk_shift = log2_of(chunk_bytes);
	umem->free = calloc(chunks, sizeof(*umem->free));
	umem->where = calloc(chunks, sizeof(*umem->where));
#ifdef XG_DEBUG
	umem->owner = calloc(chunks, sizeof(*umem->owner)); /* OWNER_FREE, all */
	if (!umem->owner) {
		err = -ENOMEM;
		goto free_umem;
	}
#endif
	if (!umem->free || !umem->where) {
		err = -ENOMEM;
		goto free_umem;
	}
	err = map_area((size_t)chunks * chunk_bytes, &umem->area, &umem->bytes, &umem->hugepages);
	if (err)
		goto free_umem;
	for (i = 0; i < chunks; i++) {
		umem->free[i] = chunks - 1 - i; /* the first one lies on top */
		umem->where[i] = NO_QUEUE;
	}
	atomic_store_explicit(&umem->owned[OWNER_FREE], chunks, memory_order_relaxed);
	*out = umem;
	return 0;

free_umem:
#ifdef XG_DEBUG
	free(umem->owner);
#endif
	free(umem->where);
	free(umem->free);
	free(umem);
	return err;
}

uint8_t *xg_umem_area(const struct xg_umem *umem)
{
	return umem->area;
}

size_t xg_umem_size_bytes(const struct xg_umem *umem)
{
	return (size_t)umem->chunks * umem->chunk_bytes;
}

uint32_t xg_umem_chunk_bytes(const struct xg_umem *umem)
{
	return umem->chunk_bytes;
}

int xg_umem_hugepages(const struct xg_umem *umem)
{
	return umem->hugepages;
}

void xg_umem_ledger(const struct xg_umem *umem, struct xg_ledger *out)
{
	uint32_t owned[OWNERS], i;

	for (i = 0; i < OWNERS; i++)
		owned[i] = atomic_load_explicit(&umem->owned[i], memory_order_relaxed);
	out->chunks = umem->chunks;
	out->free = owned[OWNER_FREE];
	out->receiving = owned[OWNER_RECEIVING];
	out->held = owned[OWNER_HELD];
	out->sending = owned[OWNER_SENDING];
}

void xg_umem_free(struct xg_umem *umem)
{
	if (!umem)
		return;
	munmap(umem->area, umem->bytes);
#ifdef XG_DEBUG
	free(umem->owner);
#endif
	free(umem->where);
	free(umem->free);
	free(umem);
}
