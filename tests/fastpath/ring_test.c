// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ring_test.c - the protocol of events.c against a ring in plain memory, with a producer that follows
 * kernel/bpf/ringbuf.c. `ring_test CASE` runs one case; no argument lists them. Exit status 1 and a line
 * on stderr: it failed.
 *
 * events.c is included, not linked, so that a case can put the positions anywhere, next to 2^64, too.
 */
#include "../../fastpath/events.c"

#include <pthread.h>
#include <stdio.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			exit(1); \
		} \
	} while (0)

enum { RING_BYTES = 4096, RECORD_BYTES = HEADER_BYTES + sizeof(struct xg_event), BATCH = 256 };

_Static_assert(RECORD_BYTES % 8 == 0, "the cases count on it");

struct ring {
	_Atomic unsigned long consumer;
	_Atomic unsigned long producer;
	uint8_t *data;
	struct xg_events events;
};

/* xg_events_open() is for a map of the kernel; the ring on memory never calls it. */
int xg_map_info(int fd, struct xg_map_info *out)
{
	(void)fd;
	*out = (struct xg_map_info){ .type = BPF_MAP_TYPE_HASH };
	return 0;
}

/* The same pages twice in a row, as the kernel shows them. */
static uint8_t *map_twice(void)
{
	int fd = memfd_create("ring", MFD_CLOEXEC);
	uint8_t *at = mmap(NULL, 2 * RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(fd >= 0 && at != MAP_FAILED && !ftruncate(fd, RING_BYTES));
	for (int i = 0; i < 2; i++)
		CHECK(mmap(at + i * RING_BYTES, RING_BYTES, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
	close(fd);
	return at;
}

static void set_up(struct ring *ring, unsigned long position)
{
	*ring = (struct ring){ .data = map_twice() };
	atomic_store(&ring->consumer, position);
	atomic_store(&ring->producer, position);
	ring->events = (struct xg_events){
		.consumer = &ring->consumer,
		.producer = &ring->producer,
		.data = ring->data,
		.mask = RING_BYTES - 1,
		.record_bytes = sizeof(struct xg_event),
	};
}

static void tear_down(struct ring *ring)
{
	munmap(ring->data, 2 * RING_BYTES);
}

static _Atomic uint32_t *header_at(const struct ring *ring, unsigned long position)
{
	return (_Atomic uint32_t *)(ring->data + (position & (RING_BYTES - 1)));
}

/* bpf_ringbuf_reserve(): the place of the bytes, or NULL where the ring is full. */
static uint8_t *reserve(struct ring *ring, uint32_t len)
{
	unsigned long at = atomic_load(&ring->producer);
	unsigned long end = at + room_of(len);
	_Atomic uint32_t *header = header_at(ring, at);

	if (end - atomic_load_explicit(&ring->consumer, memory_order_acquire) > RING_BYTES - 1)
		return NULL;
	atomic_store_explicit(header, len | BPF_RINGBUF_BUSY_BIT, memory_order_relaxed);
	atomic_store_explicit(&ring->producer, end, memory_order_release);
	return (uint8_t *)header + HEADER_BYTES;
}

/* bpf_ringbuf_submit() or bpf_ringbuf_discard(). */
static void commit(uint8_t *bytes, uint32_t flags)
{
	_Atomic uint32_t *header = (_Atomic uint32_t *)(bytes - HEADER_BYTES);
	uint32_t len = atomic_load_explicit(header, memory_order_relaxed);

	atomic_exchange(header, (len ^ BPF_RINGBUF_BUSY_BIT) | flags);
}

static uint8_t *reserve_event(struct ring *ring, uint64_t number)
{
	uint8_t *bytes = reserve(ring, sizeof(struct xg_event));

	if (bytes) {
		struct xg_event event = { .ts_ns = number, .zero = { 0xab, 0xcd } };

		memcpy(bytes, &event, sizeof(event));
	}
	return bytes;
}

static int put(struct ring *ring, uint64_t number)
{
	uint8_t *bytes = reserve_event(ring, number);

	if (!bytes)
		return 0;
	commit(bytes, 0);
	return 1;
}

static void is_number(const struct xg_event *event, uint64_t number)
{
	CHECK(event->ts_ns == number);
	CHECK(event->zero[0] == 0xab && event->zero[1] == 0xcd);
}

static void empty_ring_gives_nothing(void)
{
	struct xg_event out[1];
	struct ring ring;

	set_up(&ring, 0);
	CHECK(xg_events_drain(&ring.events, out, 1) == 0);
	CHECK(atomic_load(&ring.consumer) == 0);
	CHECK(xg_events_used_bytes(&ring.events) == 0);
	CHECK(xg_events_size_bytes(&ring.events) == RING_BYTES);
	tear_down(&ring);
}

static void records_come_whole_and_in_order(void)
{
	struct xg_event out[BATCH];
	struct ring ring;

	set_up(&ring, 0);
	for (int i = 0; i < 3; i++)
		CHECK(put(&ring, i));
	CHECK(xg_events_used_bytes(&ring.events) == 3 * RECORD_BYTES);
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 3);
	for (int i = 0; i < 3; i++)
		is_number(&out[i], i);
	CHECK(atomic_load(&ring.consumer) == 3 * RECORD_BYTES);
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 0);
	tear_down(&ring);
}

static void full_array_leaves_the_rest(void)
{
	struct xg_event out[2];
	struct ring ring;

	set_up(&ring, 0);
	for (int i = 0; i < 3; i++)
		CHECK(put(&ring, i));
	CHECK(xg_events_drain(&ring.events, out, 0) == 0);
	CHECK(xg_events_drain(&ring.events, out, 2) == 2);
	is_number(&out[1], 1);
	CHECK(xg_events_used_bytes(&ring.events) == RECORD_BYTES);
	CHECK(xg_events_drain(&ring.events, out, 2) == 1);
	is_number(&out[0], 2);
	tear_down(&ring);
}

/* Fills and drains from a position on, far enough to run over the data's end many times. */
static void run_from(unsigned long position)
{
	struct xg_event out[BATCH];
	uint64_t written = 0, read = 0;
	struct ring ring;

	set_up(&ring, position);
	for (int round = 0; round < 100; round++) {
		int wanted = round % 51 + 1, n;

		for (int i = 0; i < wanted && put(&ring, written); i++)
			written++;
		n = xg_events_drain(&ring.events, out, BATCH);
		CHECK(n > 0);
		for (int i = 0; i < n; i++)
			is_number(&out[i], read++);
		CHECK(read == written);
	}
	CHECK(ring.events.stats.events == written && !ring.events.stats.malformed);
	tear_down(&ring);
}

static void positions_wrap_at_the_ring_s_end(void)
{
	run_from(0);
}

static void positions_wrap_at_2_to_the_32(void)
{
	run_from((1UL << 32) - 3 * RECORD_BYTES);
}

static void positions_wrap_at_2_to_the_64(void)
{
	run_from(-3UL * RECORD_BYTES);
}

static void full_ring_takes_no_more_until_drained(void)
{
	struct xg_event out[BATCH];
	struct ring ring;
	int n = 0;

	set_up(&ring, 0);
	while (put(&ring, n))
		n++;
	CHECK(n == (RING_BYTES - 1) / RECORD_BYTES);
	CHECK(xg_events_drain(&ring.events, out, BATCH) == n);
	CHECK(put(&ring, n));
	tear_down(&ring);
}

static void busy_record_holds_back_those_behind(void)
{
	struct xg_event out[BATCH];
	struct ring ring;
	uint8_t *busy;

	set_up(&ring, 0);
	CHECK(put(&ring, 0));
	busy = reserve_event(&ring, 1);
	CHECK(busy && put(&ring, 2));
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 1);
	CHECK(atomic_load(&ring.consumer) == RECORD_BYTES);
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 0);
	commit(busy, 0);
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 2);
	is_number(&out[0], 1);
	is_number(&out[1], 2);
	tear_down(&ring);
}

static void discarded_record_is_counted_and_skipped(void)
{
	struct xg_event out[BATCH];
	struct xg_events_stats stats;
	struct ring ring;

	set_up(&ring, 0);
	CHECK(put(&ring, 0));
	commit(reserve_event(&ring, 1), BPF_RINGBUF_DISCARD_BIT);
	CHECK(put(&ring, 2));
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 2);
	is_number(&out[1], 2);
	xg_events_stats(&ring.events, &stats);
	CHECK(stats.events == 2 && stats.discarded == 1 && stats.malformed == 0);
	CHECK(xg_events_used_bytes(&ring.events) == 0);
	tear_down(&ring);
}

static void record_of_another_length_is_counted_and_skipped(void)
{
	static const uint32_t lens[] = { 0, 1, sizeof(struct xg_event) - 1,
					 sizeof(struct xg_event) + 1, 1000 };
	struct xg_event out[BATCH];
	struct ring ring;

	set_up(&ring, 0);
	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++)
		commit(reserve(&ring, lens[i]), 0);
	CHECK(put(&ring, 7));
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 1);
	is_number(&out[0], 7);
	CHECK(ring.events.stats.malformed == 5);
	CHECK(xg_events_used_bytes(&ring.events) == 0);
	tear_down(&ring);
}

/* What a second reader does to the shared position: this one is left in the middle of a record. */
static void length_past_the_producer_is_malformed_and_ends_the_batch(void)
{
	struct xg_event out[BATCH];
	struct ring ring;

	set_up(&ring, 0);
	CHECK(put(&ring, 0));
	atomic_store(header_at(&ring, 0), 0x3fffffff);
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 0);
	CHECK(ring.events.stats.malformed == 1);
	CHECK(atomic_load(&ring.consumer) == RECORD_BYTES);
	CHECK(put(&ring, 1));
	CHECK(xg_events_drain(&ring.events, out, BATCH) == 1);
	is_number(&out[0], 1);
	tear_down(&ring);
}

/* What others do while the reader waits or naps: so many events come. */
static struct ring *meanwhile;
static int in_wait, in_nap, naps;

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_nanosleep(const struct timespec *nap, struct timespec *left);

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	(void)n;
	(void)timeout_ms;
	fds->revents = 0;
	for (int i = 0; i < in_wait; i++)
		CHECK(put(meanwhile, 100 + (uint64_t)i));
	return in_wait > 0;
}

int __wrap_nanosleep(const struct timespec *nap, struct timespec *left)
{
	(void)left;
	CHECK(nap->tv_sec == 0 && nap->tv_nsec == GATHER_NS);
	naps++;
	for (int i = 0; i < in_nap; i++)
		CHECK(put(meanwhile, 200 + (uint64_t)i));
	return 0;
}

/* Takes with so many events there, and so many that come; returns how many it took, and naps in `naps`. */
static int take(int there, int waiting, int napping, uint32_t max, int timeout_ms)
{
	struct xg_event out[BATCH];
	struct ring ring;
	int n;

	set_up(&ring, 0);
	meanwhile = &ring;
	in_wait = waiting;
	in_nap = napping;
	naps = 0;
	for (int i = 0; i < there; i++)
		CHECK(put(&ring, (uint64_t)i));
	n = xg_events_take(&ring.events, out, max, timeout_ms);
	for (int i = 0; i < n; i++)
		is_number(&out[i], (uint64_t)(i < there		    ? i
					      : i < there + waiting ? 100 + i - there
								    : 200 + i - there - waiting));
	CHECK(ring.events.stats.events == (uint64_t)n);
	tear_down(&ring);
	return n;
}

static void few_events_wait_for_more(void)
{
	CHECK(take(3, 0, 4, 16, 100) == 7 && naps == 1);
	CHECK(take(0, 1, 4, 16, 100) == 5 && naps == 1); /* also after a sleep */
	CHECK(take(7, 0, 20, 16, 100) == 16 && naps == 1); /* and take no more than there is room */
}

static void many_events_or_none_wait_for_no_more(void)
{
	CHECK(take(8, 0, 4, 16, 100) == 8 && naps == 0);
	CHECK(take(1, 0, 4, 1, 100) == 1 && naps == 0);
	CHECK(take(0, 0, 4, 16, 100) == 0 && naps == 0); /* timeout */
}

static void take_without_a_timeout_waits_for_nothing(void)
{
	CHECK(take(3, 2, 4, 16, 0) == 3 && naps == 0);
	CHECK(take(0, 2, 4, 16, 0) == 0 && naps == 0);
}

static void map_that_is_no_ring_is_refused(void)
{
	struct xg_events *events = (void *)1;

	CHECK(xg_events_open(0, 72, &events) == -EMEDIUMTYPE);
	CHECK(events == (void *)1);
	xg_events_close(NULL);
}

enum { MANY = 200000 };

static void *produce(void *arg)
{
	struct ring *ring = arg;

	for (uint64_t i = 0; i < MANY; i++) {
		while (!put(ring, i))
			;
	}
	return NULL;
}

static void producer_on_another_cpu_loses_and_reorders_nothing(void)
{
	struct xg_event out[BATCH];
	pthread_t producer;
	struct ring ring;
	uint64_t read = 0;

	set_up(&ring, -1000UL * RECORD_BYTES);
	CHECK(!pthread_create(&producer, NULL, produce, &ring));
	while (read < MANY) {
		int n = xg_events_drain(&ring.events, out, BATCH);

		for (int i = 0; i < n; i++)
			is_number(&out[i], read++);
	}
	CHECK(!pthread_join(producer, NULL));
	CHECK(xg_events_used_bytes(&ring.events) == 0);
	tear_down(&ring);
}

/* A record of a capture: the frame's bytes are its number, so many as that. */
static void put_frame(struct ring *ring, uint32_t number)
{
	struct xg_event event = { .ts_ns = number,
				  .len_bytes = number + 1,
				  .queue = 3,
				  .rule = (uint16_t)(number % 4),
				  .verdict = XG_VERDICT_DROP,
				  .reason = XG_REASON_RULE };
	uint8_t *bytes = reserve(ring, sizeof(event) + number);

	CHECK(bytes);
	memcpy(bytes, &event, sizeof(event));
	memset(bytes + sizeof(event), (int)number, number);
	commit(bytes, 0);
}

static uint32_t u32_at(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* An enhanced packet block of put_frame(); the comment stands behind the bytes. */
static void is_frame(const uint8_t *block, uint32_t number, const char *comment)
{
	uint32_t kept = number < 200 ? number : 200;
	const uint8_t *bytes = block + 28, *option = bytes + ((kept + 3) & ~3u);

	CHECK(u32_at(block) == 6 && u32_at(block + 8) == 0);
	CHECK(u32_at(block + 16) == number + 1000 && u32_at(block + 20) == kept);
	CHECK(u32_at(block + 24) == number + 1);
	for (uint32_t i = 0; i < kept; i++)
		CHECK(bytes[i] == (uint8_t)number);
	CHECK(u32_at(option) == (1 | (uint32_t)strlen(comment) << 16));
	CHECK(!memcmp(option + 4, comment, strlen(comment)));
}

static void frames_come_into_a_file_with_their_comments(void)
{
	static char longest[300];
	static const char *const rules[] = { "bad", NULL, longest };
	static const char *const comments[] = { "drop rule bad", "drop rule", "drop rule ",
						"drop rule" };
	const struct xg_names names = { .rules = rules, .n_rules = 3 };
	static const char *const ports[] = { "left" };
	struct xg_capture_opts opts = { .snaplen = 200, .ports = ports, .n_ports = 1 };
	const uint8_t *file, *at;
	struct xg_capture *capture;
	struct ring ring;
	off_t size;

	memset(longest, 'x', sizeof(longest) - 1);
	set_up(&ring, -200UL);
	opts.fd = memfd_create("file", 0);
	CHECK(opts.fd >= 0 && !xg_capture_open(&opts, &capture));
	for (uint32_t i = 0; i < 256; i++) {
		put_frame(&ring, i);
		CHECK(xg_events_capture(&ring.events, capture, &names, 1000, BATCH) == 1);
	}
	CHECK(xg_events_used_bytes(&ring.events) == 0);
	size = lseek(opts.fd, 0, SEEK_CUR);
	file = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, opts.fd, 0);
	CHECK(file != MAP_FAILED && u32_at(file) == 0x0a0d0d0a);
	at = file + u32_at(file + 4);
	at += u32_at(at + 4);
	for (uint32_t i = 0; i < 256; i++) {
		is_frame(at, i, comments[i % 4]);
		CHECK(u32_at(at + u32_at(at + 4) - 4) == u32_at(at + 4));
		at += u32_at(at + 4);
	}
	CHECK(at == file + size);
	munmap((void *)file, (size_t)size);
	xg_capture_close(capture);
	tear_down(&ring);
}

static void record_too_short_for_a_frame_is_counted_and_skipped(void)
{
	const struct xg_names names = { 0 };
	static const char *const ports[] = { "left" };
	struct xg_capture_opts opts = { .snaplen = 9, .ports = ports, .n_ports = 1 };
	struct xg_events_stats stats;
	struct xg_capture *capture;
	struct ring ring;

	set_up(&ring, 0);
	opts.fd = memfd_create("file", 0);
	CHECK(opts.fd >= 0 && !xg_capture_open(&opts, &capture));
	commit(reserve(&ring, sizeof(struct xg_event) - 1), 0);
	put_frame(&ring, 20);
	CHECK(xg_events_capture(&ring.events, capture, &names, 0, BATCH) == 1);
	xg_events_stats(&ring.events, &stats);
	CHECK(stats.malformed == 1 && stats.events == 1);
	xg_capture_close(capture);
	tear_down(&ring);
}

#define CASE(name) { #name, name }

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	CASE(empty_ring_gives_nothing),
	CASE(records_come_whole_and_in_order),
	CASE(full_array_leaves_the_rest),
	CASE(positions_wrap_at_the_ring_s_end),
	CASE(positions_wrap_at_2_to_the_32),
	CASE(positions_wrap_at_2_to_the_64),
	CASE(full_ring_takes_no_more_until_drained),
	CASE(busy_record_holds_back_those_behind),
	CASE(discarded_record_is_counted_and_skipped),
	CASE(record_of_another_length_is_counted_and_skipped),
	CASE(length_past_the_producer_is_malformed_and_ends_the_batch),
	CASE(few_events_wait_for_more),
	CASE(many_events_or_none_wait_for_no_more),
	CASE(take_without_a_timeout_waits_for_nothing),
	CASE(map_that_is_no_ring_is_refused),
	CASE(producer_on_another_cpu_loses_and_reorders_nothing),
	CASE(frames_come_into_a_file_with_their_comments),
	CASE(record_too_short_for_a_frame_is_counted_and_skipped),
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
