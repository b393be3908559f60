// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * xsk_ledger.c - random operations on sockets of two UMEMs, the ledger checked after each one.
 *
 *   ports 1 and 2, queue 0 and 1: one UMEM, two sockets on one queue; port 3: the other UMEM
 *
 * `xsk_ledger SEED STEPS`. The seed also picks chunk size, ring sizes, multi-buffer, zero-copy,
 * where the indices of the rings begin, and how unwilling the kernel is.
 */
#include <errno.h>
#include <string.h>

#include "xsk_world.h"

enum { CHUNKS_MAX = 700, REOPENINGS = 3000 /* steps between two */ };

static const struct {
	uint32_t umem, ifindex, queue;
} places[WORLD_SOCKETS] = { { 0, 1, 0 }, { 0, 2, 0 }, { 0, 1, 0 }, { 0, 1, 1 }, { 1, 3, 0 } };

enum { KINDS = 17, LAP = 8 };

static uint64_t did[KINDS]; /* how often each kind of step was possible */
static int answers; /* the kernel completes by itself what it was given */

static uint32_t some(uint32_t n)
{
	return pick(&world.chance, n);
}

static uint32_t ring_size(void)
{
	return 64u << some(2);
}

static void reopen(uint32_t i)
{
	struct seat *seat = &world.seats[i];
	struct xg_ledger ledger;
	int err;

	world_close(i);
	world_check();
	seat->opts = (struct xg_xsk_opts){
		.ifindex = places[i].ifindex,
		.queue = places[i].queue,
		.rx = ring_size(),
		.tx = ring_size(),
		.fill = ring_size() * 2,
		.completion = ring_size() * (1 + some(2)),
		.multi_buffer = (uint32_t)world.multi_buffer,
		.retry_ms = 100,
	};
	if (some(8) == 0)
		seat->opts.rx = 0;
	else if (some(8) == 0)
		seat->opts.tx = 0;
	xg_umem_ledger(world.umems[places[i].umem], &ledger);
	err = world_open(i, places[i].umem);
	/* Others have so many chunks: another time. */
	CHECK(!err || (err == -ENOSPC && ledger.free < seat->opts.fill));
}

/* A random mask, NULL for all now and then. */
static const uint8_t *random_mask(uint32_t n, uint8_t *mask)
{
	uint32_t density = some(5);

	if (density == 4)
		return NULL;
	for (uint32_t k = 0; k < n; k++)
		mask[k] = some(4) < density ? (uint8_t)(1 + some(255)) : 0;
	return mask;
}

/* While xg_xsk_next() or a flush sleeps. */
static int kernel_works(void)
{
	uint32_t i = some(WORLD_SOCKETS);

	if (world.seats[i].xsk) {
		fake_drive(world.seats[i].fd, some(40));
		fake_complete(world.seats[i].fd, some(40));
		world_deliver(i, some(10));
	}
	return 1;
}

static void next(uint32_t i)
{
	struct seat *seat = &world.seats[i];
	int n;

	for (uint32_t k = 0; k < seat->burst->n; k++)
		seat->want.dropped +=
			seat->burst->fate[k] == XG_UNCLAIMED || seat->burst->fate[k] == XG_DROPPED;
	n = xg_xsk_next(seat->xsk, seat->burst, (int)some(4));
	CHECK(n >= 0);
	world_took(i, (uint32_t)n);
}

static void look_inside(uint32_t i)
{
	static uint8_t copy[FRAME_MAX], headers[WORLD_BURST * 64];
	const struct seat *seat = &world.seats[i];
	const struct xg_burst *burst = seat->burst;
	uint32_t bytes = 1 + some(64);

	for (uint32_t k = 0; k < burst->n; k++)
		if (burst->fate[k] == XG_SENT)
			return; /* its chunk may be another frame's by now */
	xg_burst_headers(burst, bytes, headers);
	for (uint32_t k = 0; k < burst->n; k++) {
		const uint8_t *frame = frame_bytes(seat->stream, seat->burst_first + k);
		uint32_t have = burst->length[k] < bytes ? burst->length[k] : bytes;

		CHECK(!memcmp(headers + k * bytes, frame, have));
		for (uint32_t at = have; at < bytes; at++)
			CHECK(!headers[k * bytes + at]);
	}
	if (!burst->n)
		return;
	xg_burst_copy(burst, bytes % burst->n, copy);
	CHECK(!memcmp(copy, frame_bytes(seat->stream, seat->burst_first + bytes % burst->n),
		      burst->length[bytes % burst->n]));
}

/* Some frames, again and again. Whatever else is under way on this queue goes on. */
static void generate(uint32_t i)
{
	struct seat *seat = &world.seats[i];
	struct xg_generate_opts opts = { .count = 1 + some(150),
					 .interval_ns_q16 = (uint64_t)some(2) * 3000 << 16 };
	uint32_t stream = ++world.streams, n = 1 + some(LAP), lengths[LAP], room;
	const uint8_t *base = frame_bytes(stream, 0);
	struct xg_generate_result result;
	size_t offsets[LAP];
	int err;

	room = xg_umem_chunk_bytes(seat->umem) - HEADROOM;
	for (uint32_t k = 0; k < n; k++) {
		offsets[k] = k * 64;
		lengths[k] = frame_length(stream, k, room);
		lengths[k] = lengths[k] < room ? lengths[k] : room;
	}
	err = xg_generate(seat->xsk, base, offsets, lengths, n, &opts, &result);
	if (err == -ENOSPC)
		return;
	CHECK(!err && result.frames == opts.count);
	for (uint64_t k = 0; k < opts.count; k++) {
		world_expect(i, base + offsets[k % n], lengths[k % n]);
		seat->want.tx_bytes += lengths[k % n];
	}
	seat->want.tx_packets += opts.count;
}

static void step(void)
{
	uint32_t i = some(WORLD_SOCKETS), to = some(WORLD_SOCKETS), kind = some(KINDS);
	struct seat *seat = &world.seats[i];
	uint8_t mask[WORLD_BURST + 1];
	int held;

	if (some(REOPENINGS) == 0 || (!seat->xsk && some(100) == 0))
		reopen(i);
	if (!seat->xsk)
		return;
	held = seat->burst->from != NULL;
	switch (kind) {
	case 0:
	case 1:
	case 2:
		world_deliver(i, some(20));
		break;
	case 3:
	case 4:
		fake_complete(seat->fd, some(60));
		break;
	case 5:
		fake_drive(seat->fd, some(60));
		break;
	case 6:
	case 7:
	case 8:
		if (held)
			return;
		world_receive(i);
		break;
	case 9:
		if (!held)
			return;
		world_drop(i, random_mask(seat->burst->n, mask));
		break;
	case 10:
	case 11:
		if (!held || !world.seats[to].xsk)
			return;
		world_send(i, random_mask(seat->burst->n, mask), to);
		break;
	case 12:
		world_end_burst(i);
		break;
	case 13:
		next(i);
		break;
	case 14:
		world_send_copies(i, some(20));
		break;
	case 15:
		if (held)
			look_inside(i);
		else
			CHECK(xg_xsk_flush(seat->xsk, (int)some(2)) >= 0);
		break;
	case 16:
		if (!answers || !seat->opts.tx || some(4))
			return;
		generate(i);
		break;
	}
	did[kind]++;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, chance = seed, i;
	uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 100000;
	struct fake_plan plan = { .seed = seed,
				  .index = 0xfffffff0u - pick(&chance, 64),
				  .late_percent = pick(&chance, 4) * 20,
				  .late_ns = pick(&chance, 2) * 20000,
				  .refused_percent = pick(&chance, 3) * 15,
				  .lost_percent = pick(&chance, 2),
				  .lazy_consumer = (int)pick(&chance, 2) };
	int zero_copy = pick(&chance, 3) == 0;

	answers = !zero_copy && (!plan.late_percent || plan.late_ns);
	fake_start(&plan);
	for (uint32_t port = 1; port <= 3; port++)
		fake_add_device(port, 2, zero_copy);
	world_start(seed, (int)pick(&chance, 2));
	for (i = 0; i < WORLD_UMEMS; i++)
		CHECK(!xg_umem_create(CHUNKS_MAX - pick(&chance, 200), 2048u << pick(&chance, 2),
				      &world.umems[i]));
	for (i = 0; i < WORLD_SOCKETS; i++)
		reopen((uint32_t)i);
	fake_on_sleep = kernel_works;
	for (i = 0; i < steps; i++) {
		step();
		world_check();
	}
	world_settle();
	world_end();
	for (i = 0; i < KINDS; i++)
		CHECK(did[i] || steps < 10000 || (i == 16 && !answers));
	return 0;
}
