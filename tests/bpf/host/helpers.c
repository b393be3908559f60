// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* helpers.c - the kernel's part of the datapath: maps, ring buffer and clock, as simple as they can be. */
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf_helpers.h>
#include <sanitizer/asan_interface.h>

#include "host.h"

#define KEYED_ENTRIES 64 /* of an LRU table, small, so that it evicts; of others at most */
#define REFUSE_EACH 7 /* the ring is full every so often */
#define UNWRITTEN 0xa5 /* what a reserved record holds before it is written */

static uint64_t now_ns = 1;
static uint64_t random_state = 1;
static uint32_t reservations;
static struct ring_use ring;

void *xmalloc(size_t len)
{
	void *at = malloc(len);

	if (!at)
		stop("out of memory");
	return at;
}

void random_seed(uint64_t seed)
{
	random_state = seed ? seed : 1;
}

uint64_t random_word(void)
{
	/* xorshift64* (Vigna 2016). */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dULL;
}

static bool is_keyed(const struct host_map *map)
{
	return map->type != BPF_MAP_TYPE_ARRAY && map->type != BPF_MAP_TYPE_PERCPU_ARRAY;
}

struct host_map *map_by_name(const char *name)
{
	for (size_t i = 0; i < host_map_count; i++)
		if (!strcmp(host_maps[i].name, name))
			return &host_maps[i];
	stop("no such map");
}

static struct host_map *map_of(const void *map)
{
	for (size_t i = 0; i < host_map_count; i++)
		if (host_maps[i].map == map)
			return &host_maps[i];
	stop("the program used a map that is not in the table");
}

void map_allocate(struct host_map *map, uint32_t entries)
{
	free(map->keys);
	free(map->values);
	map->entries = entries;
	map->used = 0;
	map->keys = is_keyed(map) ? xmalloc((size_t)entries * map->key_size) : NULL;
	map->values = xmalloc((size_t)entries * map->value_size);
	memset(map->values, 0, (size_t)entries * map->value_size);
}

void maps_reset(void)
{
	for (size_t i = 0; i < host_map_count; i++) {
		struct host_map *map = &host_maps[i];

		bool is_lru = map->type == BPF_MAP_TYPE_LRU_HASH;

		if (is_lru || (is_keyed(map) && map->entries > KEYED_ENTRIES))
			map_allocate(map, KEYED_ENTRIES);
		else
			map_allocate(map, map->entries);
	}
}

static bool prefix_holds(const uint8_t *entry, const uint8_t *key, uint32_t *bits)
{
	uint32_t i;

	memcpy(bits, entry, sizeof(*bits));
	for (i = 0; i < *bits; i++) {
		uint8_t differ = entry[4 + i / 8] ^ key[4 + i / 8];

		if (differ & 0x80 >> i % 8)
			return false;
	}
	return true;
}

static void *trie_lookup(const struct host_map *map, const void *key)
{
	uint32_t bits, longest = 0;
	void *found = NULL;

	for (uint32_t i = 0; i < map->used; i++) {
		if (!prefix_holds(map->keys + i * map->key_size, key, &bits))
			continue;
		if (!found || bits > longest) {
			found = map->values + i * map->value_size;
			longest = bits;
		}
	}
	return found;
}

void *bpf_map_lookup_elem(void *identity, const void *key)
{
	const struct host_map *map = map_of(identity);
	uint32_t index;

	if (map->type == BPF_MAP_TYPE_LPM_TRIE)
		return trie_lookup(map, key);
	if (!is_keyed(map)) {
		memcpy(&index, key, sizeof(index));
		return index < map->entries ? map->values + (size_t)index * map->value_size : NULL;
	}
	for (uint32_t i = 0; i < map->used; i++)
		if (!memcmp(map->keys + i * map->key_size, key, map->key_size))
			return map->values + i * map->value_size;
	return NULL;
}

long bpf_map_update_elem(void *identity, const void *key, const void *value, __u64 flags)
{
	struct host_map *map = map_of(identity);
	uint8_t *found = bpf_map_lookup_elem(identity, key);
	uint32_t at;

	if (!is_keyed(map))
		stop("an update of an array: the datapath has none");
	if (found && flags == BPF_NOEXIST)
		return -17 /* EEXIST */;
	if (!found && flags == BPF_EXIST)
		return -2 /* ENOENT */;
	if (!found) {
		if (map->used == map->entries && map->type != BPF_MAP_TYPE_LRU_HASH)
			return -7 /* E2BIG */;
		at = map->used < map->entries ? map->used++ : random_word() % map->entries;
		memcpy(map->keys + at * map->key_size, key, map->key_size);
		found = map->values + at * map->value_size;
	}
	memcpy(found, value, map->value_size);
	return 0;
}

long bpf_map_delete_elem(void *identity, const void *key)
{
	struct host_map *map = map_of(identity);
	uint8_t *found = bpf_map_lookup_elem(identity, key);
	uint32_t at, last;

	if (!found)
		return -2 /* ENOENT */;
	at = (found - map->values) / map->value_size;
	last = --map->used;
	memmove(map->keys + at * map->key_size, map->keys + last * map->key_size, map->key_size);
	memmove(found, map->values + last * map->value_size, map->value_size);
	return 0;
}

void *bpf_ringbuf_reserve(void *identity, __u64 size, __u64 flags)
{
	(void)identity;
	(void)flags;
	if (++reservations % REFUSE_EACH == 0) {
		ring.refused++;
		return NULL;
	}
	ring.reserved++;
	return memset(xmalloc(size), UNWRITTEN, size);
}

void bpf_ringbuf_submit(void *record, __u64 flags)
{
	(void)flags;
	ring.submitted++;
	memcpy(&ring.event, record, sizeof(ring.event));
	free(record);
}

struct ring_use ring_take(void)
{
	struct ring_use was = ring;

	memset(&ring, 0, sizeof(ring));
	return was;
}

void clock_advance(uint64_t ns)
{
	now_ns += ns;
}

__u64 bpf_ktime_get_ns(void)
{
	return now_ns;
}

__u64 bpf_ktime_get_boot_ns(void)
{
	return now_ns;
}

__u64 bpf_ktime_get_coarse_ns(void)
{
	return now_ns;
}

/* 250 a second, from INITIAL_JIFFIES of linux/jiffies.h on: as the images here have it. */
__u64 bpf_jiffies64(void)
{
	return (1ULL << 32) - 300 * 250 + now_ns / 4000000;
}

/* Two of them take turns. */
__u32 bpf_get_smp_processor_id(void)
{
	static __u32 calls;

	return calls++ & 1;
}

/*
 * A socket listens behind every key that the map has, as `explain` takes it: so explaining and logging can
 * be held against each other. What happens without one is the kernel's part, and tests/net's.
 */
long bpf_redirect_map(void *identity, __u64 key, __u64 flags)
{
	(void)identity;
	if (key >= XG_XSK_SLOTS || flags > XDP_PASS)
		stop("a packet is handed to a socket that cannot be");
	return XDP_REDIRECT;
}

/* Nobody looks on here: a tail call that comes back. */
long bpf_tail_call(struct xdp_md *ctx, void *identity, __u32 at)
{
	(void)ctx;
	(void)identity;
	(void)at;
	return -1;
}

/* The helpers below know the frame that a context belongs to: run_program() puts it before the context. */
struct context {
	const struct frame *frame;
	struct xdp_md md;
};

static const struct frame *frame_of(const struct xdp_md *ctx)
{
	return ((const struct context *)((const char *)ctx - offsetof(struct context, md)))->frame;
}

__u64 bpf_xdp_get_buff_len(struct xdp_md *ctx)
{
	return frame_of(ctx)->len;
}

int run_program(const struct frame *frame, struct xg_event *event)
{
	struct host_map *explained = map_by_name("explained");
	uint8_t *data = memcpy(xmalloc(frame->linear), frame->bytes, frame->linear);
	struct context context = {
		.frame = frame,
		.md = { .data = (uintptr_t)data, .data_end = (uintptr_t)data + frame->linear },
	};
	int action;

	if (!frame->linear) /* malloc(0) gives one byte */
		__asan_poison_memory_region(data, 1);
	memset(explained->values, 0, sizeof(*event));
	action = xdpgw(&context.md);
	memcpy(event, explained->values, sizeof(*event));
	free(data);
	return action;
}
