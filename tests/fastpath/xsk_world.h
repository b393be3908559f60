/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * xsk_world.h - sockets over the fake kernel, and a model of what they must have received, sent and
 * counted.
 *
 * A frame is known by its stream and its number; its bytes and its length follow from both. Each
 * socket receives a stream of its own, from 0 on, without a gap; each TX ring lets out what was put
 * into it, in order. world_check() holds the ledger of the UMEMs to the fake kernel's, the counters
 * to the model, and what was sent to what was put.
 */
#ifndef XSK_WORLD_H
#define XSK_WORLD_H

#include "xg_xsk.h"

#include "fake_xdp.h"

enum {
	WORLD_UMEMS = 2,
	WORLD_SOCKETS = 5,
	WORLD_LOG = 16384, /* frames between two checks, at most */
	WORLD_BURST = 256,
	FRAME_MAX = 20 * 4096,
	HEADROOM = XG_CHUNK_HEADROOM_BYTES,
};

/* What a TX ring was given, and what came out of it: hashes, in order. */
struct sent_log {
	uint64_t given[WORLD_LOG], out[WORLD_LOG];
	uint64_t n_given, n_out, n_equal;
};

struct seat {
	struct xg_xsk *xsk; /* NULL: closed */
	struct xg_umem *umem;
	struct xg_xsk_opts opts;
	struct xg_burst *burst;
	int fd;
	uint32_t stream;
	uint64_t delivered, taken; /* frames of the stream */
	uint64_t burst_first; /* number of the burst's first frame */
	struct xg_xsk_counters want;
	struct sent_log log;
	uint64_t lost; /* by the device */
};

struct world {
	struct xg_umem *umems[WORLD_UMEMS];
	struct seat seats[WORLD_SOCKETS];
	uint64_t chance;
	uint32_t streams;
	int multi_buffer;
	int unmodelled; /* a worker receives: its bursts and counters are not ours */
};

extern struct world world;

/* A stream's frame: so long, for chunks of that room, and these bytes, valid for ever. */
uint32_t frame_length(uint32_t stream, uint64_t number, uint32_t room);
const uint8_t *frame_bytes(uint32_t stream, uint64_t number);
uint64_t frame_hash(const uint8_t *bytes, uint32_t length);

/* After fake_start(). */
void world_start(uint64_t seed, int multi_buffer);
/* Closes all, and holds it to it: nothing is open, all chunks are free. */
void world_end(void);

/* Opens seat i as its opts say, beside a socket of the same queue. -errno as xg_xsk_open(). */
int world_open(uint32_t i, uint32_t umem);
void world_close(uint32_t i);

/* The kernel receives up to n frames of the seat's stream. Returns how many it could. */
uint32_t world_deliver(uint32_t i, uint32_t n);
/* After fastpath/ has received: the frames are whole, and the next ones. */
void world_took(uint32_t i, uint32_t n);
void world_receive(uint32_t i);
void world_drop(uint32_t i, const uint8_t *mask);
void world_send(uint32_t i, const uint8_t *mask, uint32_t to);
void world_end_burst(uint32_t i);
/* Receives, and sends all back. */
void world_reflect(uint32_t i);
/* Sends n frames of a new stream by copy. Returns how many went. */
uint32_t world_send_copies(uint32_t i, uint32_t n);
/* The log of a seat expects a frame. */
void world_expect(uint32_t i, const uint8_t *bytes, uint32_t length);

void world_check(void);
/* Completes and flushes until nothing is under way. */
void world_settle(void);

#endif
