// SPDX-License-Identifier: GPL-2.0-only
/*
 * tap.bpf.c - both ends of the load of bench/reload.py. `load` makes the frames of a live test run: it numbers
 * them and writes down when. `tap` is what the filter passes them to.
 *
 * What it keeps is told window by window. A window begins when control writes its number.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <linux/pkt_cls.h>
#include <stddef.h>

enum { WINDOWS = 256, PAYLOAD_AT = 42 }; /* of UDP over IPv4 without tags */

struct stamp {
	__u64 number;
	__u64 made_ns;
} __attribute__((packed));

struct window {
	__u64 packets;
	__u64 lost;
	__u64 longest_ns; /* in which nothing came */
	__u64 longest_wait_ns; /* of those, in which a packet was on its way */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WINDOWS);
	__type(key, __u32);
	__type(value, struct window);
} windows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} current SEC(".maps");

/* Each has one writer, as all runs on one CPU. */
static __u64 made;
static struct {
	__u64 number;
	__u64 came_ns;
} last;

static __always_inline struct stamp *stamp_in(void *data, void *data_end)
{
	struct stamp *stamp = data + PAYLOAD_AT;

	return (void *)(stamp + 1) > data_end ? NULL : stamp;
}

SEC("xdp")
int load(struct xdp_md *ctx)
{
	struct stamp *stamp = stamp_in((void *)(long)ctx->data, (void *)(long)ctx->data_end);

	if (!stamp)
		return XDP_ABORTED;
	stamp->number = ++made;
	stamp->made_ns = bpf_ktime_get_ns();
	return XDP_TX;
}

static __always_inline void note(struct window *window, const struct stamp *stamp)
{
	__u64 now_ns = bpf_ktime_get_ns(), gap_ns, wait_ns;

	window->packets++;
	if (last.number) {
		gap_ns = now_ns - last.came_ns;
		wait_ns = now_ns - stamp->made_ns;
		if (wait_ns > gap_ns)
			wait_ns = gap_ns;
		if (gap_ns > window->longest_ns)
			window->longest_ns = gap_ns;
		if (wait_ns > window->longest_wait_ns)
			window->longest_wait_ns = wait_ns;
		window->lost += stamp->number - last.number - 1;
	}
	last.number = stamp->number;
	last.came_ns = now_ns;
}

SEC("tc")
int tap(struct __sk_buff *skb)
{
	const struct stamp *stamp = stamp_in((void *)(long)skb->data, (void *)(long)skb->data_end);
	struct window *window;
	__u32 zero = 0, *at;

	at = bpf_map_lookup_elem(&current, &zero);
	window = at ? bpf_map_lookup_elem(&windows, at) : NULL;
	if (window && stamp)
		note(window, stamp);
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
