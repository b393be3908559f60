// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fake_path.c - rings and frames of the fake kernel; see fake_xdp.h.
 */
#include <errno.h>
#include <string.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#include "fake_kernel.h"

void (*fake_on_sent)(int fd, const uint8_t *bytes, uint32_t length, int lost);

/* ---- Who has which chunk ----------------------------------------------------------------------- */

static uint32_t chunk_of(const struct kumem *umem, uint64_t addr)
{
	if (addr >= umem->bytes)
		die("address %#llx is behind the UMEM's end", (unsigned long long)addr);
	return (uint32_t)(addr / umem->chunk_bytes);
}

static void pass_on(struct kpool *pool, uint64_t addr, enum holder from, enum holder to)
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
		ASAN_POISON_MEMORY_REGION(at, umem->chunk_bytes);
	else if (from == RECEIVING)
		ASAN_UNPOISON_MEMORY_REGION(at, umem->chunk_bytes);
}

static uint64_t hash_of(const uint8_t *bytes, uint32_t length)
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

static void show(struct kring *ring, uint32_t index)
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

/* The next entry of a ring that the user fills. He has not touched it since. */
static struct xdp_desc take(struct kring *ring, int descs)
{
	struct xdp_desc entry = entry_of(ring, ring->ours, descs);
	const struct xdp_desc *copy = &ring->copy[ring->ours & (ring->size - 1)];

	if (memcmp(&entry, copy, sizeof(entry)))
		die("an entry was changed after it was published");
	ring->ours++;
	return entry;
}

/* Without showing it yet. */
static void put(struct kring *ring, const struct xdp_desc *entry, int descs)
{
	uint32_t at = ring->ours & (ring->size - 1);

	ring->copy[at] = *entry;
	if (descs)
		((struct xdp_desc *)(void *)(ring->map + RING_ENTRIES))[at] = *entry;
	else
		((uint64_t *)(void *)(ring->map + RING_ENTRIES))[at] = entry->addr;
	ring->ours++;
}

static uint32_t room_in(const struct kring *ring)
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

/* ---- Receiving --------------------------------------------------------------------------------- */

/* What is shown may be read before we see that it was taken. */
static void show_frames(struct ksocket *xs, uint32_t index)
{
	const struct kumem *umem = xs->pool->umem;

	for (uint32_t i = xs->rx.shown; i != index; i++) {
		uint64_t addr = xs->rx.copy[i & (xs->rx.size - 1)].addr;

		ASAN_UNPOISON_MEMORY_REGION(umem->area + addr - HEADROOM_BYTES, umem->chunk_bytes);
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
		ASAN_UNPOISON_MEMORY_REGION(chunk, pool->umem->chunk_bytes);
		memcpy(chunk + HEADROOM_BYTES, bytes, desc.len);
		ASAN_POISON_MEMORY_REGION(chunk, pool->umem->chunk_bytes);
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
