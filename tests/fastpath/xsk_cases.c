// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * xsk_cases.c - sockets, bursts and the generator in situations that chance seldom makes.
 *
 * `xsk_cases CASE` runs one case; no argument lists them. It aborts, with a line on stderr, where
 * one fails.
 */
#include <errno.h>
#include <string.h>

#include "xsk_world.h"

enum { CHUNKS = 512, RING = 64, ENOUGH = 1000 };

static const struct fake_plan willing = { .seed = 1, .index = 0xfffffff0u };
static void *const untouched = &world;

/* Ports 1 to 3 of two queues each, port 3 with zero-copy, and two UMEMs. */
static void set_up(const struct fake_plan *plan, int multi_buffer)
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

static void tear_down(void)
{
	world_check();
	world_end();
}

static struct xg_xsk_opts options(uint32_t ifindex, uint32_t queue)
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

static void open_seat(uint32_t i, uint32_t ifindex, uint32_t queue, uint32_t umem)
{
	world.seats[i].opts = options(ifindex, queue);
	CHECK(!world_open(i, umem));
}

/* Opens with other options than those of a seat. Must fail, at that call. */
static void refuse(const struct xg_xsk_opts *opts, struct xg_xsk *beside, int err,
		   const char *where)
{
	struct xg_xsk *out = untouched;
	unsigned open_before = fake_open_things();
	const char *call = NULL;
	struct xg_ledger before, after;

	xg_umem_ledger(world.umems[0], &before);
	CHECK(xg_xsk_open(world.umems[0], opts, beside, &call, &out) == err);
	if (strcmp(call, where)) {
		fprintf(stderr, "call is %s, not %s\n", call, where);
		abort();
	}
	CHECK(out == untouched);
	CHECK(fake_open_things() == open_before);
	xg_umem_ledger(world.umems[0], &after);
	CHECK(!memcmp(&before, &after, sizeof(before)));
}

static struct xg_ledger ledger_of(uint32_t umem)
{
	struct xg_ledger ledger;

	xg_umem_ledger(world.umems[umem], &ledger);
	return ledger;
}

static struct xg_xsk_counters counters_of(uint32_t i)
{
	struct xg_xsk_counters counters;

	xg_xsk_counters(world.seats[i].xsk, &counters);
	return counters;
}

/* ---- UMEM -------------------------------------------------------------------------------------- */

static void umem_of_a_wrong_size_is_refused(void)
{
	static const struct {
		uint32_t chunks, chunk_bytes;
	} wrong[] = {
		{ 0, 2048 },
		{ XG_CHUNKS_MAX + 1, 2048 },
		{ 64, 0 },
		{ 64, 1024 },
		{ 64, 2047 },
		{ 64, 3000 },
		{ 64, 8192 } /* over a page */,
		{ 64, 0x80000000u },
	};

	fake_start(&willing);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct xg_umem *out = untouched;

		CHECK(xg_umem_create(wrong[i].chunks, wrong[i].chunk_bytes, &out) == -EINVAL);
		CHECK(out == untouched);
	}
	CHECK(fake_open_things() == 0);
}

static void umem_starts_free_and_takes_huge_pages_where_there_are_any(void)
{
	for (int huge = 0; huge < 2; huge++) {
		struct fake_plan plan = willing;
		struct xg_ledger ledger;
		struct xg_umem *umem;

		plan.huge_pages = huge;
		fake_start(&plan);
		CHECK(!xg_umem_create(333, 4096, &umem));
		CHECK(xg_umem_hugepages(umem) == huge);
		CHECK(xg_umem_size_bytes(umem) == 333 * 4096);
		CHECK(xg_umem_chunk_bytes(umem) == 4096);
		xg_umem_ledger(umem, &ledger);
		CHECK(ledger.chunks == 333 && ledger.free == 333);
		xg_umem_free(umem);
		CHECK(fake_open_things() == 0);
	}
}

/* ---- Opening ----------------------------------------------------------------------------------- */

static void wrong_ring_sizes_are_refused(void)
{
	struct xg_xsk_opts opts;

	set_up(&willing, 0);
	opts = options(1, 0);
	opts.rx = 1000;
	refuse(&opts, NULL, -EINVAL, "ring sizes");
	opts = options(1, 0);
	opts.tx = 63;
	refuse(&opts, NULL, -EINVAL, "ring sizes");
	opts = options(1, 0);
	opts.fill = 0;
	refuse(&opts, NULL, -EINVAL, "ring sizes");
	opts = options(1, 0);
	opts.completion = 96;
	refuse(&opts, NULL, -EINVAL, "ring sizes");
	opts = options(1, 0);
	opts.rx = opts.tx = 0;
	refuse(&opts, NULL, -EINVAL, "ring sizes");
	opts = options(1, 0);
	opts.fill = 2 * CHUNKS;
	refuse(&opts, NULL, -ENOSPC, "fill ring");
	tear_down();
}

static void what_the_kernel_refuses_is_named(void)
{
	struct xg_xsk_opts opts;

	set_up(&willing, 0);
	opts = options(7, 0);
	refuse(&opts, NULL, -ENODEV, "bind()");
	opts = options(1, 2);
	refuse(&opts, NULL, -EINVAL, "bind()");
	opts = options(1, 0);
	opts.mode = XG_XSK_ZERO_COPY;
	refuse(&opts, NULL, -EOPNOTSUPP, "bind(XDP_ZEROCOPY)");
	open_seat(1, 1, 0, 1);
	opts = options(1, 0);
	refuse(&opts, NULL, -EBUSY, "bind()"); /* the other UMEM's queue */
	opts.mode = XG_XSK_COPY;
	refuse(&opts, NULL, -EBUSY, "bind(XDP_COPY)");
	open_seat(0, 1, 1, 0);
	opts = options(1, 0);
	refuse(&opts, NULL, -EBUSY, "bind(XDP_SHARED_UMEM)");
	opts = options(2, 0); /* beside, and on another queue */
	refuse(&opts, world.seats[0].xsk, -EINVAL, "bind(XDP_SHARED_UMEM)");
	opts = options(1, 1); /* not beside, and on the same queue */
	refuse(&opts, NULL, -EINVAL, "bind(XDP_SHARED_UMEM)");
	tear_down();
}

static void mode_is_as_wanted_and_told(void)
{
	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	CHECK(!xg_xsk_zero_copy(world.seats[0].xsk)); /* auto, and the port cannot */
	open_seat(1, 3, 0, 1);
	CHECK(xg_xsk_zero_copy(world.seats[1].xsk)); /* auto, and it can */
	open_seat(2, 3, 0, 1);
	CHECK(xg_xsk_zero_copy(world.seats[2].xsk)); /* as the first one */
	world_close(1);
	world_close(2);
	world.seats[1].opts.mode = XG_XSK_COPY;
	CHECK(!world_open(1, 1));
	CHECK(!xg_xsk_zero_copy(world.seats[1].xsk));
	tear_down();
}

static void busy_queue_is_tried_again_for_so_long(void)
{
	uint64_t before;

	set_up(&willing, 0);
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.retry_ms = 100;
	fake_keep_busy(1, 0, 5);
	CHECK(!world_open(0, 0));
	fake_keep_busy(2, 0, 1000000);
	world.seats[1].opts = options(2, 0);
	world.seats[1].opts.retry_ms = 100;
	before = fake_now_ns();
	CHECK(world_open(1, 0) == -EBUSY);
	CHECK(fake_now_ns() - before >= 100000000 && fake_now_ns() - before < 120000000);
	tear_down();
}

/* Lets one call after the other fail, until it does not come to it any more. Returns how many. */
static unsigned fail_each_open(const struct xg_xsk_opts *opts, struct xg_xsk *beside)
{
	unsigned n = 1;

	for (;; n++) {
		unsigned open_before = fake_open_things();
		struct xg_ledger before = ledger_of(0), after;
		struct xg_xsk *out = untouched;
		const char *call = NULL;
		int err;

		fake_fail(n, EACCES);
		err = xg_xsk_open(world.umems[0], opts, beside, &call, &out);
		if (!fake_failed()) {
			CHECK(!err);
			fake_fail(0, 0);
			xg_xsk_close(out);
			return n - 1;
		}
		fake_fail(n, EACCES); /* forget the name, not how often */
		fake_fail(0, 0);
		if (!err) { /* it can live without that one */
			xg_xsk_close(out);
			continue;
		}
		CHECK(out == untouched);
		CHECK(fake_open_things() == open_before);
		after = ledger_of(0);
		CHECK(!memcmp(&before, &after, sizeof(before)));
	}
}

static void every_call_that_fails_is_undone_and_named(void)
{
	static const char *const calls[] = {
		"calloc()",
		"socket(AF_XDP)",
		"setsockopt(XDP_UMEM_REG)",
		"getsockopt(XDP_MMAP_OFFSETS)",
		"setsockopt(XDP_UMEM_FILL_RING)",
		"setsockopt(XDP_UMEM_COMPLETION_RING)",
		"mmap(XDP_UMEM_PGOFF_FILL_RING)",
		"mmap(XDP_UMEM_PGOFF_COMPLETION_RING)",
		"setsockopt(XDP_RX_RING)",
		"mmap(XDP_PGOFF_RX_RING)",
		"setsockopt(XDP_TX_RING)",
		"mmap(XDP_PGOFF_TX_RING)",
		"setsockopt(SO_PREFER_BUSY_POLL)",
		"setsockopt(SO_BUSY_POLL)",
		"setsockopt(SO_BUSY_POLL_BUDGET)",
		"bind()",
	};
	const unsigned n_calls = sizeof(calls) / sizeof(*calls);
	struct xg_xsk_opts opts;

	set_up(&willing, 0);
	opts = options(1, 0);
	opts.busy_poll_us = 20;
	opts.busy_budget = 64;
	for (unsigned n = 0; n < n_calls; n++) {
		struct xg_xsk *out = untouched;
		const char *call = NULL;
		int err;

		fake_fail(n + 1, EACCES);
		err = xg_xsk_open(world.umems[0], &opts, NULL, &call, &out);
		CHECK(fake_failed() && !strcmp(fake_failed(), calls[n]));
		CHECK(!strcmp(call, calls[n]));
		CHECK(err == (n ? -EACCES : -ENOMEM) && out == untouched);
		fake_fail(0, 0);
	}
	/* And getsockopt(XDP_OPTIONS), which may fail: then it is copy mode. */
	CHECK(fail_each_open(&opts, NULL) == n_calls + 1);
	open_seat(0, 1, 0, 0);
	/* Beside another: no UMEM, no rings of the queue. */
	CHECK(fail_each_open(&opts, world.seats[0].xsk) == n_calls + 1 - 5);
	/* On another port: no UMEM. */
	opts.ifindex = 2;
	CHECK(fail_each_open(&opts, NULL) == n_calls + 1 - 1);
	tear_down();
}

static void what_cannot_be_allocated_leaves_nothing_behind(void)
{
	struct xg_umem *umem = untouched;
	struct xg_burst *burst = untouched;
	struct xg_worker *worker = untouched;
	unsigned n;

	fake_start(&willing);
	for (n = 1;; n++) {
		fake_fail(n, ENOMEM);
		if (!xg_umem_create(64, 2048, &umem))
			break;
		CHECK(umem == untouched && fake_open_things() == 0);
	}
	CHECK(n == 1 + 5 && !fake_failed()); /* the struct, three arrays and the area */
	xg_umem_free(umem);
	for (n = 1;; n++) {
		fake_fail(n, ENOMEM);
		if (!xg_burst_create(64, &burst))
			break;
		CHECK(burst == untouched);
	}
	CHECK(n == 1 + 6);
	xg_burst_free(burst);
	for (n = 1;; n++) {
		fake_fail(n, ENOMEM);
		if (!xg_worker_create(&worker))
			break;
		CHECK(worker == untouched && fake_open_things() == 0);
	}
	CHECK(n == 1 + 3 + 6 + 1);
	xg_worker_free(worker);
	fake_fail(0, 0);
	CHECK(xg_burst_create(0, &burst) == -EINVAL && xg_burst_create(4097, &burst) == -EINVAL);
	xg_umem_free(NULL);
	xg_burst_free(NULL);
	xg_worker_free(NULL);
	xg_xsk_close(NULL);
	CHECK(fake_open_things() == 0);
}

/* ---- Receiving --------------------------------------------------------------------------------- */

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

/* ---- Sending ----------------------------------------------------------------------------------- */

static void reflect_all(uint32_t i)
{
	world_receive(i);
	world_send(i, NULL, i);
	world_end_burst(i);
}

static void full_tx_ring_drops_what_does_not_fit_and_counts(void)
{
	struct fake_plan plan = willing;
	struct xg_xsk_counters counters;

	plan.refused_percent = 100;
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	for (int i = 0; i < 4; i++) {
		CHECK(world_deliver(0, RING / 2 + 3) == RING / 2 + 3);
		reflect_all(0);
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
	reflect_all(0);
	CHECK(ledger_of(0).sending == RING);
	fake_on_sleep = completes_and_delivers;
	n = xg_xsk_next(world.seats[0].xsk, world.seats[0].burst, 100);
	CHECK(n > 0);
	world_took(0, (uint32_t)n);
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
	reflect_all(0);
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

/* ---- Sharing and closing ----------------------------------------------------------------------- */

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
	reflect_all(1);
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
	reflect_all(1);
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
		reflect_all(0);
		world_check();
		tear_down();
	}
}

/* ---- Generator --------------------------------------------------------------------------------- */

enum { LAP = 10 };

static struct {
	size_t offsets[LAP];
	uint32_t lengths[LAP];
	const uint8_t *bytes;
} lap;

/* What seat 0 must send: so many frames of the lap. */
static void expect_lap(uint64_t frames)
{
	for (uint64_t k = 0; k < frames; k++)
		world_expect(0, lap.bytes + lap.offsets[k % LAP], lap.lengths[k % LAP]);
}

static void make_lap(void)
{
	lap.bytes = frame_bytes(99, 0);
	for (uint32_t k = 0; k < LAP; k++) {
		lap.offsets[k] = 100 * k;
		lap.lengths[k] = 14 + 50 * k;
	}
}

static int generate(const struct xg_generate_opts *opts, struct xg_generate_result *out)
{
	return xg_generate(world.seats[0].xsk, lap.bytes, lap.offsets, lap.lengths, LAP, opts, out);
}

/* The model's share of a run that sent so many frames. */
static void count_generated(uint64_t frames)
{
	world.seats[0].want.tx_packets += frames;
	for (uint64_t k = 0; k < frames; k++)
		world.seats[0].want.tx_bytes += lap.lengths[k % LAP];
}

static void generator_sends_so_many_in_order(void)
{
	static const uint64_t counts[] = { 1, 9, 64, 1000, 4999 };
	static const uint32_t refused[] = { 0, 30 };

	make_lap();
	for (int r = 0; r < 2; r++) {
		for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
			struct fake_plan plan = willing;
			struct xg_generate_opts opts = { .count = counts[i] };
			struct xg_generate_result result;
			uint64_t progress = 0;

			plan.refused_percent = refused[r];
			plan.late_percent = 30;
			plan.late_ns = 30000;
			plan.lazy_consumer = r;
			opts.progress = &progress;
			set_up(&plan, 0);
			open_seat(0, 1, 0, 0);
			CHECK(generate(&opts, &result) == 0);
			expect_lap(counts[i]);
			count_generated(counts[i]);
			world_check();
			CHECK(world.seats[0].log.n_equal == counts[i]);
			CHECK(result.frames == counts[i] && progress == counts[i]);
			CHECK(result.bytes == world.seats[0].want.tx_bytes);
			CHECK(result.kicks == counters_of(0).kicks && result.duration_ns);
			CHECK(ledger_of(0).sending == 0 && ledger_of(0).held == 0);
			tear_down();
		}
	}
}

static uint64_t first_ns, last_ns, n_sent, interval_ns;

static void note_pace(int fd, const uint8_t *bytes, uint32_t length, int lost)
{
	(void)fd, (void)bytes, (void)length, (void)lost;
	last_ns = fake_now_ns();
	if (!n_sent)
		first_ns = last_ns;
	/* Never early: frame n is due n intervals after the start. */
	CHECK(last_ns - first_ns + 20000 >= n_sent * interval_ns);
	n_sent++;
}

static void generator_keeps_its_pace(void)
{
	static const uint64_t intervals_ns[] = { 1000, 20000, 300000 };

	make_lap();
	for (int i = 0; i < 3; i++) {
		struct xg_generate_opts opts = { .count = 500 };
		struct xg_generate_result result;

		interval_ns = intervals_ns[i];
		opts.interval_ns_q16 = interval_ns << 16;
		n_sent = 0;
		set_up(&willing, 0);
		world.unmodelled = 1;
		open_seat(0, 1, 0, 0);
		fake_on_sent = note_pace;
		CHECK(generate(&opts, &result) == 0);
		CHECK(n_sent == 500 && result.frames == 500);
		CHECK(last_ns - first_ns >= 499 * interval_ns - 20000);
		CHECK(last_ns - first_ns <= 500 * interval_ns + 200000);
		CHECK(result.duration_ns >= last_ns - first_ns);
		tear_down();
	}
}

static uint32_t stop_now;

static void stop_after_300(int fd, const uint8_t *bytes, uint32_t length, int lost)
{
	(void)fd, (void)bytes, (void)length, (void)lost;
	if (++n_sent == 300)
		stop_now = 1;
}

static void generator_stops_when_told(void)
{
	struct xg_generate_opts opts = { .stop = &stop_now };
	struct xg_generate_result result;

	make_lap();
	n_sent = stop_now = 0;
	set_up(&willing, 0);
	world.unmodelled = 1;
	open_seat(0, 1, 0, 0);
	fake_on_sent = stop_after_300;
	CHECK(generate(&opts, &result) == 0);
	CHECK(result.frames == n_sent && n_sent >= 300 && n_sent < 300 + 2 * RING);
	world_check();
	opts = (struct xg_generate_opts){ .stop_after_ns = 5000000 };
	CHECK(generate(&opts, &result) == 0);
	CHECK(result.duration_ns >= 5000000 && result.duration_ns < 6000000);
	opts = (struct xg_generate_opts){ .stop_after_ns = 500000000,
					  .interval_ns_q16 = 10000000000ull << 16 };
	CHECK(generate(&opts, &result) == 0); /* asleep between two frames when the time is up */
	CHECK(result.frames == 1 && result.duration_ns < 600000000);
	CHECK(ledger_of(0).sending == 0 && ledger_of(0).held == 0);
	tear_down();
}

static void generator_refuses_what_it_cannot_send(void)
{
	struct xg_generate_opts opts = { .count = 10 };
	struct xg_generate_result result;

	make_lap();
	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	lap.lengths[3] = 13;
	CHECK(generate(&opts, &result) == -EMSGSIZE);
	lap.lengths[3] = 2048 - HEADROOM + 1;
	CHECK(generate(&opts, &result) == -EMSGSIZE);
	make_lap();
	CHECK(xg_generate(world.seats[0].xsk, lap.bytes, lap.offsets, lap.lengths, 0, &opts,
			  &result) == -EINVAL);
	world_check();
	xg_umem_free(world.umems[1]);
	CHECK(!xg_umem_create(2 * RING + LAP - 1, 2048, &world.umems[1]));
	open_seat(1, 2, 0, 1);
	CHECK(xg_generate(world.seats[1].xsk, lap.bytes, lap.offsets, lap.lengths, LAP, &opts,
			  &result) == -ENOSPC);
	world.seats[2].opts = options(2, 0);
	world.seats[2].opts.tx = 0;
	CHECK(!world_open(2, 1));
	CHECK(xg_generate(world.seats[2].xsk, lap.bytes, lap.offsets, lap.lengths, 1, &opts,
			  &result) == -EINVAL);
	for (unsigned n = 1; n <= 2; n++) {
		fake_fail(n, ENOMEM);
		CHECK(generate(&opts, &result) == -ENOMEM);
	}
	fake_fail(0, 0);
	tear_down();
}

static void generator_counts_its_own_frames_only(void)
{
	struct xg_generate_opts opts = { .count = 500 };
	struct xg_generate_result result;
	struct fake_plan plan = willing;

	make_lap();
	plan.late_percent = 100;
	plan.late_ns = 100000;
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	open_seat(1, 1, 0, 0);
	/* Others are still under way on this queue when it begins. */
	CHECK(world_send_copies(0, 20) == 20);
	CHECK(world_send_copies(1, 20) == 20);
	CHECK(generate(&opts, &result) == 0);
	CHECK(result.frames == 500);
	expect_lap(500);
	count_generated(500);
	world_check();
	CHECK(world.seats[0].log.n_equal == 520);
	world_settle();
	CHECK(ledger_of(0).held == 0 && ledger_of(0).sending == 0);
	tear_down();
}

static void generator_that_misses_completions_tells_and_loses_no_chunk(void)
{
	struct xg_generate_opts opts = { .count = 500 };
	struct xg_generate_result result = { .frames = 12345 };
	struct fake_plan plan = willing;
	uint64_t before;

	make_lap();
	plan.late_percent = 100; /* for ever */
	set_up(&plan, 0);
	open_seat(0, 1, 0, 0);
	opts.count = 50;
	before = fake_now_ns();
	CHECK(generate(&opts, &result) == -ETIMEDOUT);
	CHECK(fake_now_ns() - before >= 1000000000 && fake_now_ns() - before < 1200000000);
	CHECK(result.frames == 0);
	expect_lap(50);
	count_generated(50);
	world_check();
	CHECK(ledger_of(0).held == 0 && ledger_of(0).sending == 50);
	fake_complete(world.seats[0].fd, 20); /* better late than never */
	CHECK(world_send_copies(0, 10) == 10);
	world_check();
	world_close(0);
	CHECK(ledger_of(0).free == CHUNKS);
	tear_down();
}

static void generator_ends_where_the_port_is_gone(void)
{
	struct xg_generate_opts opts = { .count = 500 };
	struct xg_generate_result result;

	make_lap();
	set_up(&willing, 0);
	open_seat(0, 1, 0, 0);
	fake_remove_device(1);
	CHECK(generate(&opts, &result) < 0);
	world.unmodelled = 1;
	tear_down();
}

/* ------------------------------------------------------------------------------------------------ */

#define CASE(name) { #name, name }

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	CASE(umem_of_a_wrong_size_is_refused),
	CASE(umem_starts_free_and_takes_huge_pages_where_there_are_any),
	CASE(wrong_ring_sizes_are_refused),
	CASE(what_the_kernel_refuses_is_named),
	CASE(mode_is_as_wanted_and_told),
	CASE(busy_queue_is_tried_again_for_so_long),
	CASE(every_call_that_fails_is_undone_and_named),
	CASE(what_cannot_be_allocated_leaves_nothing_behind),
	CASE(empty_fill_ring_starves_and_recovers),
	CASE(full_rx_ring_loses_and_keeps_order),
	CASE(frame_longer_than_a_chunk_is_the_kernel_s_loss),
	CASE(frame_in_parts_waits_for_its_last_part),
	CASE(frame_of_too_many_parts_keeps_none_back),
	CASE(socket_has_one_burst_at_a_time),
	CASE(burst_that_ended_claims_nothing),
	CASE(full_tx_ring_drops_what_does_not_fit_and_counts),
	CASE(full_completion_ring_stops_sending_until_it_is_read),
	CASE(reader_that_sleeps_reads_the_completion_ring),
	CASE(reader_that_sleeps_feeds_the_fill_ring),
	CASE(kernel_of_late_releases_is_kicked_until_it_has_all),
	CASE(socket_without_tx_ring_sends_nothing),
	CASE(socket_without_rx_ring_receives_nothing),
	CASE(ports_of_one_umem_pass_frames_without_a_copy),
	CASE(umems_pass_frames_by_copy),
	CASE(frame_too_long_for_the_other_umem_is_given_up),
	CASE(send_tells_how_far_it_came),
	CASE(send_stops_where_chunks_are_out),
	CASE(zero_copy_driver_is_woken_only_when_it_asks),
	CASE(next_waits_for_the_first_frame_and_no_longer_than_told),
	CASE(next_tells_that_the_port_is_gone),
	CASE(flush_waits_for_a_device_that_is_busy),
	CASE(sockets_on_one_queue_share_its_rings),
	CASE(socket_that_goes_takes_no_chunk_from_under_the_kernel),
	CASE(closing_in_the_middle_of_everything_gives_all_back),
	CASE(generator_sends_so_many_in_order),
	CASE(generator_keeps_its_pace),
	CASE(generator_stops_when_told),
	CASE(generator_refuses_what_it_cannot_send),
	CASE(generator_counts_its_own_frames_only),
	CASE(generator_that_misses_completions_tells_and_loses_no_chunk),
	CASE(generator_ends_where_the_port_is_gone),
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (argc < 2) {
			puts(cases[i].name);
		} else if (strcmp(argv[1], cases[i].name) == 0) {
			cases[i].run();
			return 0;
		}
	}
	return argc < 2 ? 0 : 2;
}
