// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * events.c - the consumer's end of a BPF ring buffer (kernel/bpf/ringbuf.c).
 *
 *   page 0    page 1    data, size bytes        the same data again
 *   consumer  producer  |rec|rec|rec|           |rec|rec|rec|
 *   rw        ro        ro                      ro
 *
 * Positions only grow, in bytes, and wrap with their type; position & mask is the place in the
 * data. As the data stands there twice, a record that runs over the end is read in one piece. A
 * record is a header (length with two flags, page offset for the kernel's own use) and its bytes,
 * padded to 8.
 *
 * The program reserves a record as BUSY, under a lock that also moves the producer's position, and
 * clears BUSY with a full barrier once the bytes are written. So: the acquire of the producer's
 * position makes headers visible, the acquire of a header without BUSY its bytes, and the release
 * of the consumer's position keeps the program from writing over bytes that are still being copied.
 *
 * Invariant: consumer <= producer <= consumer + size, all mod 2^64; this side writes only the
 * first.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/bpf.h>

#include "pcapng.h"
#include "xg.h"

/* struct bpf_ringbuf_hdr of the kernel: u32 len, u32 pg_off. */
#define HEADER_BYTES BPF_RINGBUF_HDR_SZ

/*
 * How long a few events wait for more. Shorter: at 100,000 events a second, a batch holds so few that
 * it costs more than they do, and the program wakes the reader so often that forwarding feels it.
 * Longer: who looks on sees the delay, and the ring must hold what comes meanwhile (100,000 events).
 */
#define GATHER_NS 1000000L

/* Verdict, reason and the longest name of a rule. */
#define COMMENT_BYTES 128

#define XG_TEXT(NAME, name, doc) #name,
static const char *const verdict_texts[] = { XG_VERDICTS(XG_TEXT) };
static const char *const reason_texts[] = { XG_REASONS(XG_TEXT) };

/* The kernel's counters are unsigned long, lock-free wherever it runs. */
_Static_assert(sizeof(_Atomic unsigned long) == sizeof(unsigned long), "not the kernel's counter");
_Static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t), "not the kernel's header");

struct xg_events {
	_Atomic unsigned long *consumer; /* written here, read by the program */
	const _Atomic unsigned long *producer; /* the other way round */
	const uint8_t *data;
	unsigned long mask;
	struct xg_events_stats stats;
	void *written;  /* mapping of page 0 */
	void *read;  /* mapping of the rest */
	size_t written_bytes;
	size_t read_bytes;
	uint32_t record_bytes; /* of what is handed out */
	int map_fd;
};

int xg_events_open(int map_fd, uint32_t record_bytes, struct xg_events **out)
{
	struct xg_events *events;
	struct xg_map_info info;
	size_t page;
	int err;

	err = xg_map_info(map_fd, &info);
	if (err)
		return err;
	if (info.type != BPF_MAP_TYPE_RINGBUF)
		return -EMEDIUMTYPE;
	page = (size_t)sysconf(_SC_PAGESIZE);

	events = calloc(1, sizeof(*events));
	if (!events)
		return -ENOMEM;
	events->map_fd = map_fd;
	events->record_bytes = record_bytes;
	events->mask = info.max_entries - 1UL;

	events->written_bytes = page;
	events->written = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
	if (events->written == MAP_FAILED) {
		err = -errno;
		goto free_events;
	}
	events->read_bytes = page + 2 * (size_t)info.max_entries;
	events->read = mmap(NULL, events->read_bytes, PROT_READ, MAP_SHARED, map_fd, (off_t)page);
	if (events->read == MAP_FAILED) {
		err = -errno;
		goto unmap_written;
	}
	events->consumer = events->written;
	events->producer = events->read;
	events->data = (const uint8_t *)events->read + page;
	*out = events;
	return 0;

unmap_written:
	munmap(events->written, events->written_bytes);
free_events:
	free(events);
	return err;
}

void xg_events_close(struct xg_events *events)
{
	if (!events)
		return;
	munmap(events->read, events->read_bytes);
	munmap(events->written, events->written_bytes);
	free(events);
}

static unsigned long room_of(uint32_t len)
{
	return ((unsigned long)len + HEADER_BYTES + 7) & ~7UL;
}

/* A part of the ring that is being read: from the next record to what was there when it was begun. */
struct reading {
	unsigned long start;
	unsigned long at;
	unsigned long end;
};

static struct reading begin_reading(const struct xg_events *events)
{
	/* Read anew each time: whoever held the ring before us has left it where it left it. */
	unsigned long at = atomic_load_explicit(events->consumer, memory_order_relaxed);

	return (struct reading){
		.start = at,
		.at = at,
		.end = atomic_load_explicit(events->producer, memory_order_acquire),
	};
}

/* The next record that counts, or NULL: there is none, or the program has not finished it. */
static const uint8_t *next_record(struct xg_events *events, struct reading *reading, uint32_t *len)
{
	while (reading->at != reading->end) {
		const uint8_t *record = events->data + (reading->at & events->mask);
		uint32_t header = atomic_load_explicit((const _Atomic uint32_t *)record,
						       memory_order_acquire);

		*len = header & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
		if (header & BPF_RINGBUF_BUSY_BIT)
			return NULL;
		if (room_of(*len) > reading->end - reading->at) {
			/* A second reader moved the position into a record: go on behind it all. */
			events->stats.malformed++;
			reading->at = reading->end;
			return NULL;
		}
		reading->at += room_of(*len);
		if (!(header & BPF_RINGBUF_DISCARD_BIT))
			return record + HEADER_BYTES;
		events->stats.discarded++;
	}
	return NULL;
}

/* Gives back what was read. Once a batch: the line is the producers', and each store takes it away from them. */
static void end_reading(struct xg_events *events, const struct reading *reading, uint32_t n)
{
	if (reading->at != reading->start)
		atomic_store_explicit(events->consumer, reading->at, memory_order_release);
	events->stats.events += n;
}

int xg_events_drain(struct xg_events *events, void *out, uint32_t max)
{
	const size_t wanted = events->record_bytes;
	struct reading reading = begin_reading(events);
	const uint8_t *record;
	uint8_t *to = out;
	uint32_t n = 0, len;

	if (max > INT_MAX)
		max = INT_MAX;
	while (n < max && (record = next_record(events, &reading, &len))) {
		if (len == wanted)
			memcpy(to + n++ * wanted, record, wanted);
		else
			events->stats.malformed++;
	}
	end_reading(events, &reading, n);
	return (int)n;
}

static char *put_word(char *out, const char *end, const char *word)
{
	size_t len = strlen(word);

	if (len > (size_t)(end - out))
		return out;
	memcpy(out, word, len);
	return out + len;
}

/* "drop rule bad" */
static void comment_of(const struct xg_event *event, const struct xg_names *names, char *out,
		       size_t room)
{
	const char *end = out + room - 1;
	const char *rule = event->rule < names->n_rules ? names->rules[event->rule] : NULL;

	if (event->verdict < XG_VERDICT_COUNT)
		out = put_word(out, end, verdict_texts[event->verdict]);
	out = put_word(out, end, " ");
	if (event->reason < XG_REASON_COUNT)
		out = put_word(out, end, reason_texts[event->reason]);
	if (rule) {
		out = put_word(out, end, " ");
		out = put_word(out, end, rule);
	}
	*out = '\0';
}

static void put_record(struct xg_capture *capture, const uint8_t *record, uint32_t len,
		       const struct xg_names *names, int64_t realtime_offset_ns)
{
	char comment[COMMENT_BYTES];
	struct pcapng_packet packet;
	struct xg_event event;
	uint8_t *at;

	memcpy(&event, record, sizeof(event));
	comment_of(&event, names, comment, sizeof(comment));
	packet = (struct pcapng_packet){
		.ts_ns = event.ts_ns + (uint64_t)realtime_offset_ns,
		.port = event.port,
		.queue = event.queue,
		.length = event.len_bytes,
		.kept = pcapng_keeps(capture, len - (uint32_t)sizeof(event)),
		.comment = comment,
	};
	at = pcapng_begin(capture, &packet);
	memcpy(at, record + sizeof(event), packet.kept);
	pcapng_end(capture, &packet, at + packet.kept);
}

int xg_events_capture(struct xg_events *events, struct xg_capture *capture,
		      const struct xg_names *names, int64_t realtime_offset_ns, uint32_t max)
{
	struct reading reading = begin_reading(events);
	const uint8_t *record;
	uint32_t n = 0, len;

	if (max > INT_MAX)
		max = INT_MAX;
	pcapng_lock(capture);
	while (n < max && (record = next_record(events, &reading, &len))) {
		if (len < sizeof(struct xg_event)) {
			events->stats.malformed++;
			continue;
		}
		put_record(capture, record, len, names, realtime_offset_ns);
		n++;
	}
	/* Room for the program first: the write may have to wait for a disk, or for who reads a pipe. */
	end_reading(events, &reading, n);
	if (n < max)
		pcapng_write(capture);
	pcapng_unlock(capture);
	return (int)n;
}

int xg_events_wait(const struct xg_events *events, int timeout_ms)
{
	struct pollfd pollfd = { .fd = events->map_fd, .events = POLLIN };
	int ready = poll(&pollfd, 1, timeout_ms);

	if (ready < 0)
		return -errno;
	return ready && (pollfd.revents & POLLNVAL) ? -EBADF : ready;
}

int xg_events_take(struct xg_events *events, void *out, uint32_t max, int timeout_ms)
{
	const struct timespec nap = { .tv_nsec = GATHER_NS };
	int n = xg_events_drain(events, out, max), ready, more;

	if (!timeout_ms || (n && (uint32_t)n >= max / 2))
		return n;
	if (!n) {
		ready = xg_events_wait(events, timeout_ms);
		if (ready <= 0)
			return ready == -EINTR ? 0 : ready;
	}
	nanosleep(&nap, NULL); /* a signal ends it: all the better */
	more = xg_events_drain(events, (uint8_t *)out + (size_t)n * events->record_bytes,
			       max - (uint32_t)n);
	return n + more;
}

int xg_events_fd(const struct xg_events *events)
{
	return events->map_fd;
}

uint64_t xg_events_size_bytes(const struct xg_events *events)
{
	return events->mask + 1;
}

uint64_t xg_events_used_bytes(const struct xg_events *events)
{
	/* In this order, or a drain in between would make it negative. */
	unsigned long at = atomic_load_explicit(events->consumer, memory_order_acquire);

	return atomic_load_explicit(events->producer, memory_order_acquire) - at;
}

void xg_events_stats(const struct xg_events *events, struct xg_events_stats *out)
{
	*out = events->stats;
}
