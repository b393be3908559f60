// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fake_path.c - frames that the fake kernel receives and sends; see fake_xdp.h.
 */
#include <errno.h>
#include <string.h>
#include <poll.h>

#include "fake_kernel.h"

void (*fake_on_sent)(int fd, const uint8_t *bytes, uint32_t length, int lost);

/* ---- Receiving --------------------------------------------------------------------------------- */

/* What is shown may be read before we see that it was taken. */
static void show_frames(struct ksocket *xs, uint32_t index)
{
	const struct kumem *umem = xs->pool->umem;

	for (uint32_t i = xs->rx.shown; i != index; i++) {
		uint64_t addr = xs->rx.copy[i & (xs->rx.size - 1)].addr;

		UNPOISON(umem->area + addr - HEADROOM_BYTES, umem->chunk_bytes);
	}
	show(&xs->rx, index);
}

int fake_receive(int fd, const uint8_t *bytes, uint32_t length)
{
	struct ksocket *xs = socket_of(fd);
	struct kpool *pool;
	uint32_t room, parts, i;

	CHECK(xs);
	if (xs->state != BOUND || !xs->rx.map)
		return -ENXIO;
	look();
	pool = xs->pool;
	room = pool->umem->chunk_bytes - HEADROOM_BYTES;
	parts = (length + room - 1) / room;
	if (parts > 1 && !pool->umem->multi_buffer) {
		xs->rx_dropped++;
		return -ENOSPC;
	}
	if (pool->fill.seen - pool->fill.ours < parts) {
		pool->fill_empty++;
		xs->rx_dropped++;
		return -ENOMEM;
	}
	if (room_in(&xs->rx) < parts) {
		xs->rx_full++;
		return -ENOBUFS;
	}
	for (i = 0; i < parts; i++) {
		struct xdp_desc desc = take(&pool->fill, 0);
		uint8_t *chunk;

		desc.addr -= desc.addr % pool->umem->chunk_bytes;
		chunk = pool->umem->area + desc.addr;
		desc.addr += HEADROOM_BYTES;
		desc.len = length < room ? length : room;
		desc.options = i + 1 < parts ? XDP_PKT_CONTD : 0;
		UNPOISON(chunk, pool->umem->chunk_bytes);
		memcpy(chunk + HEADROOM_BYTES, bytes, desc.len);
		POISON(chunk, pool->umem->chunk_bytes);
		put(&xs->rx, &desc, 1);
		bytes += desc.len;
		length -= desc.len;
	}
	show(&pool->fill, pool->fill.ours);
	if (xs->hold_back)
		xs->kept_back += xs->kept_back ? parts : parts - 1;
	show_frames(xs, xs->rx.ours - xs->kept_back);
	return 0;
}

void fake_hold_back(int fd, int on)
{
	struct ksocket *xs = socket_of(fd);

	xs->hold_back = on;
	if (on)
		return;
	xs->kept_back = 0;
	show_frames(xs, xs->rx.ours);
}

/* ---- Sending ----------------------------------------------------------------------------------- */

static void check_desc(const struct kumem *umem, const struct xdp_desc *desc)
{
	/* xp_validate_desc(). The kernel skips what is not valid: the chunk would be lost. */
	if (!desc->len)
		die("a descriptor of 0 bytes");
	if (desc->addr % umem->chunk_bytes + desc->len > umem->chunk_bytes)
		die("a descriptor that leaves its chunk: %llu + %u", (unsigned long long)desc->addr,
		    desc->len);
	if (desc->options & ~(uint32_t)XDP_PKT_CONTD)
		die("unknown options of a descriptor: %#x", desc->options);
	if ((desc->options & XDP_PKT_CONTD) && !umem->multi_buffer)
		die("a frame in parts, without XDP_USE_SG");
}

static uint32_t completion_room(const struct kpool *pool)
{
	return room_in(&pool->completion) - pool->n - pool->reserved;
}

static void launch(struct ksocket *xs, int lost)
{
	static uint8_t frame[FAKE_PARTS_MAX * 4096];
	struct kpool *pool = xs->pool;
	uint32_t length = 0, i;
	uint64_t due_ns = 0;

	if (percent(plan.late_percent))
		due_ns = plan.late_ns ? fake_now_ns() + plan.late_ns : UINT64_MAX;
	for (i = 0; i < xs->partials; i++) {
		struct sent *part = &xs->partial[i];

		memcpy(frame + length, pool->umem->area + part->addr, part->length);
		length += part->length;
		part->hash = hash_of(pool->umem->area + part->addr, part->length);
		part->due_ns = due_ns;
		pool->flight[(pool->first + pool->n++) % pool->completion.size] = *part;
	}
	if (length < 14)
		die("a frame of %u bytes", length);
	pool->reserved -= xs->partials;
	xs->partials = 0;
	if (fake_on_sent)
		fake_on_sent(xs->fd, frame, length, lost);
}

/* One descriptor of the TX ring. 1: it was a frame's last, and the frame is lost. */
static int send_desc(struct ksocket *xs)
{
	struct xdp_desc desc = take(&xs->tx, 1);
	int lost;

	check_desc(xs->pool->umem, &desc);
	if (xs->partials == FAKE_PARTS_MAX)
		die("a frame in more than %d parts", FAKE_PARTS_MAX);
	xs->partial[xs->partials++] = (struct sent){ .addr = desc.addr, .length = desc.len };
	xs->pool->reserved++;
	if (desc.options & XDP_PKT_CONTD)
		return 0;
	lost = percent(plan.lost_percent);
	launch(xs, lost);
	return lost;
}

static void complete(struct kpool *pool, uint32_t n)
{
	while (n-- && pool->n) {
		const struct sent *sent = &pool->flight[pool->first];
		struct xdp_desc desc = { .addr = sent->addr };

		if (hash_of(pool->umem->area + sent->addr, sent->length) != sent->hash)
			die("a frame was changed before it was completed");
		pool->first = (pool->first + 1) % pool->completion.size;
		pool->n--;
		put(&pool->completion, &desc, 0);
	}
	show(&pool->completion, pool->completion.ours);
}

void complete_due(void)
{
	for (int i = 0; i < SOCKETS; i++) {
		struct kpool *pool = &pools[i];
		uint32_t n = 0;

		if (!pool->umem || !pool->n)
			continue;
		/* In order: what is late keeps those behind it. */
		while (n < pool->n &&
		       pool->flight[(pool->first + n) % pool->completion.size].due_ns <=
			       fake_now_ns())
			n++;
		if (n)
			complete(pool, n);
	}
}

uint32_t fake_complete(int fd, uint32_t n)
{
	struct ksocket *xs = socket_of(fd);
	uint32_t before = xs->pool->n;

	look();
	complete(xs->pool, n);
	return before - xs->pool->n;
}

static int send_all(struct ksocket *xs, uint32_t budget)
{
	struct kpool *pool = xs->pool;
	int err = 0;

	while (xs->tx.ours != xs->tx.seen) {
		err = -EAGAIN;
		if (!budget-- || !completion_room(pool))
			break;
		if (send_desc(xs)) {
			err = -EBUSY;
			break;
		}
		err = 0;
	}
	complete_due();
	if (!err)
		xs->tx_empty++;
	if (!plan.lazy_consumer || xs->tx.ours == xs->tx.seen)
		show(&xs->tx, xs->tx.ours);
	return err;
}

int xdp_xmit(struct ksocket *xs)
{
	static const int refusals[] = { EAGAIN, EBUSY, ENOBUFS };
	struct kdevice *device = device_of(xs->pool->ifindex);

	look();
	if (!device || !device->up)
		return -ENETDOWN;
	if (!xs->tx.map)
		return -ENOBUFS;
	if (xs->umem->zero_copy) {
		/* The driver is awake now, and looks by itself. */
		atomic_fetch_and(xs->tx.flags, ~(uint32_t)XDP_RING_NEED_WAKEUP);
		return 0;
	}
	if (percent(plan.refused_percent))
		return -refusals[pick(&chance, 3)];
	return send_all(xs, TX_BUDGET);
}

uint32_t fake_drive(int fd, uint32_t n)
{
	struct ksocket *xs = socket_of(fd);
	uint32_t before;

	if (!xs->umem->zero_copy || !xs->tx.map || atomic_load(xs->tx.flags) & XDP_RING_NEED_WAKEUP)
		return 0;
	look();
	before = xs->tx.ours;
	send_all(xs, n);
	/* Nothing to do: it sleeps, and wants to be told. It looks once more, as drivers do. */
	if (xs->tx.ours == xs->tx.seen)
		atomic_fetch_or(xs->tx.flags, XDP_RING_NEED_WAKEUP);
	return xs->tx.ours - before;
}

short xdp_poll(struct ksocket *xs)
{
	short events = 0;

	if (xs->state != BOUND)
		return 0; /* and no POLLERR, whatever SO_ERROR says */
	if (xs->tx.map)
		(void)!xdp_xmit(xs); /* in copy mode poll() drives TX, too */
	look();
	if (xs->rx.map && xs->rx.shown != xs->rx.seen)
		events |= POLLIN;
	if (xs->tx.map && xs->tx.seen - xs->tx.ours < xs->tx.size / 2)
		events |= POLLOUT;
	return events;
}
