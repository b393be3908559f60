// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* cases_receive.c - receiving, and waiting for it; see xsk_cases.h. */
#include <errno.h>
#include <string.h>

#include "xsk_cases.h"

static void empty_fill_ring_starves_and_recovers(void)
{
	struct xg_xdp_statistics statistics;

	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	world.seats[0].opts.fill = RING; /* a fill ring as small as RX */
	world_close(0);
	CHECK(!world_open(0, 0));
	CHECK(world_deliver(0, ENOUGH) == RING);
	CHECK(!xg_xsk_statistics(world.seats[0].xsk, &statistics));
	CHECK(statistics.rx_fill_ring_empty == 1);
	world_receive(0);
	CHECK(world_deliver(0, ENOUGH) == 0); /* held: the kernel has none */
	world_end_burst(0);
	CHECK(world_deliver(0, ENOUGH) == RING);
	tear_down();
}

static void full_rx_ring_loses_and_keeps_order(void)
{
	struct xg_xdp_statistics statistics;

	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	CHECK(world_deliver(0, ENOUGH) == RING);
	CHECK(world_deliver(0, 1) == 0);
	CHECK(!xg_xsk_statistics(world.seats[0].xsk, &statistics));
	CHECK(statistics.rx_ring_full == 2);
	world_receive(0);
	world_end_burst(0);
	CHECK(world_deliver(0, ENOUGH) == RING);
	world_receive(0);
	world_end_burst(0);
	CHECK(counters_of(0).rx_packets == 2 * RING && counters_of(0).dropped == 2 * RING);
	tear_down();
}

static void frame_longer_than_a_chunk_is_the_kernel_s_loss(void)
{
	struct xg_xdp_statistics statistics;

	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	CHECK(fake_receive(world.seats[0].fd, frame_bytes(9, 9), 2048 - HEADROOM + 1) == -ENOSPC);
	CHECK(!xg_xsk_statistics(world.seats[0].xsk, &statistics));
	CHECK(statistics.rx_dropped == 1);
	world_receive(0);
	tear_down();
}

static void frame_in_parts_waits_for_its_last_part(void)
{
	const uint32_t length = 5 * (2048 - HEADROOM);
	struct seat *seat = &world.seats[0];

	set_up(&willing, 1);
	world.unmodelled = 1;
	open_seat(0, 1, 0, 0);
	fake_hold_back(seat->fd, 1);
	CHECK(!fake_receive(seat->fd, frame_bytes(9, 9), length));
	CHECK(xg_xsk_receive(seat->xsk, seat->burst) == 0);
	CHECK(xg_xsk_next(seat->xsk, seat->burst, 3) == 0); /* and no longer than that */
	world_check();
	fake_hold_back(seat->fd, 0);
	CHECK(xg_xsk_receive(seat->xsk, seat->burst) == 1);
	CHECK(seat->burst->length[0] == length && seat->burst->first[1] == 5);
	xg_burst_end(seat->burst);
	tear_down();
}

/* A frame of 65535 bytes has 37 parts in chunks of 2048 bytes, and no socket can send so many. */
static void frame_of_too_many_parts_keeps_none_back(void)
{
	struct seat *seat = &world.seats[0];

	set_up(&willing, 1);
	world.unmodelled = 1;
	open_seat(0, 1, 0, 0);
	CHECK(!fake_receive(seat->fd, frame_bytes(9, 9), 65535));
	CHECK(!fake_receive(seat->fd, frame_bytes(9, 10), 100));
	for (int tries = 0; !xg_xsk_receive(seat->xsk, seat->burst); tries++)
		CHECK(tries < 2);
	CHECK(seat->burst->n == 1 && seat->burst->length[0] == 100);
	xg_burst_end(seat->burst);
	world_check();
	/* It was received, and recycled. */
	CHECK(counters_of(0).rx_packets == 2 && counters_of(0).dropped == 2);
	CHECK(counters_of(0).rx_bytes == 65635);
	tear_down();
}

static void socket_has_one_burst_at_a_time(void)
{
	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	world_deliver(0, 10);
	world_receive(0);
	world_deliver(0, 10);
	CHECK(xg_xsk_receive(world.seats[0].xsk, world.seats[1].burst) == -EBUSY);
	CHECK(xg_xsk_receive(world.seats[0].xsk, world.seats[0].burst) == -EBUSY);
	CHECK(!world.seats[1].burst->from);
	tear_down();
}

static void burst_that_ended_claims_nothing(void)
{
	struct xg_burst *burst;

	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	burst = world.seats[0].burst;
	CHECK(xg_burst_drop(burst, NULL) == -EINVAL);
	CHECK(xg_burst_send(burst, NULL, world.seats[0].xsk) == -EINVAL);
	world_deliver(0, 10);
	world_receive(0);
	world_drop(0, NULL);
	world_send(0, NULL, 0); /* all are claimed */
	world_end_burst(0);
	world_end_burst(0);
	CHECK(xg_burst_drop(burst, NULL) == -EINVAL);
	CHECK(counters_of(0).dropped == 10 && counters_of(0).tx_packets == 0);
	tear_down();
}

/* ---- Waiting ----------------------------------------------------------------------------------- */

static int sleeps;

static int third_time_lucky(void)
{
	if (++sleeps == 3)
		world_deliver(0, 5);
	return 1;
}

static void next_waits_for_the_first_frame_and_no_longer_than_told(void)
{
	struct seat *seat = &world.seats[0];
	uint64_t before;

	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	fake_on_sleep = third_time_lucky;
	CHECK(xg_xsk_next(seat->xsk, seat->burst, 0) == 0 && sleeps == 0);
	before = fake_now_ns();
	CHECK(xg_xsk_next(seat->xsk, seat->burst, 2) == 0);
	CHECK(fake_now_ns() - before >= 2000000 && fake_now_ns() - before < 3000000);
	CHECK(xg_xsk_next(seat->xsk, seat->burst, -1) == 5);
	world_took(0, 5);
	seat->want.dropped += 5;
	fake_fail(1, EINTR);
	CHECK(xg_xsk_next(seat->xsk, seat->burst, -1) == -EINTR);
	CHECK(!seat->burst->from);
	tear_down();
}

static int port_goes(void)
{
	fake_remove_device(1);
	return 1;
}

static void next_tells_that_the_port_is_gone(void)
{
	struct seat *seat = &world.seats[0];

	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	world_send_copies(0, 5);
	fake_on_sleep = port_goes;
	CHECK(xg_xsk_next(seat->xsk, seat->burst, 5) == -ENETDOWN); /* which poll() does not tell */
	CHECK(xg_xsk_next(seat->xsk, seat->burst, 5) == 0); /* once */
	world_send_copies(0, 5); /* into a ring that nobody reads any more */
	CHECK(xg_xsk_flush(seat->xsk, 1) == 5);
	tear_down();
}

static void flush_waits_for_a_device_that_is_busy(void)
{
	struct fake_plan plan = willing;

	plan.refused_percent = 90;
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	world_send_copies(0, RING);
	CHECK(xg_xsk_flush(world.seats[0].xsk, 1000) == 0);
	world_check();
	CHECK(world.seats[0].log.n_out == RING);
	tear_down();
}

const struct xsk_case receive_cases[] = {
	CASE(empty_fill_ring_starves_and_recovers),
	CASE(full_rx_ring_loses_and_keeps_order),
	CASE(frame_longer_than_a_chunk_is_the_kernel_s_loss),
	CASE(frame_in_parts_waits_for_its_last_part),
	CASE(frame_of_too_many_parts_keeps_none_back),
	CASE(socket_has_one_burst_at_a_time),
	CASE(burst_that_ended_claims_nothing),
	CASE(next_waits_for_the_first_frame_and_no_longer_than_told),
	CASE(next_tells_that_the_port_is_gone),
	CASE(flush_waits_for_a_device_that_is_busy),
	{ 0 },
};
