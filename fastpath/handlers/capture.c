// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* capture.c - writes a socket's frames to a pcapng file (pcapng.c) that workers share. */
#include <string.h>
#include <time.h>

#include "../pcapng.h"
#include "../xsk_internal.h"

static void put_frame(struct xg_capture *capture, const struct xg_burst *burst, uint32_t i,
		      uint32_t port, uint64_t ts_ns)
{
	uint32_t length = burst->length[i], left = pcapng_keeps(capture, length), k, n;
	const struct pcapng_packet packet = { .ts_ns = ts_ns,
					      .port = port,
					      .queue = burst->from->queue->number,
					      .length = length,
					      .kept = left };
	struct xg_part one;
	const struct xg_part *parts = parts_of(burst, i, &one, &n);
	uint8_t *at = pcapng_begin(capture, &packet);

	for (k = 0; k < n && left; k++) {
		uint32_t part = parts[k].length < left ? parts[k].length : left;

		memcpy(at, burst->area + parts[k].addr, part);
		at += part;
		left -= part;
	}
	pcapng_end(capture, &packet, at);
}

int handle_capture(struct handler *handler, struct xg_burst *burst)
{
	struct xg_capture *capture = handler->opts.capture;
	struct timespec now;
	uint64_t ts_ns;
	uint32_t i;

	/* One time for a burst: its frames lay in the ring together. */
	clock_gettime(CLOCK_REALTIME, &now);
	ts_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	pcapng_lock(capture);
	for (i = 0; i < burst->n; i++)
		put_frame(capture, burst, i, handler->opts.port, ts_ns);
	pcapng_unlock(capture);
	return 0;
}

void idle_capture(struct handler *handler)
{
	struct xg_capture *capture = handler->opts.capture;

	pcapng_lock(capture);
	pcapng_write(capture);
	pcapng_unlock(capture);
}
