/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * fake_xdp.h - the kernel's side of AF_XDP in plain memory, behind the linker's --wrap.
 *
 * A program that is linked with fake_*.c and --wrap of all calls in FAKE_WRAPS (test_xsk.py) runs
 * fastpath/ as it is, without a kernel that knows AF_XDP and without a privilege:
 *
 *   fake_libc.c   the system calls, time that passes only when it is waited for, calls that fail on
 *                 demand, and the count of all descriptors and mappings
 *   fake_xdp.c    sockets, UMEMs, pools, with the rules of net/xdp/xsk.c and xsk_buff_pool.c
 *   fake_rings.c  its end of the rings, and the ledger, with the rules of net/xdp/xsk_queue.h
 *   fake_path.c   frames that come and go
 *
 * The fake keeps a ledger of its own, from nothing but the indices and entries in shared memory: a
 * chunk is the kernel's from the moment its entry is published in a fill or TX ring until the entry
 * of an RX or completion ring is taken. Where a chunk would be given twice, an entry changes after
 * it was published, a frame changes before it is completed, an index runs past the other, a
 * descriptor is not valid or memory is unmapped under a socket, it says so and aborts. The memory
 * of a chunk that the kernel has to write into is poisoned for ASan.
 */
#ifndef FAKE_XDP_H
#define FAKE_XDP_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			abort(); \
		} \
	} while (0)

enum { FAKE_DEVICES = 8, FAKE_QUEUES = 4, FAKE_PARTS_MAX = 18 };

/* What goes wrong by itself, and where the rings begin. */
struct fake_plan {
	uint64_t seed;
	uint32_t index; /* of producer and consumer in every new ring */
	uint32_t late_percent; /* of the frames sent: completed after late_ns, in order */
	uint64_t late_ns; /* 0: by fake_complete() only */
	uint32_t
		refused_percent; /* of the calls of sendto(): EAGAIN, EBUSY or ENOBUFS for nothing */
	uint32_t lost_percent; /* of the frames: completed with EBUSY, not sent (NET_XMIT_DROP) */
	int huge_pages; /* the machine has some free */
	/* Before 6.17 the kernel shows what it took from a TX ring only when it has taken all. */
	int lazy_consumer;
};

/* Forgets all before, which must have been closed. */
void fake_start(const struct fake_plan *plan);
/* Counts of what the code under test has open: sockets, eventfds, mappings. 0 when all is closed. */
unsigned fake_open_things(void);

void fake_add_device(uint32_t ifindex, uint32_t queues, int zero_copy);
void fake_set_up(uint32_t ifindex, int up);
/* As NETDEV_UNREGISTER: its sockets are unbound, and SO_ERROR says ENETDOWN. poll() does not tell. */
void fake_remove_device(uint32_t ifindex);
/* bind() to a queue says EBUSY so many times more, as after another process has closed. */
void fake_keep_busy(uint32_t ifindex, uint32_t queue, uint32_t times);

/* The n-th call from now on fails with err; 0: none. Counts the calls that can fail. */
void fake_fail(unsigned nth, int err);
/* The call that failed, as man pages write it, such as "bind(XDP_COPY)"; NULL: it did not come to it. */
const char *fake_failed(void);

/* ---- The kernel's work ------------------------------------------------------------------------ */

/*
 * Redirects a frame to a socket. 0, or -errno as __xsk_rcv(): -ENOMEM no chunk in the fill ring,
 * -ENOBUFS the RX ring is full, -ENOSPC longer than a chunk and no XDP_USE_SG, -ENXIO not bound.
 */
int fake_receive(int fd, const uint8_t *bytes, uint32_t length);
/* Shows the first part only of a frame in several, as a zero-copy driver may for a moment. */
void fake_hold_back(int fd, int on);
/* The device has sent: puts up to n completions, of the socket's queue. Returns how many. */
uint32_t fake_complete(int fd, uint32_t n);
/* The zero-copy driver's turn: sends up to n descriptors, if it is not asleep. */
uint32_t fake_drive(int fd, uint32_t n);

/* Called with each frame that leaves; `lost`: the device dropped it. */
extern void (*fake_on_sent)(int fd, const uint8_t *bytes, uint32_t length, int lost);

/* Called while the code under test sleeps, each millisecond. 0: nothing will ever happen. */
extern int (*fake_on_sleep)(void);
/* poll() without end really waits, for another thread. */
extern int fake_real_sleep;

uint64_t fake_now_ns(void);

struct fake_ledger {
	uint64_t chunks, user, receiving, sending;
	uint64_t forgotten; /* of `sending`: never to be sent, as their socket was closed */
};

/* Looks at all rings, and tells who has the chunks of the UMEM that begins at area. */
void fake_look(const uint8_t *area, struct fake_ledger *out);
/* Entries that the kernel has not taken yet, and those that wait for the user. */
struct fake_levels {
	uint32_t rx, tx, fill, completion;
	uint32_t in_flight; /* of the queue: taken from TX rings, not completed */
};
void fake_levels(int fd, struct fake_levels *out);

/* ---- Random numbers (splitmix64) --------------------------------------------------------------- */

static inline uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* 0 .. n - 1 */
static inline uint32_t pick(uint64_t *state, uint32_t n)
{
	return (uint32_t)((next_random(state) >> 32) * n >> 32);
}

#endif
