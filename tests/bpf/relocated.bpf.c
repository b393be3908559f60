// SPDX-License-Identifier: GPL-2.0-only
/* A program with one CO-RE relocation, which no object of bpf/ may have. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct net_device {
	int ifindex;
} __attribute__((preserve_access_index));

SEC("xdp")
int relocated(struct xdp_md *ctx)
{
	const struct net_device *dev = (void *)(long)ctx->data;

	if ((void *)(dev + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	return dev->ifindex;
}

char LICENSE[] SEC("license") = "GPL";
