// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * xsk_cases.c - runs the cases of xsk_cases.h: `xsk_cases CASE [FILE]` runs one, which may write to
 * FILE; no argument lists them.
 */
#include <string.h>

#include "xsk_cases.h"

const struct fake_plan willing = { .seed = 1, .index = 0xfffffff0u };
void *const untouched = &world;
const char *scratch_path;

void set_up(const struct fake_plan *plan, int multi_buffer)
{
	fake_start(plan);
	for (uint32_t port = 1; port <= 3; port++)
		fake_add_device(port, 2, port == 3);
	world_start(plan->seed, multi_buffer);
	for (uint32_t i = 0; i < WORLD_UMEMS; i++)
		CHECK(!xg_umem_create(CHUNKS, 2048, &world.umems[i]));
	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		xg_burst_free(world.seats[i].burst);
		CHECK(!xg_burst_create(WORLD_BURST, &world.seats[i].burst));
	}
}

void tear_down(void)
{
	world_check();
	world_end();
}

struct xg_xsk_opts options(uint32_t ifindex, uint32_t queue)
{
	return (struct xg_xsk_opts){
		.ifindex = ifindex,
		.queue = queue,
		.rx = RING,
		.tx = RING,
		.fill = 2 * RING,
		.completion = 2 * RING,
		.multi_buffer = (uint32_t)world.multi_buffer,
	};
}

void open_seat(uint32_t i, uint32_t ifindex, uint32_t queue, uint32_t umem)
{
	world.seats[i].opts = options(ifindex, queue);
	CHECK(!world_open(i, umem));
}

struct xg_ledger ledger_of(uint32_t umem)
{
	struct xg_ledger ledger;

	xg_umem_ledger(world.umems[umem], &ledger);
	return ledger;
}

struct xg_xsk_counters counters_of(uint32_t seat)
{
	struct xg_xsk_counters counters;

	xg_xsk_counters(world.seats[seat].xsk, &counters);
	return counters;
}

int main(int argc, char **argv)
{
	static const struct xsk_case *const tables[] = { open_cases,	 sharing_cases,
							 receive_cases,	 send_cases,
							 generate_cases, worker_cases,
							 handler_cases,	 capture_cases };

	scratch_path = argc > 2 ? argv[2] : "/dev/null";
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		for (const struct xsk_case *at = tables[i]; at->name; at++) {
			if (argc < 2) {
				puts(at->name);
			} else if (strcmp(argv[1], at->name) == 0) {
				at->run();
				return 0;
			}
		}
	}
	return argc < 2 ? 0 : 2;
}
