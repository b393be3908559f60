// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * burst.c - receiving, claiming, sending and recycling frames; see xg_xsk.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "xsk_internal.h"

enum {
	BURST_ROOM_MAX = 4096,
	/* Kicks in a row that moved nothing, after which the device counts as busy. */
	KICKS_IN_VAIN = 2,
};

int xg_burst_create(uint32_t room, struct xg_burst **out)
{
	struct xg_burst *burst;

	if (room == 0 || room > BURST_ROOM_MAX)
		return -EINVAL;
	burst = calloc(1, sizeof(*burst));
	if (!burst)
		return -ENOMEM;
	burst->room = room;
	burst->addr = calloc(room, sizeof(*burst->addr));
	burst->length = calloc(room, sizeof(*burst->length));
	burst->fate = calloc(room, sizeof(*burst->fate));
	burst->first = calloc(room + 1, sizeof(*burst->first));
	burst->parts = calloc(room + PARTS_MAX, sizeof(*burst->parts));
	if (!burst->addr || !burst->length || !burst->fate || !burst->first || !burst->parts) {
		xg_burst_free(burst);
		return -ENOMEM;
	}
	*out = burst;
	return 0;
}

void xg_burst_free(struct xg_burst *burst)
{
	if (!burst)
		return;
	free(burst->parts);
	free(burst->first);
	free(burst->fate);
	free(burst->length);
	free(burst->addr);
	free(burst);
}

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

/* ---- Receiving ------------------------------------------------------------------------------- */

static uint32_t receive_single(struct xg_xsk *xsk, struct xg_burst *burst, uint64_t *bytes)
{
	struct ring *rx = &xsk->rx;
	uint32_t n = ring_filled(rx, burst->room), i;
	uint64_t total = 0;

	if (n > burst->room)
		n = burst->room;
	for (i = 0; i < n; i++) {
		const struct xdp_desc *desc = ring_desc_at(rx, i);

		xg_debug_hand(xsk->umem, desc->addr, OWNER_RECEIVING, OWNER_HELD);
		burst->addr[i] = desc->addr;
		burst->length[i] = desc->len;
		total += desc->len;
	}
	*bytes = total;
	burst->n = n;
	if (n)
		ring_give_back(rx, n);
	return n;
}

/* Descriptors of the frame that begins with the at-th one. 0: the last one is not there yet. */
static uint32_t count_parts(const struct xg_xsk *xsk, uint32_t at, uint32_t filled)
{
	uint32_t n = 0;

	while (at + n < filled)
		if (!(ring_desc_at(&xsk->rx, at + n++)->options & XDP_PKT_CONTD))
			return n;
	return 0;
}

/*
 * A frame in more parts than any socket could send, such as 64 kB in chunks of 2048 bytes. It must
 * not keep those behind it in the ring: received, and recycled at once.
 */
static void skip_frame(struct xg_xsk *xsk, uint32_t at, uint32_t parts)
{
	uint32_t top = n_free(xsk->umem), i;
	uint64_t bytes = 0;

	for (i = 0; i < parts; i++) {
		const struct xdp_desc *desc = ring_desc_at(&xsk->rx, at + i);

		xg_debug_hand(xsk->umem, desc->addr, OWNER_RECEIVING, OWNER_FREE);
		free_push(xsk->umem, &top, desc->addr);
		bytes += desc->len;
	}
	hand_over(xsk->umem, OWNER_RECEIVING, OWNER_FREE, parts);
	bump(&xsk->rx_packets, 1);
	bump(&xsk->rx_bytes, bytes);
	bump(&xsk->dropped, 1);
}

/* One frame of the burst, from the at-th descriptor on. Returns its bytes. */
static uint32_t take_frame(struct xg_xsk *xsk, uint32_t at, uint32_t n, struct xg_part *parts)
{
	uint32_t length = 0, i;

	for (i = 0; i < n; i++) {
		const struct xdp_desc *desc = ring_desc_at(&xsk->rx, at + i);

		xg_debug_hand(xsk->umem, desc->addr, OWNER_RECEIVING, OWNER_HELD);
		parts[i].addr = desc->addr;
		parts[i].length = desc->len;
		length += desc->len;
	}
	return length;
}

/* Returns the chunks of the burst. Those of frames that were skipped are given back already. */
static uint32_t receive_parts(struct xg_xsk *xsk, struct xg_burst *burst, uint64_t *bytes)
{
	/* All there is: a frame may reach behind what was known. */
	uint32_t filled = ring_filled(&xsk->rx, xsk->rx.size), taken = 0, held = 0, n = 0, parts;

	*bytes = 0;
	while (n < burst->room && held < burst->room &&
	       (parts = count_parts(xsk, taken, filled)) != 0) {
		if (parts > PARTS_MAX) {
			skip_frame(xsk, taken, parts);
		} else {
			burst->length[n] = take_frame(xsk, taken, parts, burst->parts + held);
			burst->addr[n] = burst->parts[held].addr;
			burst->first[n++] = held;
			*bytes += burst->length[n - 1];
			held += parts;
		}
		taken += parts;
	}
	burst->first[n] = held;
	burst->n = n;
	if (taken)
		ring_give_back(&xsk->rx, taken);
	return held;
}

int xg_xsk_receive(struct xg_xsk *xsk, struct xg_burst *burst)
{
	uint32_t chunks;
	uint64_t bytes;

	if (burst->from || xsk->lent)
		return -EBUSY;
	if (!xsk->rx.size)
		return 0;
	burst->multi_buffer = (uint32_t)xsk->multi_buffer;
	chunks = xsk->multi_buffer ? receive_parts(xsk, burst, &bytes)
				   : receive_single(xsk, burst, &bytes);
	if (!chunks)
		return 0;
	hand_over(xsk->umem, OWNER_RECEIVING, OWNER_HELD, chunks);
	memset(burst->fate, XG_UNCLAIMED, burst->n);
	burst->from = xsk;
	burst->area = xsk->umem->area;
	xsk->lent = burst;
	bump(&xsk->rx_packets, burst->n);
	bump(&xsk->rx_bytes, bytes);
	return (int)burst->n;
}

const struct xg_part *parts_of(const struct xg_burst *burst, uint32_t i, struct xg_part *one,
			       uint32_t *n)
{
	if (burst->multi_buffer) {
		*n = burst->first[i + 1] - burst->first[i];
		return burst->parts + burst->first[i];
	}
	one->addr = burst->addr[i];
	one->length = burst->length[i];
	*n = 1;
	return one;
}

/* ---- Sending --------------------------------------------------------------------------------- */

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

int xg_burst_drop(struct xg_burst *burst, const uint8_t *mask)
{
	uint32_t n = 0, i;

	if (!burst->from)
		return -EINVAL;
	for (i = 0; i < burst->n; i++)
		if (burst->fate[i] == XG_UNCLAIMED && (!mask || mask[i])) {
			burst->fate[i] = XG_DROPPED;
			n++;
		}
	return (int)n;
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

/* ---- Ending ---------------------------------------------------------------------------------- */

/* Gives the chunks of a frame back. Returns how many. */
static uint32_t recycle(struct xg_burst *burst, uint32_t i, uint32_t *top)
{
	struct xg_umem *umem = burst->from->umem;
	struct xg_part one;
	uint32_t n, k;
	const struct xg_part *parts = parts_of(burst, i, &one, &n);

	for (k = 0; k < n; k++) {
		xg_debug_hand(umem, parts[k].addr, OWNER_HELD, OWNER_FREE);
		free_push(umem, top, parts[k].addr);
	}
	return n;
}

void xg_burst_end(struct xg_burst *burst)
{
	struct xg_xsk *from = burst->from;
	struct xg_umem *umem;
	uint32_t top, chunks = 0, dropped = 0, i;

	if (!from)
		return;
	umem = from->umem;
	top = n_free(umem);
	for (i = 0; i < burst->n; i++) {
		if (burst->fate[i] == XG_SENT)
			continue;
		chunks += recycle(burst, i, &top);
		dropped += burst->fate[i] != XG_COPIED;
	}
	hand_over(umem, OWNER_HELD, OWNER_FREE, chunks);
	if (dropped)
		bump(&from->dropped, dropped);
	burst->from = NULL;
	burst->n = 0;
	from->lent = NULL;
	xsk_fill(from);
	xg_debug_ledger(umem);
}

/* ---- Reading --------------------------------------------------------------------------------- */

void xg_burst_headers(const struct xg_burst *burst, uint32_t header_bytes, uint8_t *out)
{
	uint32_t i;

	for (i = 0; i < burst->n; i++, out += header_bytes) {
		struct xg_part one;
		uint32_t n, k, at = 0;
		const struct xg_part *parts = parts_of(burst, i, &one, &n);

		for (k = 0; k < n && at < header_bytes; k++) {
			uint32_t room = header_bytes - at;
			uint32_t part = parts[k].length < room ? parts[k].length : room;

			memcpy(out + at, burst->area + parts[k].addr, part);
			at += part;
		}
		memset(out + at, 0, header_bytes - at);
	}
}

void xg_burst_copy(const struct xg_burst *burst, uint32_t i, uint8_t *out)
{
	struct xg_part one;
	uint32_t n, k;
	const struct xg_part *parts = parts_of(burst, i, &one, &n);

	for (k = 0; k < n; k++) {
		memcpy(out, burst->area + parts[k].addr, parts[k].length);
		out += parts[k].length;
	}
}

/* ---- The loop of one reader ------------------------------------------------------------------ */

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

int xg_xsk_next(struct xg_xsk *xsk, struct xg_burst *burst, int timeout_ms)
{
	struct pollfd wait = { .fd = xsk->fd, .events = POLLIN };
	int64_t until = 0;

	xg_burst_end(burst);
	for (;;) {
		uint32_t rounds;
		int n = xg_xsk_receive(xsk, burst), found = 0, unsent, slice;

		if (n)
			return n;
		if (!timeout_ms) {
			/* The caller sleeps by itself: it must not do so on an empty fill ring. */
			xsk_reclaim(xsk->umem, xsk->queue);
			xsk_fill(xsk);
			return 0;
		}
		rounds = idle_rounds(&xsk->idle);
		if (rounds) {
			while (!found && rounds--) {
				idle_relax();
				found = xsk->rx.size && ring_filled(&xsk->rx, 1);
			}
			idle_spun(&xsk->idle, found);
			/* It may be the first part of a frame only: then time goes on. */
			if (found && (n = xg_xsk_receive(xsk, burst)) != 0)
				return n;
		}
		if (timeout_ms > 0) {
			int64_t now = now_ns();

			if (!until)
				until = now + timeout_ms * 1000000ll;
			if (now >= until)
				return 0;
			slice = (int)((until - now + 999999) / 1000000);
		} else {
			slice = -1;
		}
		/* First: a full completion ring keeps the kernel from sending. */
		xsk_reclaim(xsk->umem, xsk->queue);
		unsent = xsk_has_unsent(xsk) && xsk_kick(xsk);
		xsk_fill(xsk);
		/* The device was busy, or has what it would receive into: no frame will wake us. */
		if ((unsent || xsk_awaits_chunks(xsk)) && (slice < 0 || slice > 1))
			slice = 1;
		bump(&xsk->polls, 1);
		n = poll(&wait, 1, slice);
		if (n < 0)
			return -errno;
		if (wait.revents & (POLLERR | POLLHUP | POLLNVAL))
			return -ENETDOWN;
		if (n == 0) {
			n = xg_xsk_error(xsk);
			if (n)
				return n;
		}
	}
}
