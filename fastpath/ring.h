/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * ring.h - one end of a ring that is shared with the kernel (net/xdp/xsk_queue.h).
 *
 * Two indices that only grow, mod 2^32: the producer's and the consumer's; index & mask is the place
 * in the ring. Each side writes its own index and reads the other's. So that this costs no cache
 * miss a descriptor, both are cached: ours is published once a batch, theirs is read only when the
 * cached one says that there is no room, or nothing to take.
 *
 *   producer (fill, TX)                       consumer (RX, completion)
 *     ring_room      acquire *consumer          ring_filled    acquire *producer
 *     ring_put...                               ring_at...
 *     ring_publish   release *producer          ring_give_back release *consumer
 *
 * The acquire of the producer's index makes the descriptors visible that were written before its
 * release; the release of the consumer's keeps the producer from writing over what is still read.
 *
 * Invariant: consumer <= producer <= consumer + size, mod 2^32.
 */
#ifndef XG_RING_H
#define XG_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/if_xdp.h>

/* The kernel's indices are u32, lock-free wherever it runs. */
_Static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t), "not the kernel's index");

struct ring {
	_Atomic uint32_t *producer;
	_Atomic uint32_t *consumer;
	const _Atomic uint32_t *flags;
	void *entries; /* uint64_t of fill and completion, struct xdp_desc of RX and TX */
	uint32_t size; /* 0: no such ring */
	uint32_t mask;
	uint32_t cached_producer;
	uint32_t cached_consumer;
	void *map;
	size_t map_bytes;
};

/* Entries that we may put, up to `wanted` exact: more only if known without asking. */
static inline uint32_t ring_room(struct ring *ring, uint32_t wanted)
{
	uint32_t room = ring->cached_consumer + ring->size - ring->cached_producer;

	if (room >= wanted)
		return room;
	ring->cached_consumer = atomic_load_explicit(ring->consumer, memory_order_acquire);
	return ring->cached_consumer + ring->size - ring->cached_producer;
}

static inline void ring_put_addr(struct ring *ring, uint64_t addr)
{
	((uint64_t *)ring->entries)[ring->cached_producer++ & ring->mask] = addr;
}

static inline void ring_put_desc(struct ring *ring, uint64_t addr, uint32_t len, uint32_t options)
{
	struct xdp_desc *desc =
		(struct xdp_desc *)ring->entries + (ring->cached_producer++ & ring->mask);

	desc->addr = addr;
	desc->len = len;
	desc->options = options;
}

static inline void ring_publish(struct ring *ring)
{
	atomic_store_explicit(ring->producer, ring->cached_producer, memory_order_release);
}

/* Entries that we may take, up to `wanted` exact. */
static inline uint32_t ring_filled(struct ring *ring, uint32_t wanted)
{
	uint32_t filled = ring->cached_producer - ring->cached_consumer;

	if (filled >= wanted)
		return filled;
	ring->cached_producer = atomic_load_explicit(ring->producer, memory_order_acquire);
	return ring->cached_producer - ring->cached_consumer;
}

/* The n-th entry that was not taken yet. */
static inline uint64_t ring_addr_at(const struct ring *ring, uint32_t n)
{
	return ((const uint64_t *)ring->entries)[(ring->cached_consumer + n) & ring->mask];
}

static inline const struct xdp_desc *ring_desc_at(const struct ring *ring, uint32_t n)
{
	return (const struct xdp_desc *)ring->entries + ((ring->cached_consumer + n) & ring->mask);
}

static inline void ring_give_back(struct ring *ring, uint32_t n)
{
	ring->cached_consumer += n;
	atomic_store_explicit(ring->consumer, ring->cached_consumer, memory_order_release);
}

/*
 * Does the kernel want a system call to go on? To be asked after ring_publish(): the fence keeps the
 * load of the flag behind the store of the index, or both sides may wait for each other.
 */
static inline int ring_needs_wakeup(const struct ring *ring)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(ring->flags, memory_order_relaxed) & XDP_RING_NEED_WAKEUP;
}

/* What lies in the ring now; any thread may ask. */
static inline uint32_t ring_level(const struct ring *ring)
{
	uint32_t consumer, producer;

	if (!ring->size)
		return 0;
	consumer = atomic_load_explicit(ring->consumer, memory_order_relaxed);
	producer = atomic_load_explicit(ring->producer, memory_order_relaxed);
	/* Two loads are no snapshot: one may have moved on meanwhile. */
	return producer - consumer <= ring->size ? producer - consumer : 0;
}

#endif
