// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* xsk_world.c - see xsk_world.h. */
#include <errno.h>
#include <string.h>

#include "xsk_world.h"

enum { TABLE_BYTES = 1 << 18 };

struct world world;
static uint8_t table[TABLE_BYTES + FRAME_MAX];

/* ---- Frames ------------------------------------------------------------------------------------ */

static uint64_t mix(uint32_t stream, uint64_t number)
{
	uint64_t state = (uint64_t)stream << 40 ^ number;

	return next_random(&state);
}

uint32_t frame_length(uint32_t stream, uint64_t number, uint32_t room)
{
	uint64_t state = mix(stream, ~number);
	uint32_t kind = pick(&state, 100);

	if (kind < 80)
		return 14 + pick(&state, 187);
	if (kind < 95 || !world.multi_buffer)
		return 14 + pick(&state, room - 13);
	if (kind < 99)
		return 14 + pick(&state, 4 * room - 13);
	return 14 + pick(&state, FAKE_PARTS_MAX * room - 13);
}

const uint8_t *frame_bytes(uint32_t stream, uint64_t number)
{
	return table + mix(stream, number) % TABLE_BYTES;
}

uint64_t frame_hash(const uint8_t *bytes, uint32_t length)
{
	uint64_t hash = length, word = 0;

	for (; length >= 8; bytes += 8, length -= 8) {
		memcpy(&word, bytes, 8);
		hash = (hash ^ word) * 0xff51afd7ed558ccdu;
		hash ^= hash >> 31;
	}
	word = 0;
	memcpy(&word, bytes, length);
	hash = (hash ^ word) * 0xff51afd7ed558ccdu;
	return hash ^ hash >> 33;
}

static uint32_t room_of(const struct seat *seat)
{
	return xg_umem_chunk_bytes(seat->umem) - HEADROOM;
}

/* ---- Opening and closing ----------------------------------------------------------------------- */

static void note_sent(int fd, const uint8_t *bytes, uint32_t length, int lost)
{
	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		struct seat *seat = &world.seats[i];

		if (!seat->xsk || seat->fd != fd)
			continue;
		seat->log.out[seat->log.n_out++ % WORLD_LOG] = frame_hash(bytes, length);
		seat->lost += (uint64_t)lost;
		return;
	}
	CHECK(!"a frame of a socket that is not open");
}

void world_start(uint64_t seed, int multi_buffer)
{
	uint64_t state = 1;

	memset(&world, 0, sizeof(world));
	world.chance = seed;
	world.multi_buffer = multi_buffer;
	for (uint32_t i = 0; i < sizeof(table); i += 8) {
		uint64_t word = next_random(&state);

		memcpy(table + i, &word, 8);
	}
	fake_on_sent = note_sent;
	for (uint32_t i = 0; i < WORLD_SOCKETS; i++)
		CHECK(!xg_burst_create(1 + pick(&world.chance, WORLD_BURST),
				       &world.seats[i].burst));
}

void world_end(void)
{
	struct xg_ledger ledger;

	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		world_close(i);
		xg_burst_free(world.seats[i].burst);
	}
	for (uint32_t i = 0; i < WORLD_UMEMS; i++) {
		if (!world.umems[i])
			continue;
		xg_umem_ledger(world.umems[i], &ledger);
		CHECK(ledger.free == ledger.chunks);
		CHECK(!ledger.receiving && !ledger.held && !ledger.sending);
		xg_umem_free(world.umems[i]);
		world.umems[i] = NULL;
	}
	CHECK(fake_open_things() == 0);
}

static struct xg_xsk *neighbour_of(uint32_t i, const struct xg_umem *umem)
{
	for (uint32_t k = 0; k < WORLD_SOCKETS; k++) {
		const struct seat *seat = &world.seats[k];

		if (k != i && seat->xsk && seat->umem == umem &&
		    seat->opts.ifindex == world.seats[i].opts.ifindex &&
		    seat->opts.queue == world.seats[i].opts.queue)
			return seat->xsk;
	}
	return NULL;
}

int world_open(uint32_t i, uint32_t umem)
{
	struct seat *seat = &world.seats[i];
	const char *call = NULL;
	int err;

	err = xg_xsk_open(world.umems[umem], &seat->opts, neighbour_of(i, world.umems[umem]), &call,
			  &seat->xsk);
	CHECK(call);
	if (err)
		return err;
	seat->umem = world.umems[umem];
	seat->fd = xg_xsk_fd(seat->xsk);
	seat->stream = ++world.streams;
	seat->delivered = seat->taken = seat->lost = 0;
	memset(&seat->want, 0, sizeof(seat->want));
	seat->log.n_given = seat->log.n_out = seat->log.n_equal = 0;
	return 0;
}

void world_close(uint32_t i)
{
	struct seat *seat = &world.seats[i];

	if (!seat->xsk)
		return;
	xg_xsk_close(seat->xsk);
	seat->xsk = NULL;
	CHECK(!seat->burst->from); /* it has ended, too */
}

/* ---- Steps ------------------------------------------------------------------------------------- */

uint32_t world_deliver(uint32_t i, uint32_t n)
{
	struct seat *seat = &world.seats[i];
	uint32_t done = 0;

	for (; done < n; done++) {
		uint64_t number = seat->delivered;

		if (fake_receive(seat->fd, frame_bytes(seat->stream, number),
				 frame_length(seat->stream, number, room_of(seat))))
			break;
		seat->delivered++;
	}
	return done;
}

static const uint8_t *frame_of(const struct seat *seat, uint32_t i)
{
	return frame_bytes(seat->stream, seat->burst_first + i);
}

static uint32_t parts_of_frame(const struct xg_burst *burst, uint32_t i)
{
	return burst->multi_buffer ? burst->first[i + 1] - burst->first[i] : 1;
}

static void check_frame(const struct seat *seat, uint32_t i)
{
	const struct xg_burst *burst = seat->burst;
	const uint8_t *bytes = frame_of(seat, i);
	uint32_t length = burst->length[i], parts = parts_of_frame(burst, i), k, at = 0;

	CHECK(length == frame_length(seat->stream, seat->burst_first + i, room_of(seat)));
	CHECK(burst->addr[i] % xg_umem_chunk_bytes(seat->umem) == HEADROOM);
	if (!burst->multi_buffer) {
		CHECK(!memcmp(burst->area + burst->addr[i], bytes, length));
		return;
	}
	CHECK(parts == (length + room_of(seat) - 1) / room_of(seat));
	CHECK(burst->parts[burst->first[i]].addr == burst->addr[i]);
	for (k = 0; k < parts; k++) {
		const struct xg_part *part = &burst->parts[burst->first[i] + k];

		CHECK(!memcmp(burst->area + part->addr, bytes + at, part->length));
		at += part->length;
	}
	CHECK(at == length);
}

void world_took(uint32_t i, uint32_t n)
{
	struct seat *seat = &world.seats[i];

	CHECK(n <= seat->burst->room && n == seat->burst->n);
	if (!n)
		return;
	CHECK(seat->burst->from == seat->xsk);
	CHECK(seat->burst->area == xg_umem_area(seat->umem));
	seat->burst_first = seat->taken;
	seat->taken += n;
	CHECK(seat->taken <= seat->delivered);
	seat->want.rx_packets += n;
	for (uint32_t k = 0; k < n; k++) {
		check_frame(seat, k);
		CHECK(seat->burst->fate[k] == XG_UNCLAIMED);
		seat->want.rx_bytes += seat->burst->length[k];
	}
}

void world_receive(uint32_t i)
{
	struct seat *seat = &world.seats[i];
	uint64_t waiting = seat->delivered - seat->taken;
	int n = xg_xsk_receive(seat->xsk, seat->burst);

	CHECK(n >= 0);
	/* What is there is given: all of it, or as much as the burst holds. */
	CHECK(n > 0 || !waiting);
	CHECK(world.multi_buffer || (uint64_t)n == waiting || (uint32_t)n == seat->burst->room);
	world_took(i, (uint32_t)n);
}

void world_drop(uint32_t i, const uint8_t *mask)
{
	struct seat *seat = &world.seats[i];
	uint8_t before[WORLD_BURST + 1];
	int n, dropped = 0;

	memcpy(before, seat->burst->fate, seat->burst->n);
	n = xg_burst_drop(seat->burst, mask);
	for (uint32_t k = 0; k < seat->burst->n; k++) {
		int claimed = before[k] == XG_UNCLAIMED && (!mask || mask[k]);

		CHECK(seat->burst->fate[k] == (claimed ? XG_DROPPED : before[k]));
		dropped += claimed;
	}
	CHECK(n == dropped);
}

void world_expect(uint32_t i, const uint8_t *bytes, uint32_t length)
{
	struct sent_log *log = &world.seats[i].log;

	log->given[log->n_given++ % WORLD_LOG] = frame_hash(bytes, length);
}

void world_send(uint32_t i, const uint8_t *mask, uint32_t to)
{
	struct seat *seat = &world.seats[i], *out = &world.seats[to];
	struct xg_burst *burst = seat->burst;
	uint8_t before[WORLD_BURST + 1];
	int in_place = seat->umem == out->umem, n, sent = 0, full = 0;
	struct xg_ring_levels levels;
	uint32_t parts = 0;

	xg_xsk_levels(out->xsk, &levels);
	memcpy(before, burst->fate, burst->n);
	n = xg_burst_send(burst, mask, out->xsk);
	for (uint32_t k = 0; k < burst->n; k++) {
		if (before[k] != XG_UNCLAIMED || (mask && !mask[k])) {
			CHECK(burst->fate[k] == before[k]);
			continue;
		}
		parts += parts_of_frame(burst, k);
		if (burst->fate[k] == XG_DROPPED) {
			full++;
			continue;
		}
		CHECK(burst->fate[k] == (in_place ? XG_SENT : XG_COPIED));
		sent++;
		world_expect(to, frame_of(seat, k), burst->length[k]);
		out->want.tx_bytes += burst->length[k];
	}
	CHECK(n == sent);
	/* Nothing is given up while there is room. */
	CHECK(!full || !in_place || levels.tx_size - levels.tx < parts);
	out->want.tx_packets += (uint64_t)sent;
	out->want.tx_full += (uint64_t)full;
}

/* A full fill ring, or every last chunk in it. */
static void check_filled(const struct seat *seat)
{
	struct xg_ring_levels levels;
	struct xg_ledger ledger;

	xg_xsk_levels(seat->xsk, &levels);
	xg_umem_ledger(seat->umem, &ledger);
	CHECK(levels.fill == levels.fill_size || ledger.free == 0);
}

void world_end_burst(uint32_t i)
{
	struct seat *seat = &world.seats[i];
	int held = seat->burst->from != NULL;

	for (uint32_t k = 0; k < seat->burst->n; k++)
		seat->want.dropped +=
			seat->burst->fate[k] == XG_UNCLAIMED || seat->burst->fate[k] == XG_DROPPED;
	xg_burst_end(seat->burst);
	CHECK(!seat->burst->from && !seat->burst->n);
	if (held)
		check_filled(seat);
}

void world_reflect(uint32_t i)
{
	world_receive(i);
	world_send(i, NULL, i);
	world_end_burst(i);
}

uint32_t world_send_copies(uint32_t i, uint32_t n)
{
	struct seat *seat = &world.seats[i];
	uint32_t stream = ++world.streams, done = ~0u, lengths[WORLD_BURST];
	uint32_t longest = room_of(seat) * (world.multi_buffer ? FAKE_PARTS_MAX - 1 : 1);
	size_t offsets[WORLD_BURST];
	const uint8_t *base = table;
	int result;

	CHECK(n <= WORLD_BURST);
	for (uint32_t k = 0; k < n; k++) {
		offsets[k] = (size_t)(frame_bytes(stream, k) - base);
		lengths[k] = frame_length(stream, k, room_of(seat));
		if (lengths[k] > longest)
			lengths[k] = longest;
	}
	result = xg_xsk_send(seat->xsk, base, offsets, lengths, n, &done);
	CHECK(result >= 0 && (uint32_t)result == done && done <= n);
	for (uint32_t k = 0; k < done; k++) {
		world_expect(i, base + offsets[k], lengths[k]);
		seat->want.tx_bytes += lengths[k];
	}
	seat->want.tx_packets += done;
	return done;
}

/* ---- Checks ------------------------------------------------------------------------------------ */

static uint64_t held_of(const struct xg_umem *umem)
{
	uint64_t held = 0;

	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		const struct seat *seat = &world.seats[i];

		if (!seat->xsk || seat->umem != umem || !seat->burst->from)
			continue;
		for (uint32_t k = 0; k < seat->burst->n; k++)
			if (seat->burst->fate[k] != XG_SENT)
				held += parts_of_frame(seat->burst, k);
	}
	return held;
}

static void check_umem(const struct xg_umem *umem)
{
	struct fake_ledger truth;
	struct xg_ledger said;

	xg_umem_ledger(umem, &said);
	fake_look(xg_umem_area(umem), &truth);
	CHECK((uint64_t)said.free + said.receiving + said.held + said.sending == said.chunks);
	CHECK(said.receiving == truth.receiving);
	CHECK(said.sending == truth.sending);
	CHECK(!truth.chunks || truth.chunks == said.chunks);
	CHECK(world.unmodelled || said.held == held_of(umem));
}

static void check_counters(const struct seat *seat)
{
	struct xg_xsk_counters is;

	xg_xsk_counters(seat->xsk, &is);
	CHECK(is.rx_packets == seat->want.rx_packets);
	CHECK(is.rx_bytes == seat->want.rx_bytes);
	CHECK(is.tx_packets == seat->want.tx_packets);
	CHECK(is.tx_bytes == seat->want.tx_bytes);
	CHECK(is.dropped == seat->want.dropped);
	CHECK(is.tx_full == seat->want.tx_full);
}

static void check_log(struct sent_log *log)
{
	CHECK(log->n_out <= log->n_given);
	CHECK(log->n_given - log->n_equal <= WORLD_LOG);
	for (; log->n_equal < log->n_out; log->n_equal++)
		CHECK(log->given[log->n_equal % WORLD_LOG] == log->out[log->n_equal % WORLD_LOG]);
}

void world_check(void)
{
	for (uint32_t i = 0; i < WORLD_UMEMS; i++)
		if (world.umems[i])
			check_umem(world.umems[i]);
	if (world.unmodelled)
		return;
	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		if (!world.seats[i].xsk)
			continue;
		check_counters(&world.seats[i]);
		check_log(&world.seats[i].log);
	}
}

void world_settle(void)
{
	uint32_t i, rounds;

	for (i = 0; i < WORLD_SOCKETS; i++)
		if (world.seats[i].xsk && world.seats[i].burst->from)
			world_end_burst(i);
	for (rounds = 0; rounds < 1000; rounds++) {
		int left = 0;

		for (i = 0; i < WORLD_SOCKETS; i++) {
			if (!world.seats[i].xsk)
				continue;
			fake_drive(world.seats[i].fd, 64);
			fake_complete(world.seats[i].fd, 64);
			left += xg_xsk_flush(world.seats[i].xsk, 0);
		}
		for (i = 0; i < WORLD_UMEMS; i++) {
			struct fake_ledger truth = { 0 };

			if (world.umems[i])
				fake_look(xg_umem_area(world.umems[i]), &truth);
			left += (int)(truth.sending - truth.forgotten);
		}
		if (!left)
			break;
	}
	CHECK(rounds < 1000);
	world_check();
	for (i = 0; i < WORLD_SOCKETS; i++)
		if (world.seats[i].xsk)
			CHECK(world.seats[i].log.n_out == world.seats[i].log.n_given);
}
