/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * host.h - the datapath as a program of the host, so that ASan and UBSan see what the verifier believes.
 *
 *   datapath.c  bpf/xdpgw.bpf.c itself over the shim, and the table of its maps
 *   helpers.c   the kernel's part: maps, ring buffer, clock
 *   main.c      commands from stdin, answers to stdout
 *   fuzz.c      mutations
 *
 * Each frame is an allocation of its own of exactly the bytes that the program may see (`linear`), so a
 * byte read outside of them is a report. Only alignment is not checked: BPF reads packets unaligned.
 */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/bpf.h>

#include "abi.h"

struct host_map {
	const char *name;
	void *map; /* the variable of maps.h, which is only an identity here */
	uint32_t type; /* enum bpf_map_type */
	uint32_t key_size;
	uint32_t value_size;
	uint32_t entries;
	uint32_t used; /* of a keyed map */
	uint8_t *keys;
	uint8_t *values;
};

extern struct host_map host_maps[];
extern const size_t host_map_count;
extern volatile struct xg_config *const host_cfg;

int xdpgw(struct xdp_md *ctx);

/* One frame on its way: what the driver knows of it beside the bytes. */
struct frame {
	const uint8_t *bytes;
	uint32_t len;
	uint32_t linear; /* bytes before data_end; the rest lies in further buffers */
};

/* helpers.c */
struct host_map *map_by_name(const char *name);
void map_allocate(struct host_map *map, uint32_t entries);
void maps_reset(void); /* empties all maps; array maps of the books get their size */
void clock_advance(uint64_t ns);
uint64_t random_word(void);
void random_seed(uint64_t seed);
void *xmalloc(size_t len);

/* Runs the program once on a copy of the frame; `event` is what the map `explained` holds then. */
int run_program(const struct frame *frame, struct xg_event *event);

/* What the program did with the ring since the last call. */
struct ring_use {
	uint32_t reserved;
	uint32_t submitted;
	uint32_t refused;
	struct xg_event event; /* the last submitted */
};
struct ring_use ring_take(void);

/* main.c */
int run_frame(const struct frame *frame, struct xg_event *event);
void answer(int action, const struct frame *frame, const struct xg_event *event, bool with_bytes);
_Noreturn void stop(const char *why);

/* fuzz.c */
struct corpus {
	uint8_t **frames;
	uint32_t *lens;
	uint32_t count;
};
uint64_t fuzz_cuts(const struct corpus *corpus);
uint64_t fuzz_mutations(const struct corpus *corpus, uint32_t runs, uint32_t sample_every);

#endif
