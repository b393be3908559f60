// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* cases_open.c - making UMEMs and sockets, and what may fail at it; see xsk_cases.h. */
#include <errno.h>
#include <string.h>

#include "xsk_cases.h"

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

const struct xsk_case open_cases[] = {
	CASE(umem_of_a_wrong_size_is_refused),
	CASE(umem_starts_free_and_takes_huge_pages_where_there_are_any),
	CASE(wrong_ring_sizes_are_refused),
	CASE(what_the_kernel_refuses_is_named),
	CASE(mode_is_as_wanted_and_told),
	CASE(busy_queue_is_tried_again_for_so_long),
	CASE(every_call_that_fails_is_undone_and_named),
	CASE(what_cannot_be_allocated_leaves_nothing_behind),
	{ 0 },
};
