// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* cases_generate.c - the generator; see xsk_cases.h. */
#include <errno.h>
#include <string.h>

#include "xsk_cases.h"

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

const struct xsk_case generate_cases[] = {
	CASE(generator_sends_so_many_in_order),
	CASE(generator_keeps_its_pace),
	CASE(generator_stops_when_told),
	CASE(generator_refuses_what_it_cannot_send),
	CASE(generator_counts_its_own_frames_only),
	CASE(generator_that_misses_completions_tells_and_loses_no_chunk),
	CASE(generator_ends_where_the_port_is_gone),
	{ 0 },
};
