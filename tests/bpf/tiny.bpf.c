/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tiny.bpf.c - the least that has all kinds of things in it that control handles.
 *
 * A frame's first byte says what becomes of it (enum tiny_wish); the struct xg_event to write lies behind
 * its Ethernet header. Whatever it is, the frame is counted, told to `explained`, and gets cfg.verdict.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"

#define HEADER_BYTES 14

enum tiny_wish { TINY_NOTHING, TINY_SUBMIT, TINY_DISCARD, TINY_SHORT };

struct tiny_config {
	__u32 verdict;
	__u32 weight;
};

const volatile __u64 before = 1;
const volatile struct tiny_config cfg = { .verdict = XDP_PASS, .weight = 1 };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct xg_counter);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_event);
} explained SEC(".maps");

static __always_inline void write(const struct xg_event *wanted, __u8 wish)
{
	struct xg_event *event;
	__u64 *number;

	if (wish == TINY_SHORT) {
		number = bpf_ringbuf_reserve(&events, sizeof(*number), 0);
		if (!number)
			return;
		*number = 0;
		bpf_ringbuf_submit(number, 0);
		return;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return;
	__builtin_memcpy(event, wanted, sizeof(*event));
	if (wish == TINY_SUBMIT)
		bpf_ringbuf_submit(event, 0);
	else
		bpf_ringbuf_discard(event, 0);
}

SEC("xdp")
int tiny(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct xg_counter *count;
	struct xg_event *answer;
	__u32 first = 0;

	count = bpf_map_lookup_elem(&counts, &first);
	answer = bpf_map_lookup_elem(&explained, &first);
	if (!count || !answer || data + HEADER_BYTES > end)
		return XDP_ABORTED;
	count->packets += cfg.weight;
	count->bytes += end - data;
	answer->len_bytes = end - data;
	answer->ts_ns++;
	if (*data != TINY_NOTHING && data + HEADER_BYTES + sizeof(struct xg_event) <= end)
		write((void *)(data + HEADER_BYTES), *data);
	return bpf_map_lookup_elem(&table, &first) ? XDP_TX : cfg.verdict;
}

char LICENSE[] SEC("license") = "GPL";
