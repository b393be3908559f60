/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * xsk_cases.h - AF_XDP sockets in situations that chance seldom makes.
 *
 * Each cases_*.c is a table of functions; xsk_cases.c runs one of them by its name. A case aborts,
 * with a line on stderr, where it fails.
 */
#ifndef XSK_CASES_H
#define XSK_CASES_H

#include "xsk_world.h"

enum { CHUNKS = 512, RING = 64, ENOUGH = 1000 };

struct xsk_case {
	const char *name; /* NULL: the table's end */
	void (*run)(void);
};

#define CASE(name) { #name, name }

extern const struct xsk_case open_cases[], receive_cases[], send_cases[], sharing_cases[],
	generate_cases[];
extern const struct xsk_case worker_cases[], handler_cases[], capture_cases[];

/* A kernel that does what it is asked, at once. */
extern const struct fake_plan willing;
/* What an out pointer holds that must not be written. */
extern void *const untouched;
/* Where a case may write a file. */
extern const char *scratch_path;

/* Ports 1 to 3 of two queues each, port 3 with zero-copy, and two UMEMs. */
void set_up(const struct fake_plan *plan, int multi_buffer);
void tear_down(void);

struct xg_xsk_opts options(uint32_t ifindex, uint32_t queue);
void open_seat(uint32_t i, uint32_t ifindex, uint32_t queue, uint32_t umem);
struct xg_ledger ledger_of(uint32_t umem);
struct xg_xsk_counters counters_of(uint32_t seat);

#endif
