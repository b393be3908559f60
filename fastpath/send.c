// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * send.c - the way out of a socket: TX ring, kick, completions; and from the free chunks into the
 * fill ring. See xg_xsk.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "xsk_internal.h"

/* Kicks in a row that moved nothing, after which the device counts as busy. */
enum { KICKS_IN_VAIN = 2 };

void xsk_reclaim(struct xg_umem *umem, struct queue *queue)
{
	uint32_t top, n, i;

	if (!queue->sending)
		return;
	n = ring_filled(&queue->completion, queue->sending);
	if (!n)
		return;
	top = n_free(umem);
	for (i = 0; i < n; i++) {
		uint64_t addr = ring_addr_at(&queue->completion, i);

		xg_debug_hand(umem, addr, OWNER_SENDING, OWNER_FREE);
		free_push(umem, &top, addr);
	}
	ring_give_back(&queue->completion, n);
	hand_over(umem, OWNER_SENDING, OWNER_FREE, n);
	queue->sending -= n;
}

static void reclaim_all(struct xg_umem *umem)
{
	uint32_t i;

	for (i = 0; i < umem->n_queues; i++)
		if (umem->queues[i].sockets)
			xsk_reclaim(umem, &umem->queues[i]);
}

void xsk_fill(struct xg_xsk *xsk)
{
	struct xg_umem *umem = xsk->umem;
	struct ring *fill = &xsk->queue->fill;
	uint32_t n = ring_room(fill, fill->size), top = n_free(umem), i;

	if (n > top) {
		reclaim_all(umem);
		top = n_free(umem);
		n = n < top ? n : top;
	}
	if (!n)
		return;
	for (i = 0; i < n; i++) {
		uint64_t addr = free_pop(umem, &top);

		xg_debug_hand(umem, addr, OWNER_FREE, OWNER_RECEIVING);
		umem->where[addr >> umem->chunk_shift] = xsk->queue_slot;
		ring_put_addr(fill, addr);
	}
	ring_publish(fill);
	hand_over(umem, OWNER_FREE, OWNER_RECEIVING, n);
}

uint32_t xsk_kick(struct xg_xsk *xsk)
{
	struct ring *tx = &xsk->tx, *completion = &xsk->queue->completion;
	uint32_t left = tx->size - ring_room(tx, tx->size), before, vain = 0, done_before;
	uint32_t done = atomic_load_explicit(completion->producer, memory_order_relaxed);

	/*
	 * In copy mode the call itself sends, up to a budget of the kernel's (32 frames); in
	 * zero-copy mode it tells the driver, once. Before 6.17 the kernel shows what it took only
	 * when it has taken all: then the completions tell that it goes on.
	 */
	while (left && ring_needs_wakeup(tx)) {
		int err = sendto(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? errno : 0;

		bump(&xsk->kicks, 1);
		before = left;
		left = tx->size - ring_room(tx, tx->size);
		done_before = done;
		done = atomic_load_explicit(completion->producer, memory_order_relaxed);
		/* EAGAIN: the budget, or a full completion ring. EBUSY, ENOBUFS: the device. */
		if (xsk->zero_copy || (err && err != EAGAIN && err != EBUSY && err != ENOBUFS))
			break;
		if (left != before || done != done_before)
			vain = 0;
		else if (++vain == KICKS_IN_VAIN)
			break;
	}
	return left;
}

/* Room for n descriptors: at need by fetching what is sent, and by kicking what is not. */
static int tx_room(struct xg_xsk *to, uint32_t n)
{
	if (!to->tx.size)
		return 0;
	if (ring_room(&to->tx, n) >= n)
		return 1;
	ring_publish(&to->tx);
	xsk_reclaim(to->umem, to->queue);
	xsk_kick(to);
	return ring_room(&to->tx, n) >= n;
}

static void put_parts(struct xg_xsk *to, const struct xg_part *parts, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		to->umem->where[parts[i].addr >> to->umem->chunk_shift] = to->queue_slot;
		ring_put_desc(&to->tx, parts[i].addr, parts[i].length,
			      i + 1 < n ? XDP_PKT_CONTD : 0);
	}
}

/* A frame that we write lies in its chunk as a received one does, so that a driver finds headroom. */
static uint32_t part_room(const struct xg_xsk *xsk)
{
	return xsk->umem->chunk_bytes - XG_CHUNK_HEADROOM_BYTES;
}

static uint32_t longest(const struct xg_xsk *xsk)
{
	return xsk->multi_buffer ? part_room(xsk) * (PARTS_MAX - 1) : part_room(xsk);
}

/* Copies one frame into free chunks and puts it into the TX ring. 0: no room, or too few chunks. */
static int send_copy(struct xg_xsk *to, const uint8_t *bytes, uint32_t length)
{
	struct xg_umem *umem = to->umem;
	uint32_t room = part_room(to), n = (length + room - 1) / room, top, i;
	struct xg_part parts[PARTS_MAX];

	if (!tx_room(to, n))
		return 0;
	if (n_free(umem) < n)
		reclaim_all(umem);
	top = n_free(umem);
	if (top < n)
		return 0;
	for (i = 0; i < n; i++) {
		parts[i].addr = free_pop(umem, &top) + XG_CHUNK_HEADROOM_BYTES;
		parts[i].length = length < room ? length : room;
		memcpy(umem->area + parts[i].addr, bytes, parts[i].length);
		bytes += parts[i].length;
		length -= parts[i].length;
		xg_debug_hand(umem, parts[i].addr, OWNER_FREE, OWNER_SENDING);
	}
	hand_over(umem, OWNER_FREE, OWNER_SENDING, n);
	put_parts(to, parts, n);
	to->queue->sending += n;
	return 1;
}

static int send_by_copy(struct xg_burst *burst, uint32_t i, struct xg_xsk *to)
{
	uint8_t *gathered;
	int sent;

	if (burst->length[i] > longest(to))
		return 0;
	if (!burst->multi_buffer || burst->first[i + 1] - burst->first[i] == 1)
		return send_copy(to, burst->area + burst->addr[i], burst->length[i]);
	gathered = malloc(burst->length[i]);
	if (!gathered)
		return 0;
	xg_burst_copy(burst, i, gathered);
	sent = send_copy(to, gathered, burst->length[i]);
	free(gathered);
	return sent;
}

static int send_in_place(struct xg_burst *burst, uint32_t i, struct xg_xsk *to)
{
	struct xg_part one;
	uint32_t n, k;
	const struct xg_part *parts = parts_of(burst, i, &one, &n);

	if (!tx_room(to, n))
		return 0;
	for (k = 0; k < n; k++)
		xg_debug_hand(to->umem, parts[k].addr, OWNER_HELD, OWNER_SENDING);
	put_parts(to, parts, n);
	hand_over(to->umem, OWNER_HELD, OWNER_SENDING, n);
	to->queue->sending += n;
	return 1;
}

int xg_burst_send(struct xg_burst *burst, const uint8_t *mask, struct xg_xsk *to)
{
	int in_place = burst->from && burst->from->umem == to->umem;
	uint32_t sent = 0, full = 0, i;
	uint64_t bytes = 0;

	if (!burst->from)
		return -EINVAL;
	xsk_reclaim(to->umem, to->queue);
	for (i = 0; i < burst->n; i++) {
		if (burst->fate[i] != XG_UNCLAIMED || (mask && !mask[i]))
			continue;
		if (in_place ? send_in_place(burst, i, to) : send_by_copy(burst, i, to)) {
			/* A copy was sent: the frame itself is recycled. */
			burst->fate[i] = in_place ? XG_SENT : XG_COPIED;
			bytes += burst->length[i];
			sent++;
		} else {
			burst->fate[i] = XG_DROPPED;
			full++;
		}
	}
	if (full)
		bump(&to->tx_full, full);
	if (sent) {
		bump(&to->tx_packets, sent);
		bump(&to->tx_bytes, bytes);
		ring_publish(&to->tx);
		xsk_kick(to);
	}
	xg_debug_ledger(to->umem);
	return (int)sent;
}

int xg_xsk_send(struct xg_xsk *xsk, const uint8_t *bytes, const size_t *offsets,
		const uint32_t *lengths, uint32_t n, uint32_t *done)
{
	uint64_t total = 0;
	uint32_t i;
	int err = 0;

	*done = 0;
	xsk_reclaim(xsk->umem, xsk->queue);
	for (i = 0; i < n; i++) {
		if (lengths[i] < ETHERNET_BYTES || lengths[i] > longest(xsk)) {
			err = -EMSGSIZE;
			break;
		}
		if (!send_copy(xsk, bytes + offsets[i], lengths[i]))
			break;
		total += lengths[i];
	}
	*done = i;
	if (i) {
		bump(&xsk->tx_packets, i);
		bump(&xsk->tx_bytes, total);
		ring_publish(&xsk->tx);
		xsk_kick(xsk);
	}
	xg_debug_ledger(xsk->umem);
	return err ? err : (int)i;
}

int xg_xsk_flush(struct xg_xsk *xsk, int timeout_ms)
{
	const struct timespec pause = { .tv_nsec = 50000 };
	int64_t left_ns = timeout_ms * 1000000ll;

	while (xsk->tx.size) {
		xsk_kick(xsk);
		xsk_reclaim(xsk->umem, xsk->queue);
		if (!xsk_has_unsent(xsk) || left_ns <= 0)
			break;
		nanosleep(&pause, NULL);
		left_ns -= pause.tv_nsec;
	}
	return xsk->tx.size ? (int)(xsk->tx.size - ring_room(&xsk->tx, xsk->tx.size)) : 0;
}
