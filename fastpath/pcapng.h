/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * pcapng.h - frames into a struct xg_capture, for who has them; see pcapng.c.
 *
 * lock; for each frame: begin, copy its bytes, end; write where nothing waits; unlock.
 */
#ifndef PCAPNG_H
#define PCAPNG_H

#include "xg.h"

struct pcapng_packet {
	uint64_t ts_ns; /* CLOCK_REALTIME */
	uint32_t port; /* slot */
	uint32_t queue;
	uint32_t length; /* on the wire */
	uint32_t kept; /* bytes that follow, pcapng_keeps() at most */
	const char *comment; /* NULL: none */
};

void pcapng_lock(struct xg_capture *capture);
void pcapng_unlock(struct xg_capture *capture);

/* The rest is called with the lock held. */

/* How many bytes of a frame are kept. */
uint32_t pcapng_keeps(const struct xg_capture *capture, uint32_t length);
/* Returns where the packet's bytes go. */
uint8_t *pcapng_begin(struct xg_capture *capture, const struct pcapng_packet *packet);
/* at: behind those bytes. */
void pcapng_end(struct xg_capture *capture, const struct pcapng_packet *packet, uint8_t *at);
/* Writes what waits to the file. */
void pcapng_write(struct xg_capture *capture);

#endif
