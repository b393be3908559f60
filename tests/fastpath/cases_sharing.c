// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* cases_sharing.c - sockets that share a queue, and that go; see xsk_cases.h. */
#include <errno.h>
#include <string.h>

#include "xsk_cases.h"

static void sockets_on_one_queue_share_its_rings(void)
{
	struct fake_plan plan = willing;
	struct xg_ring_levels a, b;

	plan.late_percent = 50;
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	CHECK(ledger_of(0).receiving == 2 * RING);
	open_seat(1, 1, 0, 0);
	open_seat(2, 1, 0, 0);
	CHECK(ledger_of(0).receiving == 2 * RING); /* the same fill ring */
	xg_xsk_levels(world.seats[0].xsk, &a);
	xg_xsk_levels(world.seats[2].xsk, &b);
	CHECK(a.fill == b.fill && a.completion_size == b.completion_size && a.fill == 2 * RING);
	for (uint32_t round = 0; round < 60; round++) {
		uint32_t i = round % 3, to = (round / 3) % 3;

		world_deliver(i, 20);
		world_receive(i);
		world_send(i, NULL, to);
		world_end_burst(i);
		fake_complete(world.seats[i].fd, 25);
		world_check();
	}
	/* The one that brought the rings goes first, in the middle of it. */
	world_deliver(0, 20);
	world_send_copies(0, 20);
	world_close(0);
	world_check();
	world_deliver(1, 20);
	world_reflect(1);
	world_settle();
	CHECK(counters_of(1).tx_packets > 100 && counters_of(2).tx_packets > 100);
	world_close(1);
	world_close(2);
	CHECK(ledger_of(0).free == CHUNKS);
	tear_down();
}

/* A closed socket's TX ring tells less than the kernel knows where releases come late. */
static void socket_that_goes_takes_no_chunk_from_under_the_kernel(void)
{
	struct fake_plan plan = willing;

	plan.lazy_consumer = 1;
	plan.late_percent = 100;
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	open_seat(1, 1, 0, 0);
	/* Of the last ones the kernel takes 24 and shows none: the completion ring has no more room. */
	CHECK(world_send_copies(0, RING) == RING);
	CHECK(world_send_copies(0, 40) == 40);
	CHECK(world_send_copies(0, RING) == RING);
	world_close(0);
	world_check();
	fake_complete(world.seats[1].fd, ENOUGH);
	world_deliver(1, 30);
	world_reflect(1);
	world_check();
	world_close(1);
	CHECK(ledger_of(0).free == CHUNKS);
	tear_down();
}

static void closing_in_the_middle_of_everything_gives_all_back(void)
{
	struct fake_plan plan = willing;

	plan.late_percent = 100;
	for (int order = 0; order < 2; order++) {
		uint8_t mask[WORLD_BURST] = { 1, 0, 1, 1 };

		set_up(&plan, 1);
		open_seat(0, 1, 0, 0);
		open_seat(1, 2, 0, 0);
		open_seat(2, 1, 0, 0);
		for (uint32_t i = 0; i < 3; i++) {
			world_deliver(i, 10);
			world_receive(i);
			world_deliver(i, 5);
			world_send(i, mask, 1 - i % 2);
			world_send_copies(i, 20);
			fake_complete(world.seats[i].fd, 3);
			mask[i] = 0;
		}
		world_check();
		CHECK(ledger_of(0).held && ledger_of(0).sending && ledger_of(0).receiving);
		for (uint32_t i = 0; i < 3; i++) {
			world_close(order ? i : 2 - i);
			world_check();
		}
		CHECK(ledger_of(0).free == CHUNKS);
		/* And it goes on with the same UMEM. */
		open_seat(0, 1, 0, 0);
		world_deliver(0, 10);
		world_reflect(0);
		world_check();
		tear_down();
	}
}

const struct xsk_case sharing_cases[] = {
	CASE(sockets_on_one_queue_share_its_rings),
	CASE(socket_that_goes_takes_no_chunk_from_under_the_kernel),
	CASE(closing_in_the_middle_of_everything_gives_all_back),
	{ 0 },
};
