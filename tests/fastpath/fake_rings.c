// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fake_rings.c - the fake kernel's end of the rings, and its ledger of the chunks; see fake_xdp.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_kernel.h"

/* ---- Who has which chunk ----------------------------------------------------------------------- */

static uint32_t chunk_of(const struct kumem *umem, uint64_t addr)
{
	if (addr >= umem->bytes)
		die("address %#llx is behind the UMEM's end", (unsigned long long)addr);
	return (uint32_t)(addr / umem->chunk_bytes);
}

void pass_on(struct kpool *pool, uint64_t addr, enum holder from, enum holder to)
{
	struct kumem *umem = pool->umem;
	uint32_t chunk = chunk_of(umem, addr);
	uint8_t *at = umem->area + (uint64_t)chunk * umem->chunk_bytes;

	if (umem->holder[chunk] != from)
		die("chunk %u is given twice: it is %s already", chunk,
		    umem->holder[chunk] == SENDING ? "being sent" : "receiving");
	umem->holder[chunk] = (uint8_t)to;
	umem->pool[chunk] = to == USER ? NO_POOL : (uint8_t)(pool - pools);
	umem->count[from]--;
	umem->count[to]++;
	if (to == RECEIVING)
		POISON(at, umem->chunk_bytes);
	else if (from == RECEIVING)
		UNPOISON(at, umem->chunk_bytes);
}

uint64_t hash_of(const uint8_t *bytes, uint32_t length)
{
	uint64_t hash = length, word;

	for (; length >= 8; bytes += 8, length -= 8) {
		memcpy(&word, bytes, 8);
		hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
		hash ^= hash >> 29;
	}
	word = 0;
	memcpy(&word, bytes, length);
	return (hash ^ word) * 0x9e3779b97f4a7c15u;
}

/* ---- Rings ------------------------------------------------------------------------------------- */

int ring_make(struct kring *ring, uint32_t size, int producer, int descs)
{
	*ring = (struct kring){ .size = size, .ours = plan.index, .seen = plan.index };
	ring->bytes = RING_ENTRIES + (size_t)size * (descs ? sizeof(struct xdp_desc) : 8);
	ring->fd = memfd_create("ring", MFD_CLOEXEC);
	CHECK(ring->fd >= 0 && !ftruncate(ring->fd, (off_t)ring->bytes));
	ring->map = real_map(ring->bytes, ring->fd);
	ring->copy = kernel_alloc(size, sizeof(*ring->copy));
	ring->our_index = (_Atomic uint32_t *)(void *)(ring->map +
						       (producer ? RING_PRODUCER : RING_CONSUMER));
	ring->their_index = (_Atomic uint32_t *)(void *)(ring->map + (producer ? RING_CONSUMER
									       : RING_PRODUCER));
	ring->flags = (_Atomic uint32_t *)(void *)(ring->map + RING_FLAGS);
	ring->shown = plan.index;
	atomic_store(ring->our_index, plan.index);
	atomic_store((_Atomic uint32_t *)ring->their_index, plan.index);
	return 0;
}

void ring_unmake(struct kring *ring)
{
	if (!ring->map)
		return;
	real_unmap(ring->map, ring->bytes);
	real_close(ring->fd);
	kernel_free(ring->copy);
	memset(ring, 0, sizeof(*ring));
}

void show(struct kring *ring, uint32_t index)
{
	ring->shown = index;
	atomic_store_explicit(ring->our_index, index, memory_order_release);
}

static struct xdp_desc entry_of(const struct kring *ring, uint32_t index, int descs)
{
	uint32_t at = index & (ring->size - 1);
	struct xdp_desc entry = { 0 };

	if (descs)
		entry = ((const struct xdp_desc *)(void *)(ring->map + RING_ENTRIES))[at];
	else
		entry.addr = ((const uint64_t *)(void *)(ring->map + RING_ENTRIES))[at];
	return entry;
}

static void check_ours(const struct kring *ring)
{
	if (atomic_load_explicit(ring->our_index, memory_order_relaxed) != ring->shown)
		die("the kernel's index was written by the user");
}

/* A ring that the user fills: its new entries are the kernel's from now on. */
static void look_at_theirs(struct kpool *pool, struct kring *ring, int descs)
{
	uint32_t theirs;

	if (!ring->map)
		return;
	check_ours(ring);
	theirs = atomic_load_explicit(ring->their_index, memory_order_acquire);
	if (theirs - ring->shown > ring->size)
		die("a producer runs over the consumer: %u entries in a ring of %u",
		    theirs - ring->shown, ring->size);
	for (; ring->seen != theirs; ring->seen++) {
		struct xdp_desc *copy = &ring->copy[ring->seen & (ring->size - 1)];

		*copy = entry_of(ring, ring->seen, descs);
		pass_on(pool, copy->addr, USER, descs ? SENDING : RECEIVING);
	}
}

/* A ring that the user empties: what he has taken is his. */
static void look_at_ours(struct kpool *pool, struct kring *ring, enum holder from)
{
	uint32_t theirs;

	if (!ring->map)
		return;
	check_ours(ring);
	theirs = atomic_load_explicit(ring->their_index, memory_order_acquire);
	if (ring->shown - theirs > ring->size)
		die("a consumer runs past the producer");
	for (; ring->seen != theirs; ring->seen++)
		pass_on(pool, ring->copy[ring->seen & (ring->size - 1)].addr, from, USER);
}

void look(void)
{
	int i;

	/* First what he took: he may have given it again. The other way round needs us in between. */
	for (i = 0; i < SOCKETS; i++) {
		if (pools[i].umem)
			look_at_ours(&pools[i], &pools[i].completion, SENDING);
		if (sockets[i].fd && sockets[i].pool)
			look_at_ours(sockets[i].pool, &sockets[i].rx, RECEIVING);
	}
	for (i = 0; i < SOCKETS; i++) {
		if (pools[i].umem)
			look_at_theirs(&pools[i], &pools[i].fill, 0);
		if (sockets[i].fd && sockets[i].pool)
			look_at_theirs(sockets[i].pool, &sockets[i].tx, 1);
	}
}

struct xdp_desc take(struct kring *ring, int descs)
{
	struct xdp_desc entry = entry_of(ring, ring->ours, descs);
	const struct xdp_desc *copy = &ring->copy[ring->ours & (ring->size - 1)];

	if (memcmp(&entry, copy, sizeof(entry)))
		die("an entry was changed after it was published");
	ring->ours++;
	return entry;
}

void put(struct kring *ring, const struct xdp_desc *entry, int descs)
{
	uint32_t at = ring->ours & (ring->size - 1);

	ring->copy[at] = *entry;
	if (descs)
		((struct xdp_desc *)(void *)(ring->map + RING_ENTRIES))[at] = *entry;
	else
		((uint64_t *)(void *)(ring->map + RING_ENTRIES))[at] = entry->addr;
	ring->ours++;
}

uint32_t room_in(const struct kring *ring)
{
	return ring->size - (ring->ours - ring->seen);
}

/*
 * Of a socket that is closed. What the kernel has not taken from its TX ring stays `sending` as long
 * as the pool lives: the user cannot tell it from what was taken and is still to be completed.
 */
void give_up_rings(struct ksocket *xs)
{
	struct kpool *pool = xs->pool;
	uint32_t i;

	/* xsk_drop_skb(): half a frame is completed, and not sent. */
	for (i = 0; i < xs->partials; i++) {
		struct sent *part =
			&pool->flight[(pool->first + pool->n++) % pool->completion.size];

		*part = xs->partial[i];
		part->hash = hash_of(pool->umem->area + part->addr, part->length);
	}
	pool->reserved -= xs->partials;
	if (xs->tx.map)
		pool->forgotten += xs->tx.seen - xs->tx.ours;
	if (xs->rx.map)
		for (i = xs->rx.seen; i != xs->rx.ours; i++)
			pass_on(pool, xs->rx.copy[i & (xs->rx.size - 1)].addr, RECEIVING, USER);
}

void give_up_pool(struct kpool *pool)
{
	struct kumem *umem = pool->umem;
	uint32_t i;

	for (i = 0; i < umem->chunks; i++)
		if (umem->holder[i] != USER && umem->pool[i] == pool - pools)
			pass_on(pool, (uint64_t)i * umem->chunk_bytes, umem->holder[i], USER);
}

/* ---- What the tests ask ------------------------------------------------------------------------ */

void fake_look(const uint8_t *area, struct fake_ledger *out)
{
	look();
	*out = (struct fake_ledger){ 0 };
	for (int i = 0; i < SOCKETS; i++) {
		const struct kumem *umem = sockets[i].umem;

		if (!sockets[i].fd || !umem || umem->area != area)
			continue;
		out->chunks = umem->chunks;
		out->user = umem->count[USER];
		out->receiving = umem->count[RECEIVING];
		out->sending = umem->count[SENDING];
		for (int k = 0; k < SOCKETS; k++)
			if (pools[k].umem == umem)
				out->forgotten += pools[k].forgotten;
		return;
	}
}

void fake_levels(int fd, struct fake_levels *out)
{
	const struct ksocket *xs = socket_of(fd);

	look();
	out->rx = xs->rx.map ? xs->rx.ours - xs->rx.seen : 0;
	out->tx = xs->tx.map ? xs->tx.seen - xs->tx.ours : 0;
	out->fill = xs->pool->fill.seen - xs->pool->fill.ours;
	out->completion = xs->pool->completion.ours - xs->pool->completion.seen;
	out->in_flight = xs->pool->n;
}
