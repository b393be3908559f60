/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trace.h - runs a program's body over many different packets in one test run.
 *
 * BPF_PROG_TEST_RUN repeats one frame, which tells nothing of caches, and an iteration of its own costs more
 * than a light program. So one run makes PASSES passes, each over the next packet of a trace: its head is
 * written over the frame's, and the body does its work. The body `nothing` tells what all of that costs.
 * Source addresses may come from a longer list of their own, and four bytes be drawn anew for each packet, so
 * that no cache holds what they lead to.
 *
 * A run returns how many of its packets were dropped. bpf_loop() takes kernel 5.17.
 */
#ifndef XG_BENCH_TRACE_H
#define XG_BENCH_TRACE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

enum { PASSES = 64, HEAD_BYTES = 80, HEAD_WORDS = HEAD_BYTES / 8 };
/* Of a frame without tags. */
enum { SOURCE4_AT = 26, SOURCE6_AT = 22 };

struct head {
	__u64 word[HEAD_WORDS];
};

struct source {
	__u64 word[2]; /* of IPv4 the first four bytes */
};

struct control {
	__u32 next; /* packet; only grows */
	__u32 mask; /* packets of the trace less one: they are a power of two */
	__u32 random_at; /* offset of four bytes that are random in each packet, below 64; 0: none */
	__u32 family; /* of `trace_sources`: 4 or 6; 0: there are none */
	__u32 sources_mask; /* sources less one: they are a power of two */
	__u32 zero;
};

/* As short as can be: the datapath's own calls take most of the stack. */
struct passes {
	struct xdp_md *ctx;
	__u32 drops;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct head);
} trace SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct source);
} trace_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} trace_control SEC(".maps");

/* A bijection of 32 bits (the finalizer of MurmurHash3): no number comes twice in 2^32 packets. */
static __always_inline __u32 scatter(__u32 number)
{
	number ^= number >> 16;
	number *= 0x85ebca6b;
	number ^= number >> 13;
	number *= 0xc2b2ae35;
	return number ^ number >> 16;
}

static __always_inline int write_source(struct head *out, __u32 family, __u32 at)
{
	const struct source *source = bpf_map_lookup_elem(&trace_sources, &at);

	if (!source)
		return -1;
	if (family == 4)
		__builtin_memcpy((char *)out + SOURCE4_AT, source, 4);
	else
		__builtin_memcpy((char *)out + SOURCE6_AT, source, 16);
	return 0;
}

static __always_inline struct control *controlled(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&trace_control, &zero);
}

static __always_inline int next_packet(struct xdp_md *ctx, __u32 pass)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct control *control = controlled();
	__u32 number, random_at, at;
	const struct head *head;
	struct head *out = data;

	if (!control)
		return -1;
	number = control->next + pass;
	random_at = control->random_at & 63;
	at = number & control->mask;
	head = bpf_map_lookup_elem(&trace, &at);
	if (!head || (void *)(out + 1) > end)
		return -1;
#pragma unroll
	for (int i = 0; i < HEAD_WORDS; i++)
		out->word[i] = head->word[i];
	if (control->family && write_source(out, control->family, number & control->sources_mask))
		return -1;
	if (random_at) {
		__u32 *drawn = data + random_at;

		if ((void *)(drawn + 1) > end)
			return -1;
		*drawn = scatter(number);
	}
	return 0;
}

static __always_inline int run_passes(struct xdp_md *ctx, long (*pass)(__u32, struct passes *))
{
	struct control *control = controlled();
	struct passes passes = { .ctx = ctx };

	if (!control)
		return -1;
	bpf_loop(PASSES, pass, &passes, 0);
	control->next += PASSES;
	return passes.drops;
}

/* A program `name`, of which each pass is the body: a function from ctx to an XDP action. */
#define TRACE_PROGRAM(name, body) \
	static long name##_pass(__u32 pass, struct passes *passes) \
	{ \
		if (next_packet(passes->ctx, pass)) \
			return 1; \
		passes->drops += body(passes->ctx) == XDP_DROP; \
		return 0; \
	} \
\
	SEC("xdp") \
	int name(struct xdp_md *ctx) \
	{ \
		return run_passes(ctx, name##_pass); \
	}

/* `len` bytes at `off`, or NULL. */
static __always_inline const void *bytes_of(struct xdp_md *ctx, __u32 off, __u32 len)
{
	const void *at = (void *)(long)ctx->data + off;

	return at + len > (void *)(long)ctx->data_end ? NULL : at;
}

static __always_inline int nothing(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

TRACE_PROGRAM(rewrite, nothing)

#endif
