// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * cases_worker.c - the worker's loop, with each row of XG_HANDLERS; see xsk_cases.h.
 *
 * The worker runs on the thread of the test. Whenever it sleeps, the kernel works for a while, and
 * in the end somebody stops it. The ledger is checked each time a burst ends.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "xsk_cases.h"

enum { ROUNDS = 60 };

static struct xg_worker *worker;
static uint32_t rounds_left;
static uint64_t bursts_ended;

/* After each burst of each handler: nothing is held, and the ledger adds up. */
void __real_xg_burst_end(struct xg_burst *burst);
void __wrap_xg_burst_end(struct xg_burst *burst);

void __wrap_xg_burst_end(struct xg_burst *burst)
{
	int held = burst->from != NULL;

	__real_xg_burst_end(burst);
	if (!held || !world.unmodelled)
		return;
	world_check();
	for (uint32_t i = 0; i < WORLD_UMEMS; i++)
		CHECK(!world.umems[i] || ledger_of(i).held == 0);
	bursts_ended++;
}

static int traffic(void)
{
	if (!rounds_left) {
		xg_worker_stop(worker);
		return 1;
	}
	rounds_left--;
	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		if (!world.seats[i].xsk)
			continue;
		fake_complete(world.seats[i].fd, pick(&world.chance, 40));
		world_deliver(i, pick(&world.chance, 30));
	}
	return 1;
}

static void start(const struct fake_plan *plan, int multi_buffer)
{
	set_up(plan, multi_buffer);
	world.unmodelled = 1;
	bursts_ended = 0;
	rounds_left = ROUNDS;
	fake_on_sleep = traffic;
	CHECK(!xg_worker_create(&worker));
}

static void finish(void)
{
	xg_worker_free(worker);
	worker = NULL;
	tear_down();
}

static void add(uint32_t seat, const struct xg_handler_opts *opts)
{
	CHECK(!xg_worker_add(worker, world.seats[seat].xsk, opts));
}

/* ---- A row each -------------------------------------------------------------------------------- */

/* What a socket sent is what another received, but for what did not fit, in order. */
static void check_sent(uint32_t from, uint32_t to, int swapped)
{
	static uint8_t frame[FRAME_MAX];
	const struct seat *in = &world.seats[from];
	const struct sent_log *log = &world.seats[to].log;
	uint64_t at = 0;

	CHECK(log->n_out < WORLD_LOG);
	for (uint64_t k = 0; k < in->delivered; k++) {
		uint32_t room = xg_umem_chunk_bytes(in->umem) - HEADROOM;
		uint32_t length = frame_length(in->stream, k, room);

		memcpy(frame, frame_bytes(in->stream, k), length);
		if (swapped) {
			memcpy(frame, frame_bytes(in->stream, k) + 6, 6);
			memcpy(frame + 6, frame_bytes(in->stream, k), 6);
		}
		if (at < log->n_out && log->out[at] == frame_hash(frame, length))
			at++;
	}
	CHECK(at == log->n_out);
}

/* A run of one handler on seat 0. `to`: a seat that it sends from; or -1. */
static void run_row(const struct xg_handler_opts *row, int to)
{
	for (uint32_t refused = 0; refused <= 30; refused += 30) {
		struct fake_plan plan = willing;
		struct xg_handler_opts opts = *row;
		struct xg_xsk_counters in, out = { 0 };
		uint32_t at = 77;

		plan.refused_percent = refused;
		plan.late_percent = 50;
		plan.late_ns = 700000;
		start(&plan, refused != 0);
		open_seat(0, 1, 0, 0);
		if (to > 0)
			open_seat((uint32_t)to, 2, 0, (uint32_t)to - 1);
		if (opts.kind == XG_HANDLE_FORWARD)
			opts.to = world.seats[to].xsk;
		if (opts.kind == XG_HANDLE_PYTHON)
			opts.context = &world.seats[to];
		add(0, &opts);
		CHECK(xg_worker_run(worker, &at) == 0 && at == 77);
		in = counters_of(0);
		CHECK(in.rx_packets == world.seats[0].delivered);
		CHECK(in.rx_packets > 5 * ROUNDS && bursts_ended > ROUNDS / 2);
		CHECK(in.polls > 0);
		if (to < 0) {
			CHECK(in.dropped == in.rx_packets && !in.tx_packets && !in.kicks);
		} else {
			out = counters_of((uint32_t)to);
			CHECK(in.rx_packets == in.dropped + out.tx_packets);
			CHECK(out.tx_full <= in.dropped);
			CHECK(out.tx_packets > ROUNDS && out.kicks > 0);
			CHECK(world.seats[to].log.n_out == out.tx_packets); /* flushed at the end */
			check_sent(0, (uint32_t)to, opts.kind == XG_HANDLE_REFLECT);
		}
		finish();
	}
}

static void count_row(void)
{
	run_row(&(struct xg_handler_opts){ .kind = XG_HANDLE_COUNT }, -1);
}

static void reflect_row(void)
{
	run_row(&(struct xg_handler_opts){ .kind = XG_HANDLE_REFLECT }, 0);
}

static void forward_row(void)
{
	run_row(&(struct xg_handler_opts){ .kind = XG_HANDLE_FORWARD }, 1); /* the same UMEM */
	run_row(&(struct xg_handler_opts){ .kind = XG_HANDLE_FORWARD }, 2); /* the other one */
}

static void capture_row(void)
{
	static const char *const ports[] = { "left" };
	struct xg_capture_opts opts = {
		.path = scratch_path, .snaplen = 100, .ports = ports, .n_ports = 1
	};
	struct xg_capture_counters counters;
	struct xg_capture *capture;

	CHECK(!xg_capture_open(&opts, &capture));
	run_row(&(struct xg_handler_opts){ .kind = XG_HANDLE_CAPTURE, .capture = capture }, -1);
	xg_capture_counters(capture, &counters);
	CHECK(counters.frames > 10 * ROUNDS && !counters.lost && !counters.error);
	xg_capture_close(capture);
}

/* Sends every third frame, drops another third, and leaves the last one unclaimed. */
static int claims_some(void *context, struct xg_burst *burst)
{
	const struct seat *out = context;
	uint8_t sent[XG_WORKER_BURST], dropped[XG_WORKER_BURST];

	CHECK(burst->n && burst->n <= XG_WORKER_BURST && burst->from == world.seats[0].xsk);
	for (uint32_t k = 0; k < burst->n; k++) {
		sent[k] = k % 3 == 0;
		dropped[k] = k % 3 == 1;
	}
	CHECK(xg_burst_send(burst, sent, out->xsk) <= (int)(burst->n + 2) / 3);
	CHECK(xg_burst_drop(burst, dropped) == (int)(burst->n + 1) / 3);
	return 0;
}

static void python_row(void)
{
	run_row(&(struct xg_handler_opts){ .kind = XG_HANDLE_PYTHON, .call = claims_some }, 1);
}

/* A row without a function here does not compile. */
#define ROW(NAME, name, doc) [XG_HANDLE_##NAME] = { "handler_" #name, name##_row },

const struct xsk_case handler_cases[XG_HANDLES + 1] = { XG_HANDLERS(ROW) };

/* ---- The loop ---------------------------------------------------------------------------------- */

static void worker_refuses_what_lacks_something(void)
{
	static const uint32_t kinds[] = { XG_HANDLE_FORWARD, XG_HANDLE_CAPTURE, XG_HANDLE_PYTHON,
					  XG_HANDLES };
	const struct xg_handler_opts count = { .kind = XG_HANDLE_COUNT };

	start(&willing, 0);
	open_seat(0, 1, 0, 0);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		CHECK(xg_worker_add(worker, world.seats[0].xsk,
				    &(struct xg_handler_opts){ .kind = kinds[i] }) == -EINVAL);
	for (int i = 0; i < XG_WORKER_SOCKETS; i++)
		add(0, &count);
	CHECK(xg_worker_add(worker, world.seats[0].xsk, &count) == -ENOSPC);
	finish();
}

static void worker_that_is_stopped_handles_what_waits(void)
{
	uint32_t at;

	start(&willing, 0);
	open_seat(0, 1, 0, 0);
	open_seat(1, 2, 0, 0);
	add(0, &(struct xg_handler_opts){ .kind = XG_HANDLE_REFLECT });
	add(1, &(struct xg_handler_opts){ .kind = XG_HANDLE_FORWARD, .to = world.seats[0].xsk });
	CHECK(world_deliver(0, 20) == 20 && world_deliver(1, 30) == 30);
	xg_worker_stop(worker);
	xg_worker_stop(worker);
	CHECK(xg_worker_run(worker, &at) == 0);
	CHECK(counters_of(0).rx_packets == 20 && counters_of(1).rx_packets == 30);
	CHECK(world.seats[0].log.n_out == 50);
	CHECK(rounds_left == ROUNDS); /* it did not sleep */
	CHECK(xg_worker_run(worker, &at) == 0);
	finish();
}

static void worker_serves_all_rows_at_once(void)
{
	struct xg_capture_opts opts = { .path = scratch_path, .snaplen = 65535 };
	struct fake_plan plan = willing;
	struct xg_capture *capture;
	uint64_t received = 0, sent = 0, dropped = 0;
	uint32_t at;

	plan.refused_percent = 20;
	start(&plan, 1);
	CHECK(!xg_capture_open(&opts, &capture));
	open_seat(0, 1, 0, 0);
	open_seat(1, 2, 0, 0);
	open_seat(2, 1, 1, 0);
	open_seat(3, 2, 0, 0); /* shares the queue of seat 1 */
	open_seat(4, 3, 0, 1);
	add(0, &(struct xg_handler_opts){
		       .kind = XG_HANDLE_PYTHON, .call = claims_some, .context = &world.seats[4] });
	add(1, &(struct xg_handler_opts){ .kind = XG_HANDLE_FORWARD, .to = world.seats[2].xsk });
	add(2, &(struct xg_handler_opts){ .kind = XG_HANDLE_REFLECT });
	add(3, &(struct xg_handler_opts){ .kind = XG_HANDLE_CAPTURE, .capture = capture });
	add(4, &(struct xg_handler_opts){ .kind = XG_HANDLE_COUNT });
	CHECK(xg_worker_run(worker, &at) == 0);
	for (uint32_t i = 0; i < WORLD_SOCKETS; i++) {
		struct xg_xsk_counters counters = counters_of(i);

		CHECK(counters.rx_packets == world.seats[i].delivered);
		received += counters.rx_packets;
		sent += counters.tx_packets;
		dropped += counters.dropped;
	}
	CHECK(received == sent + dropped && received > 10 * ROUNDS && sent > ROUNDS);
	xg_capture_close(capture);
	finish();
}

static uint32_t calls;

static int gives_up_at_the_second_burst(void *context, struct xg_burst *burst)
{
	(void)context;
	CHECK(burst->from == world.seats[0].xsk);
	return ++calls == 2;
}

static void worker_goes_on_without_a_handler_that_gave_up(void)
{
	uint32_t at = 77;

	start(&willing, 0);
	open_seat(0, 1, 0, 0);
	open_seat(1, 2, 0, 0);
	add(1, &(struct xg_handler_opts){ .kind = XG_HANDLE_COUNT });
	add(0, &(struct xg_handler_opts){ .kind = XG_HANDLE_PYTHON,
					  .call = gives_up_at_the_second_burst });
	calls = 0;
	CHECK(xg_worker_run(worker, &at) == -ECANCELED && at == 1);
	CHECK(calls == 2 && rounds_left > ROUNDS / 2);
	CHECK(xg_worker_run(worker, &at) == 0);
	CHECK(calls == 2 && rounds_left == 0);
	/* Its frames are recycled, as nobody wants them. */
	CHECK(counters_of(0).rx_packets == world.seats[0].delivered);
	CHECK(counters_of(0).dropped == counters_of(0).rx_packets);
	CHECK(counters_of(1).rx_packets == world.seats[1].delivered);
	finish();
}

static int gives_up(void *context, struct xg_burst *burst)
{
	(void)context, (void)burst;
	calls++;
	return 1;
}

static void worker_that_stops_tells_of_a_handler_that_gives_up(void)
{
	uint32_t at = 77;

	start(&willing, 0);
	open_seat(0, 1, 0, 0);
	open_seat(1, 2, 0, 0);
	add(0, &(struct xg_handler_opts){ .kind = XG_HANDLE_PYTHON, .call = gives_up });
	add(1, &(struct xg_handler_opts){ .kind = XG_HANDLE_REFLECT });
	world_deliver(0, 20);
	world_deliver(1, 20);
	xg_worker_stop(worker);
	CHECK(xg_worker_run(worker, &at) == -ECANCELED && at == 0);
	CHECK(xg_worker_run(worker, &at) == 0);
	CHECK(counters_of(0).rx_packets == 20 && counters_of(1).rx_packets == 20);
	CHECK(world.seats[1].log.n_out == 20);
	finish();
}

/* All chunks are on their way out when it falls asleep, and frames are lost until some come back. */
static void worker_that_sleeps_feeds_the_fill_ring(void)
{
	struct fake_plan plan = willing;
	uint32_t at;

	plan.late_percent = 100;
	start(&plan, 0);
	xg_umem_free(world.umems[0]);
	CHECK(!xg_umem_create(RING, 2048, &world.umems[0]));
	world.seats[0].opts = options(1, 0);
	world.seats[0].opts.fill = RING;
	CHECK(!world_open(0, 0));
	add(0, &(struct xg_handler_opts){ .kind = XG_HANDLE_REFLECT });
	world_deliver(0, RING);
	CHECK(xg_worker_run(worker, &at) == 0);
	CHECK(counters_of(0).rx_packets > 5 * ROUNDS);
	finish();
}

static void worker_sleeps_as_long_as_nothing_comes(void)
{
	uint32_t at;

	start(&willing, 0);
	open_seat(0, 3, 0, 0);
	open_seat(1, 3, 1, 0);
	add(0, &(struct xg_handler_opts){ .kind = XG_HANDLE_REFLECT });
	add(1, &(struct xg_handler_opts){ .kind = XG_HANDLE_COUNT });
	rounds_left = 0; /* it is stopped out of its first sleep */
	CHECK(xg_worker_run(worker, &at) == 0);
	CHECK(counters_of(0).polls == 1 && counters_of(0).kicks == 0);
	finish();
}

/* ---- Threads ----------------------------------------------------------------------------------- */

static _Atomic int watched; /* traffic may begin */
static _Atomic int quiet; /* no more traffic */

static int traffic_and_silence(void)
{
	if (!atomic_load(&watched))
		return 1;
	if (atomic_load(&quiet))
		return 0;
	if (!rounds_left) {
		atomic_store(&quiet, 1);
		return 0;
	}
	return traffic();
}

/* What control does meanwhile: reads all there is to read, and stops the worker in its sleep. */
static void *control(void *context)
{
	struct xg_capture *capture = context;
	struct xg_xsk_counters last = { 0 };
	int done;

	do {
		struct xg_xsk_counters counters = counters_of(0);
		struct xg_capture_counters captured;
		struct xg_ring_levels levels;

		done = atomic_load(&quiet);
		atomic_store(&watched, 1);
		CHECK(counters.rx_packets >= last.rx_packets);
		CHECK(counters.dropped >= last.dropped && counters.polls >= last.polls);
		last = counters;
		xg_xsk_levels(world.seats[0].xsk, &levels);
		CHECK(levels.rx <= levels.rx_size && levels.fill <= levels.fill_size);
		CHECK(ledger_of(0).chunks == CHUNKS);
		xg_capture_counters(capture, &captured);
		CHECK(!captured.lost);
	} while (!done);
	xg_worker_stop(worker);
	return NULL;
}

static void worker_is_watched_and_stopped_by_another_thread(void)
{
	struct xg_capture_opts opts = { .path = scratch_path, .snaplen = 60 };
	struct xg_capture *capture;
	pthread_t thread;
	uint32_t at;

	start(&willing, 0);
	CHECK(!xg_capture_open(&opts, &capture));
	open_seat(0, 1, 0, 0);
	add(0, &(struct xg_handler_opts){ .kind = XG_HANDLE_CAPTURE, .capture = capture });
	atomic_store(&quiet, 0);
	atomic_store(&watched, 0);
	fake_on_sleep = traffic_and_silence;
	fake_real_sleep = 1;
	CHECK(!pthread_create(&thread, NULL, control, capture));
	CHECK(xg_worker_run(worker, &at) == 0);
	CHECK(!pthread_join(thread, NULL));
	CHECK(counters_of(0).rx_packets == world.seats[0].delivered);
	xg_capture_close(capture);
	finish();
}

const struct xsk_case worker_cases[] = {
	CASE(worker_refuses_what_lacks_something),
	CASE(worker_that_is_stopped_handles_what_waits),
	CASE(worker_serves_all_rows_at_once),
	CASE(worker_goes_on_without_a_handler_that_gave_up),
	CASE(worker_that_stops_tells_of_a_handler_that_gives_up),
	CASE(worker_that_sleeps_feeds_the_fill_ring),
	CASE(worker_sleeps_as_long_as_nothing_comes),
	CASE(worker_is_watched_and_stopped_by_another_thread),
	{ 0 },
};
