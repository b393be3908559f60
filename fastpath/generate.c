// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * generate.c - the sending loop of the traffic generator; see xg_xsk.h.
 *
 * The frames are laid into chunks once. What is in flight is a window over that circle of chunks: a
 * chunk is sent again only when its completion came back, which happens in the order of sending.
 * Chunks of the circle are marked by NO_QUEUE in `where`: others may be under way on the same queue.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "xsk_internal.h"

enum {
	BATCH = 64,
	LAST_WAIT_NS = 1000000000,
	/* Below it a sleep costs more precision than it saves work. */
	SLEEP_NS = 60000,
};

struct lap {
	uint64_t *addr; /* of each chunk of the circle */
	uint32_t *length;
	uint32_t n;
	uint32_t at; /* the next one to be sent; those before it are in flight */
	uint32_t in_flight;
};

static int lay_frames(struct xg_umem *umem, const uint8_t *bytes, const size_t *offsets,
		      const uint32_t *lengths, uint32_t n, struct lap *lap)
{
	uint32_t room = umem->chunk_bytes - XG_CHUNK_HEADROOM_BYTES, top, i;

	for (i = 0; i < n; i++)
		if (lengths[i] < ETHERNET_BYTES || lengths[i] > room)
			return -EMSGSIZE;
	top = n_free(umem);
	if (top < lap->n)
		return -ENOSPC;
	for (i = 0; i < lap->n; i++) {
		uint64_t chunk = free_pop(umem, &top);

		xg_debug_hand(umem, chunk, OWNER_FREE, OWNER_HELD);
		umem->where[chunk >> umem->chunk_shift] = NO_QUEUE;
		lap->addr[i] = chunk + XG_CHUNK_HEADROOM_BYTES;
		lap->length[i] = lengths[i % n];
		memcpy(umem->area + lap->addr[i], bytes + offsets[i % n], lengths[i % n]);
	}
	hand_over(umem, OWNER_FREE, OWNER_HELD, lap->n);
	return 0;
}

/* Gives the circle back. What is still in flight comes back as any other chunk that was sent. */
static void lift_frames(struct xg_xsk *xsk, const struct lap *lap)
{
	struct xg_umem *umem = xsk->umem;
	uint32_t top = n_free(umem), at = lap->at, i;

	for (i = 0; i < lap->n - lap->in_flight; i++) {
		xg_debug_hand(umem, lap->addr[at], OWNER_HELD, OWNER_FREE);
		free_push(umem, &top, lap->addr[at]);
		at = at + 1 == lap->n ? 0 : at + 1;
	}
	hand_over(umem, OWNER_HELD, OWNER_FREE, i);
	for (; i < lap->n; i++) {
		umem->where[lap->addr[at] >> umem->chunk_shift] = xsk->queue_slot;
		at = at + 1 == lap->n ? 0 : at + 1;
	}
}

/* Completions of the circle go back to it, others to the stack. Returns how many of the circle. */
static uint32_t completed(struct xg_xsk *xsk)
{
	struct queue *queue = xsk->queue;
	struct xg_umem *umem = xsk->umem;
	uint32_t top = n_free(umem), own = 0, n, i;

	if (!queue->sending)
		return 0;
	n = ring_filled(&queue->completion, queue->sending);
	for (i = 0; i < n; i++) {
		uint64_t addr = ring_addr_at(&queue->completion, i);

		if (umem->where[addr >> umem->chunk_shift] == NO_QUEUE) {
			xg_debug_hand(umem, addr, OWNER_SENDING, OWNER_HELD);
			own++;
		} else {
			xg_debug_hand(umem, addr, OWNER_SENDING, OWNER_FREE);
			free_push(umem, &top, addr);
		}
	}
	if (n) {
		ring_give_back(&queue->completion, n);
		hand_over(umem, OWNER_SENDING, OWNER_HELD, own);
		hand_over(umem, OWNER_SENDING, OWNER_FREE, n - own);
		queue->sending -= n;
	}
	return own;
}

/* Frames that may be out by now. */
static uint64_t due(const struct xg_generate_opts *opts, uint64_t elapsed_ns)
{
	if (!opts->interval_ns_q16)
		return UINT64_MAX;
	/* The first one at once; 2^48 ns are 78 hours, after which the shift would overflow. */
	if (elapsed_ns < 1ull << 47)
		return (elapsed_ns << 16) / opts->interval_ns_q16 + 1;
	return elapsed_ns / (opts->interval_ns_q16 >> 16 ? opts->interval_ns_q16 >> 16 : 1) + 1;
}

static void pause_until(uint64_t at_ns, uint64_t now)
{
	struct timespec pause;

	if (at_ns <= now + SLEEP_NS) {
		idle_relax();
		return;
	}
	/* At most 50 ms, so that a wish to stop is seen. */
	at_ns = at_ns - now > 50000000 ? 50000000 : at_ns - now - SLEEP_NS / 2;
	pause.tv_sec = 0;
	pause.tv_nsec = (long)at_ns;
	nanosleep(&pause, NULL);
}

static int told_to_stop(const struct xg_generate_opts *opts, uint64_t elapsed_ns)
{
	return (opts->stop && *opts->stop) ||
	       (opts->stop_after_ns && elapsed_ns >= opts->stop_after_ns);
}

static int send_lap(struct xg_xsk *xsk, struct lap *lap, const struct xg_generate_opts *opts,
		    struct xg_generate_result *result)
{
	uint64_t start = now_ns(), put = 0, done = 0, kicks = xsk->kicks, put_bytes = 0;
	uint64_t quiet = start; /* since then a completion is missing */
	uint32_t at = 0;
	int stopping = 0;

	for (;;) {
		uint64_t now = now_ns(), may = due(opts, now - start);
		uint32_t n = BATCH, i, returned;

		returned = completed(xsk);
		done += returned;
		if (opts->progress)
			__atomic_store_n(opts->progress, done, __ATOMIC_RELAXED);
		stopping |= told_to_stop(opts, now - start);
		if (returned || done == put)
			quiet = now;
		else if (now - quiet > LAST_WAIT_NS)
			break; /* such as after the port has gone */
		if (stopping || (opts->count && put == opts->count)) {
			if (done == put)
				break;
			xsk_kick(xsk);
			continue;
		}
		if (opts->count && opts->count - put < n)
			n = (uint32_t)(opts->count - put);
		if (may - put < n || may < put)
			n = may > put ? (uint32_t)(may - put) : 0;
		if (!n) {
			/* Not yet: the put-th frame is due at put * interval. */
			pause_until(start + (uint64_t)(((unsigned __int128)put *
							opts->interval_ns_q16) >>
						       16),
				    now);
			continue;
		}
		if (lap->n - (put - done) < n)
			n = (uint32_t)(lap->n - (put - done));
		if (ring_room(&xsk->tx, n) < n)
			n = ring_room(&xsk->tx, n);
		for (i = 0; i < n; i++) {
			xg_debug_hand(xsk->umem, lap->addr[at], OWNER_HELD, OWNER_SENDING);
			ring_put_desc(&xsk->tx, lap->addr[at], lap->length[at], 0);
			put_bytes += lap->length[at];
			at = at + 1 == lap->n ? 0 : at + 1;
		}
		if (n) {
			ring_publish(&xsk->tx);
			hand_over(xsk->umem, OWNER_HELD, OWNER_SENDING, n);
			xsk->queue->sending += n;
			put += n;
			bump(&xsk->tx_packets, n);
		}
		xsk_kick(xsk);
	}
	bump(&xsk->tx_bytes, put_bytes);
	lap->at = at;
	lap->in_flight = (uint32_t)(put - done);
	for (; put != done; put--) {
		at = at ? at - 1 : lap->n - 1;
		put_bytes -= lap->length[at];
	}
	result->frames = done;
	result->bytes = put_bytes;
	result->duration_ns = now_ns() - start;
	result->kicks = xsk->kicks - kicks;
	return lap->in_flight ? -ETIMEDOUT : 0;
}

int xg_generate(struct xg_xsk *xsk, const uint8_t *bytes, const size_t *offsets,
		const uint32_t *lengths, uint32_t n, const struct xg_generate_opts *opts,
		struct xg_generate_result *out)
{
	struct lap lap = { .n = n };
	int err;

	if (!n || !xsk->tx.size)
		return -EINVAL;
	xsk_reclaim(xsk->umem, xsk->queue);
	/* Whole rounds of the frames, enough of them to keep the TX ring full. */
	while (lap.n < 2 * xsk->tx.size && lap.n + n <= n_free(xsk->umem))
		lap.n += n;
	lap.addr = calloc(lap.n, sizeof(*lap.addr));
	lap.length = calloc(lap.n, sizeof(*lap.length));
	err = -ENOMEM;
	if (!lap.addr || !lap.length)
		goto free_lap;
	err = lay_frames(xsk->umem, bytes, offsets, lengths, n, &lap);
	if (err)
		goto free_lap;
	err = send_lap(xsk, &lap, opts, out);
	lift_frames(xsk, &lap);
	xg_debug_ledger(xsk->umem);

free_lap:
	free(lap.length);
	free(lap.addr);
	return err;
}
