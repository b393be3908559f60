/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * xsk_internal.h - what the files of the AF_XDP half know of each other; see xg_xsk.h for the whole.
 */
#ifndef XG_XSK_INTERNAL_H
#define XG_XSK_INTERNAL_H

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "ring.h"
#include "xg_xsk.h"

/* UAPI that is younger than the headers of the floor. */
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif
#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD (1 << 0)
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9 /* 6.17 */
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUSY_POLL_BUDGET
#define SO_BUSY_POLL_BUDGET 70
#endif

enum {
	/* Chunks of one frame at most: the kernel's MAX_SKB_FRAGS, and one for the head. */
	PARTS_MAX = 18,
	ETHERNET_BYTES = 14,
	QUEUES_MAX = 1024, /* of one UMEM, all its ports together */
	NO_QUEUE = 0xffff,
};

/* Who owns a chunk. Kept a chunk in debug builds, as totals always. */
enum owner { OWNER_FREE, OWNER_RECEIVING, OWNER_HELD, OWNER_SENDING, OWNERS };

/* A queue of a port, as a UMEM serves it: what its sockets share. */
struct queue {
	struct ring fill;
	struct ring completion;
	uint32_t ifindex;
	uint32_t number;
	uint32_t sockets; /* 0: the slot is free */
	uint32_t sending; /* chunks that will come back by the completion ring */
};

struct xg_umem {
	uint8_t *area;
	size_t bytes;
	uint32_t chunks;
	uint32_t chunk_bytes;
	uint32_t chunk_shift;
	int hugepages;
	_Atomic uint32_t owned[OWNERS]; /* how many chunks each owner has */
	uint32_t *free; /* stack of owned[OWNER_FREE] chunk numbers: the youngest is in the cache */
	uint16_t *where; /* queue that the kernel had the chunk from last */
#ifdef XG_DEBUG
	uint8_t *owner;
#endif
	struct queue queues[QUEUES_MAX];
	uint32_t n_queues; /* slots in use or once used */
	struct xg_xsk *sockets; /* all bound ones */
};

/* Whether to spin or to sleep when there is nothing to receive; see idle.c. */
struct idle {
	uint32_t spin; /* rounds to look before sleeping */
	uint32_t sleeps;
	int busy_poll; /* the kernel spins, in poll() */
};

struct xg_xsk {
	struct xg_umem *umem;
	struct queue *queue;
	struct ring rx;
	struct ring tx;
	int fd;
	int zero_copy;
	int multi_buffer;
	uint16_t queue_slot;
	struct xg_burst *lent; /* the burst that has not ended */
	struct idle idle;
	struct xg_xsk *next; /* of the UMEM */
	_Atomic uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	_Atomic uint64_t dropped, tx_full, kicks, polls;
};

/* One thread writes, any may read: no locked instruction. */
static inline void bump(_Atomic uint64_t *counter, uint64_t by)
{
	uint64_t was = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, was + by, memory_order_relaxed);
}

static inline void bump32(_Atomic uint32_t *counter, uint32_t by)
{
	uint32_t was = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, was + by, memory_order_relaxed);
}

static inline uint32_t n_free(const struct xg_umem *umem)
{
	return atomic_load_explicit(&umem->owned[OWNER_FREE], memory_order_relaxed);
}

/* CLOCK_MONOTONIC. */
static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* umem.c */

/* n chunks change hands: the totals, once a batch. */
static inline void hand_over(struct xg_umem *umem, enum owner from, enum owner to, uint32_t n)
{
	bump32(&umem->owned[from], -n);
	bump32(&umem->owned[to], n);
}

#ifdef XG_DEBUG
/* The chunk of an address changes hands: checked one by one. */
void xg_debug_hand(struct xg_umem *umem, uint64_t addr, enum owner from, enum owner to);
void xg_debug_ledger(const struct xg_umem *umem);
#else
static inline void xg_debug_hand(struct xg_umem *umem, uint64_t addr, enum owner from,
				 enum owner to)
{
	(void)umem, (void)addr, (void)from, (void)to;
}

static inline void xg_debug_ledger(const struct xg_umem *umem)
{
	(void)umem;
}
#endif

/* The stack's top. The caller hands over the total: it knows it a batch at a time. */
static inline void free_push(struct xg_umem *umem, uint32_t *top, uint64_t addr)
{
	umem->free[(*top)++] = (uint32_t)(addr >> umem->chunk_shift);
}

static inline uint64_t free_pop(struct xg_umem *umem, uint32_t *top)
{
	return (uint64_t)umem->free[--(*top)] << umem->chunk_shift;
}

/* send.c */

/* Takes back what the kernel has sent on a queue. */
void xsk_reclaim(struct xg_umem *umem, struct queue *queue);
/* Puts free chunks into the fill ring, as many as it has room for. */
void xsk_fill(struct xg_xsk *xsk);
/* Has the kernel send what is in the TX ring. Returns the descriptors that are left in it. */
uint32_t xsk_kick(struct xg_xsk *xsk);
/* burst.c */

/* The parts of a frame, whether it has several or lies, as `one`, in a chunk. */
const struct xg_part *parts_of(const struct xg_burst *burst, uint32_t i, struct xg_part *one,
			       uint32_t *n);

static inline int xsk_has_unsent(struct xg_xsk *xsk)
{
	return xsk->tx.size && ring_room(&xsk->tx, xsk->tx.size) != xsk->tx.size;
}

/* Chunks are missing in the fill ring, and come back when they are sent, which poll() does not tell. */
static inline int xsk_awaits_chunks(struct xg_xsk *xsk)
{
	struct ring *fill = &xsk->queue->fill;
	const _Atomic uint32_t *owned = xsk->umem->owned;

	return xsk->rx.size && ring_room(fill, fill->size) && !n_free(xsk->umem) &&
	       atomic_load_explicit(&owned[OWNER_SENDING], memory_order_relaxed);
}

/* idle.c */

/* How long to look for a frame before sleeping, in rounds. 0: sleep at once. */
uint32_t idle_rounds(struct idle *idle);
/* What came of it. */
void idle_spun(struct idle *idle, int found);
void idle_relax(void);

/* handlers: one file each. Returns 0, or != 0: it gives up. */

struct handler {
	struct xg_handler_opts opts;
	int (*burst)(struct handler *handler, struct xg_burst *burst);
	void (*idle)(struct handler *handler); /* before the worker sleeps; may be NULL */
};

int handle_count(struct handler *handler, struct xg_burst *burst);
int handle_reflect(struct handler *handler, struct xg_burst *burst);
int handle_forward(struct handler *handler, struct xg_burst *burst);
int handle_capture(struct handler *handler, struct xg_burst *burst);
void idle_capture(struct handler *handler);
int handle_python(struct handler *handler, struct xg_burst *burst);

#endif
