// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* cases_send.c - sending, on and by copy; see xsk_cases.h. */
#include <errno.h>
#include <string.h>

#include "xsk_cases.h"

static void full_tx_ring_drops_what_does_not_fit_and_counts(void)
{
	struct fake_plan plan = willing;
	struct xg_xsk_counters counters;

	plan.refused_percent = 100;
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	for (int i = 0; i < 4; i++) {
		CHECK(world_deliver(0, RING / 2 + 3) == RING / 2 + 3);
		world_reflect(0);
		world_check();
	}
	counters = counters_of(0);
	CHECK(counters.rx_packets == 4 * (RING / 2 + 3));
	CHECK(counters.tx_packets == RING);
	CHECK(counters.tx_full == counters.rx_packets - RING);
	CHECK(counters.rx_packets == counters.dropped + counters.tx_packets);
	CHECK(ledger_of(0).sending == RING);
	CHECK(xg_xsk_flush(world.seats[0].xsk, 10) == RING);
	CHECK(world_send_copies(0, 10) == 0);
	tear_down();
}

static void full_completion_ring_stops_sending_until_it_is_read(void)
{
	struct fake_plan plan = willing;

	plan.late_percent = 100;
	set_up(&plan, 0);
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.completion = RING / 2;
	CHECK(!world_open(0, 0));
	CHECK(world_send_copies(0, RING) == RING);
	CHECK(ledger_of(0).sending == RING);
	CHECK(xg_xsk_flush(world.seats[0].xsk, 1) == RING / 2);
	fake_complete(world.seats[0].fd, ENOUGH);
	CHECK(xg_xsk_flush(world.seats[0].xsk, 1) == 0);
	world_check();
	world_settle();
	tear_down();
}

static int completes(void)
{
	fake_complete(world.seats[0].fd, ENOUGH);
	return 1;
}

/* Frames that wait for a place in the completion ring go out while the reader sleeps. */
static void reader_that_sleeps_reads_the_completion_ring(void)
{
	struct fake_plan plan = willing;

	plan.late_percent = 100;
	set_up(&plan, 0);
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.completion = RING / 2;
	CHECK(!world_open(0, 0));
	CHECK(world_send_copies(0, RING) == RING);
	fake_on_sleep = completes;
	CHECK(xg_xsk_next(world.seats[0].xsk, world.seats[0].burst, 20) == 0);
	world_check();
	CHECK(world.seats[0].log.n_out == RING);
	tear_down();
}

static int completes_and_delivers(void)
{
	fake_complete(world.seats[0].fd, ENOUGH);
	world_deliver(0, 1);
	return 1;
}

/* All chunks are being sent when it falls asleep: those that come back go to the fill ring. */
static void reader_that_sleeps_feeds_the_fill_ring(void)
{
	struct fake_plan plan = willing;
	int n;

	plan.late_percent = 100;
	set_up(&plan, 0);
	world_close(0);
	xg_umem_free(world.umems[0]);
	CHECK(!xg_umem_create(RING, 2048, &world.umems[0]));
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.fill = RING;
	CHECK(!world_open(0, 0));
	CHECK(world_deliver(0, ENOUGH) == RING);
	world_reflect(0);
	CHECK(ledger_of(0).sending == RING);
	fake_on_sleep = completes_and_delivers;
	n = xg_xsk_next(world.seats[0].xsk, world.seats[0].burst, 100);
	CHECK(n > 0);
	world_took(0, (uint32_t)n);
	tear_down();
}

/* A caller with a poll of its own asks without waiting, and must find the fill ring fed, too. */
static void reader_that_does_not_wait_feeds_the_fill_ring(void)
{
	struct fake_plan plan = willing;

	plan.late_percent = 100;
	set_up(&plan, 0);
	xg_umem_free(world.umems[0]);
	CHECK(!xg_umem_create(RING, 2048, &world.umems[0]));
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.fill = RING;
	CHECK(!world_open(0, 0));
	CHECK(world_deliver(0, ENOUGH) == RING);
	world_reflect(0);
	CHECK(xg_xsk_next(world.seats[0].xsk, world.seats[0].burst, 0) == 0);
	CHECK(world_deliver(0, ENOUGH) == 0);
	fake_complete(world.seats[0].fd, ENOUGH);
	CHECK(xg_xsk_next(world.seats[0].xsk, world.seats[0].burst, 0) == 0);
	CHECK(world_deliver(0, ENOUGH) == RING);
	tear_down();
}

static void kernel_of_late_releases_is_kicked_until_it_has_all(void)
{
	struct fake_plan plan = willing;

	/* It shows nothing of a full ring until it has sent all of it, 32 frames a call. */
	plan.lazy_consumer = 1;
	set_up(&plan, 0);
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.tx = 2 * RING;
	world.seats[0].opts.completion = 4 * RING;
	CHECK(!world_open(0, 0));
	CHECK(world_send_copies(0, WORLD_BURST) == WORLD_BURST);
	world_check();
	world_settle();
	tear_down();
}

static void socket_without_tx_ring_sends_nothing(void)
{
	set_up(&willing, 0);
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.tx = 0;
	CHECK(!world_open(0, 0));
	world_deliver(0, 10);
	world_reflect(0);
	CHECK(counters_of(0).tx_full == 10 && counters_of(0).dropped == 10);
	CHECK(world_send_copies(0, 10) == 0);
	CHECK(xg_xsk_flush(world.seats[0].xsk, 1) == 0);
	tear_down();
}

static void socket_without_rx_ring_receives_nothing(void)
{
	set_up(&willing, 0);
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.rx = 0;
	CHECK(!world_open(0, 0));
	world_receive(0);
	CHECK(xg_xsk_next(world.seats[0].xsk, world.seats[0].burst, 3) == 0);
	CHECK(world_send_copies(0, 10) == 10);
	world_settle();
	tear_down();
}

static void ports_of_one_umem_pass_frames_without_a_copy(void)
{
	set_up(&willing, 1);
	open_seat(0, 1, 0, 0);
	open_seat(1, 2, 0, 0);
	for (int round = 0; round < 20; round++) {
		world_deliver(0, 30);
		world_deliver(1, 30);
		world_receive(0);
		world_send(0, NULL, 1); /* checks that the fate is SENT: in place */
		world_end_burst(0);
		world_receive(1);
		world_send(1, NULL, 0);
		world_end_burst(1);
		world_check();
	}
	world_settle();
	CHECK(counters_of(0).tx_packets + counters_of(1).tx_full + counters_of(0).tx_full +
		      counters_of(1).tx_packets ==
	      counters_of(0).rx_packets + counters_of(1).rx_packets);
	CHECK(counters_of(0).tx_packets > 100 && counters_of(1).tx_packets > 100);
	tear_down();
}

static void umems_pass_frames_by_copy(void)
{
	for (int multi_buffer = 0; multi_buffer < 2; multi_buffer++) {
		set_up(&willing, multi_buffer);
		/* The other one has chunks of another size. */
		xg_umem_free(world.umems[1]);
		CHECK(!xg_umem_create(CHUNKS, 4096, &world.umems[1]));
		open_seat(0, 1, 0, 0);
		open_seat(1, 2, 0, 1);
		for (int round = 0; round < 40; round++) {
			world_deliver(0, 20);
			world_receive(0);
			world_send(0, NULL, 1);
			world_end_burst(0);
			world_check();
		}
		world_settle();
		CHECK(counters_of(1).tx_packets > 100);
		CHECK(ledger_of(1).free == CHUNKS - 2 * RING); /* all but the fill ring's */
		tear_down();
	}
}

static void frame_too_long_for_the_other_umem_is_given_up(void)
{
	const uint8_t *bytes = frame_bytes(9, 9);

	set_up(&willing, 0);
	world.unmodelled = 1;
	xg_umem_free(world.umems[0]);
	CHECK(!xg_umem_create(CHUNKS, 4096, &world.umems[0]));
	open_seat(0, 1, 0, 0);
	open_seat(1, 2, 0, 1);
	CHECK(!fake_receive(world.seats[0].fd, bytes, 2048 - HEADROOM));
	CHECK(!fake_receive(world.seats[0].fd, bytes, 2048 - HEADROOM + 1));
	CHECK(xg_xsk_receive(world.seats[0].xsk, world.seats[0].burst) == 2);
	CHECK(xg_burst_send(world.seats[0].burst, NULL, world.seats[1].xsk) == 1);
	CHECK(world.seats[0].burst->fate[0] == XG_COPIED);
	CHECK(world.seats[0].burst->fate[1] == XG_DROPPED);
	xg_burst_end(world.seats[0].burst);
	CHECK(counters_of(0).dropped == 1 && counters_of(1).tx_full == 1);
	tear_down();
}

static void send_tells_how_far_it_came(void)
{
	static const size_t offsets[3];
	const uint32_t room = 2048 - HEADROOM;
	uint32_t done;

	for (uint32_t multi_buffer = 0; multi_buffer < 2; multi_buffer++) {
		uint32_t longest = room * (multi_buffer ? FAKE_PARTS_MAX - 1 : 1);
		const uint32_t lengths[][3] = {
			{ longest, 14, 60 }, { 60, longest + 1, 60 }, { 13, 60, 60 }, { 60, 60, 0 }
		};
		const int results[] = { 3, -EMSGSIZE, -EMSGSIZE, -EMSGSIZE };
		const uint32_t dones[] = { 3, 1, 0, 2 };

		set_up(&willing, (int)multi_buffer);
		world.unmodelled = 1;
		open_seat(0, 1, 0, 0);
		for (size_t i = 0; i < 4; i++) {
			CHECK(xg_xsk_send(world.seats[0].xsk, frame_bytes(9, 9), offsets,
					  lengths[i], 3, &done) == results[i]);
			CHECK(done == dones[i]);
			world_check();
		}
		CHECK(counters_of(0).tx_packets == 6);
		CHECK(world.seats[0].log.n_out == 6); /* all were kicked */
		tear_down();
	}
}

static void send_stops_where_chunks_are_out(void)
{
	struct fake_plan plan = willing;

	plan.late_percent = 100;
	set_up(&plan, 0);
	xg_umem_free(world.umems[0]);
	CHECK(!xg_umem_create(2 * RING + 10, 2048, &world.umems[0]));
	open_seat(0, 1, 0, 0);
	CHECK(world_send_copies(0, 20) == 10);
	CHECK(ledger_of(0).free == 0);
	world_check();
	CHECK(world_send_copies(0, 20) == 0);
	fake_complete(world.seats[0].fd, 7);
	CHECK(world_send_copies(0, 20) == 7);
	world_check();
	tear_down();
}

static void zero_copy_driver_is_woken_only_when_it_asks(void)
{
	set_up(&willing, 0);
	open_seat(0, 3, 0, 0);
	CHECK(xg_xsk_zero_copy(world.seats[0].xsk));
	CHECK(world_send_copies(0, 10) == 10);
	CHECK(counters_of(0).kicks == 1); /* the first time */
	CHECK(world_send_copies(0, 10) == 10);
	CHECK(counters_of(0).kicks == 1); /* it looks by itself */
	CHECK(fake_drive(world.seats[0].fd, ENOUGH) == 20);
	CHECK(world_send_copies(0, 10) == 10);
	CHECK(counters_of(0).kicks == 2); /* it had fallen asleep */
	world_check();
	world_settle();
	tear_down();
}

const struct xsk_case send_cases[] = {
	CASE(full_tx_ring_drops_what_does_not_fit_and_counts),
	CASE(full_completion_ring_stops_sending_until_it_is_read),
	CASE(reader_that_sleeps_reads_the_completion_ring),
	CASE(reader_that_sleeps_feeds_the_fill_ring),
	CASE(reader_that_does_not_wait_feeds_the_fill_ring),
	CASE(kernel_of_late_releases_is_kicked_until_it_has_all),
	CASE(socket_without_tx_ring_sends_nothing),
	CASE(socket_without_rx_ring_receives_nothing),
	CASE(ports_of_one_umem_pass_frames_without_a_copy),
	CASE(umems_pass_frames_by_copy),
	CASE(frame_too_long_for_the_other_umem_is_given_up),
	CASE(send_tells_how_far_it_came),
	CASE(send_stops_where_chunks_are_out),
	CASE(zero_copy_driver_is_woken_only_when_it_asks),
	{ 0 },
};
