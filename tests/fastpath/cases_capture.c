// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * cases_capture.c - what handlers/capture.c writes; see xsk_cases.h.
 *
 * What must be in the files stands on stdout, a frame a line: port, queue, length, kept bytes in hex.
 * The reader is another program (test_xsk.py), with a parser that is not ours.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "xsk_cases.h"

static const char *const ports[] = { "left", "right0", NULL };
static struct xg_worker *worker;
static struct xg_capture *capture;
static int has_slept;

static int stops(void)
{
	has_slept = 1;
	xg_worker_stop(worker);
	return 1;
}

static struct xg_capture_opts capture_opts(void)
{
	return (struct xg_capture_opts){
		.path = scratch_path, .snaplen = 256, .ports = ports, .n_ports = 3
	};
}

static void start(const struct xg_capture_opts *opts)
{
	static const uint32_t queues[] = { 0, 1 };

	set_up(&willing, 1);
	world.unmodelled = 1;
	CHECK(!xg_capture_open(opts, &capture));
	for (uint32_t i = 0; i < 2; i++)
		open_seat(i, i + 1, queues[i], 0);
	fake_on_sleep = stops;
}

/* Frames of both sockets go through the worker, which sleeps once, and so writes, and is stopped. */
static void feed(uint32_t n)
{
	uint32_t at;

	CHECK(!xg_worker_create(&worker));
	for (uint32_t i = 0; i < 2; i++) {
		struct xg_handler_opts handler = { .kind = XG_HANDLE_CAPTURE,
						   .port = i,
						   .capture = capture };

		CHECK(!xg_worker_add(worker, world.seats[i].xsk, &handler));
		world_deliver(i, n);
	}
	has_slept = 0;
	CHECK(xg_worker_run(worker, &at) == 0 && has_slept);
	xg_worker_free(worker);
}

/* What was delivered since `from`, of both seats in turn. */
static void print_frames(const struct xg_capture_opts *opts, const uint64_t from[2])
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct seat *seat = &world.seats[i];

		for (uint64_t k = from[i]; k < seat->delivered; k++) {
			uint32_t length = frame_length(seat->stream, k, 2048 - HEADROOM);
			uint32_t kept = length < opts->snaplen ? length : opts->snaplen;

			printf("%u %u %u ", i, seat->opts.queue, length);
			for (uint32_t b = 0; b < kept; b++)
				printf("%02x", frame_bytes(seat->stream, k)[b]);
			putchar('\n');
		}
	}
}

static struct xg_capture_counters counters(void)
{
	struct xg_capture_counters now;

	xg_capture_counters(capture, &now);
	return now;
}

static void stop(void)
{
	xg_capture_close(capture);
	tear_down();
}

static void capture_keeps_frames_up_to_the_snap_length(void)
{
	static const uint32_t snap_lengths[] = { 14, 61, 256, 65535 };

	for (size_t s = 0; s < 4; s++) {
		struct xg_capture_opts opts = capture_opts();
		static char path[4096];

		snprintf(path, sizeof(path), "%s-%u", scratch_path, snap_lengths[s]);
		opts.path = path;
		opts.snaplen = snap_lengths[s];
		start(&opts);
		for (int round = 0; round < 20; round++) {
			uint64_t from[2] = { world.seats[0].delivered, world.seats[1].delivered };

			feed(15);
			print_frames(&opts, from);
		}
		CHECK(counters().frames == world.seats[0].delivered + world.seats[1].delivered);
		CHECK(counters().frames > 300 && !counters().lost && !counters().error);
		stop();
		puts("");
	}
}

static void capture_rotates_a_file_that_is_full(void)
{
	struct xg_capture_opts opts = capture_opts();

	opts.keep = 2;
	opts.max_bytes = 20000;
	start(&opts);
	for (int round = 0; round < 40; round++) {
		uint64_t from[2] = { world.seats[0].delivered, world.seats[1].delivered };

		feed(10);
		print_frames(&opts, from);
	}
	CHECK(!counters().lost && counters().bytes > 4 * 20000);
	stop();
}

static void capture_keeps_no_old_file_where_none_is_wanted(void)
{
	struct xg_capture_opts opts = capture_opts();

	opts.max_bytes = 20000;
	start(&opts);
	for (int round = 0; round < 40; round++) {
		uint64_t from[2] = { world.seats[0].delivered, world.seats[1].delivered };

		feed(10);
		print_frames(&opts, from);
	}
	stop();
}

/* Three rounds: with room for all, for some bytes only, and for all again. */
static void capture_on_a_full_disk_counts_what_it_lost_and_goes_on(void)
{
	struct rlimit limit = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
	struct xg_capture_opts opts = capture_opts();
	uint64_t lost = 0;

	signal(SIGXFSZ, SIG_IGN);
	opts.keep = 1;
	start(&opts);
	for (int round = 0; round < 3; round++) {
		uint64_t from[2] = { world.seats[0].delivered, world.seats[1].delivered };

		/* A few bytes more, so that a block is cut off in its middle. */
		limit.rlim_cur = round == 1 ? counters().bytes + 333 : RLIM_INFINITY;
		CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
		feed(10);
		if (round != 1) {
			print_frames(&opts, from);
			CHECK(counters().error == 0 && counters().lost == lost);
			continue;
		}
		lost = world.seats[0].delivered + world.seats[1].delivered - from[0] - from[1];
		CHECK(lost && counters().lost == lost && counters().error == -EFBIG);
	}
	CHECK(counters().frames + lost == world.seats[0].delivered + world.seats[1].delivered);
	limit.rlim_cur = RLIM_INFINITY;
	CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
	stop();
}

/* Where no new file can be begun after a rotation, each later round tries again. */
static void capture_that_lost_its_file_begins_another(void)
{
	struct rlimit limit = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
	struct xg_capture_opts opts = capture_opts();

	signal(SIGXFSZ, SIG_IGN);
	opts.keep = 1;
	opts.max_bytes = 5000;
	start(&opts);
	for (int round = 0; round < 6; round++) {
		uint64_t from[2] = { world.seats[0].delivered, world.seats[1].delivered };
		int full = round == 2 || round == 3;

		limit.rlim_cur = full ? 50 : RLIM_INFINITY; /* not even the head */
		CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
		feed(20);
		if (!full)
			print_frames(&opts, from);
		CHECK((counters().error == -EFBIG) == full);
	}
	CHECK(counters().lost && counters().frames);
	limit.rlim_cur = RLIM_INFINITY;
	CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
	stop();
}

static void capture_that_cannot_begin_is_refused(void)
{
	static char path[8192];
	struct xg_capture_opts opts = capture_opts();
	struct xg_capture *out = untouched;

	opts.path = "/dev/full";
	CHECK(xg_capture_open(&opts, &out) == -ENOSPC);
	opts.path = "/dev/null/x";
	CHECK(xg_capture_open(&opts, &out) == -ENOTDIR);
	opts.path = "/";
	CHECK(xg_capture_open(&opts, &out) == -EISDIR);
	memset(path, 'x', sizeof(path) - 1);
	opts.path = path;
	CHECK(xg_capture_open(&opts, &out) == -ENAMETOOLONG);
	opts.path = scratch_path;
	for (unsigned n = 1; n <= 3; n++) {
		fake_fail(n, ENOMEM);
		CHECK(xg_capture_open(&opts, &out) == -ENOMEM && fake_failed());
	}
	fake_fail(0, 0);
	CHECK(out == untouched);
	xg_capture_close(NULL);
}

const struct xsk_case capture_cases[] = {
	CASE(capture_keeps_frames_up_to_the_snap_length),
	CASE(capture_rotates_a_file_that_is_full),
	CASE(capture_keeps_no_old_file_where_none_is_wanted),
	CASE(capture_on_a_full_disk_counts_what_it_lost_and_goes_on),
	CASE(capture_that_lost_its_file_begins_another),
	CASE(capture_that_cannot_begin_is_refused),
	{ 0 },
};
