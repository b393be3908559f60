// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * burst.c - receiving, dropping and recycling frames, and looking into them; see xg_xsk.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "xsk_internal.h"

enum { BURST_ROOM_MAX = 4096 };

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

int xg_xsk_next(struct xg_xsk *xsk, struct xg_burst *burst, int timeout_ms)
{
	struct pollfd wait = { .fd = xsk->fd, .events = POLLIN };
	uint64_t until = 0;

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
			uint64_t now = now_ns();

			if (!until)
				until = now + (uint64_t)timeout_ms * 1000000u;
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
