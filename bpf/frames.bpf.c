// SPDX-License-Identifier: GPL-2.0-only
/*
 * frames.bpf.c - hands every frame of a port to AF_XDP, for xdpgw.fast.FastPort without a policy.
 *
 * A queue that no socket serves keeps its packets: the flags of bpf_redirect_map() are the verdict for
 * a key without a socket (kernel 5.3), and XDP_PASS leaves them to the stack. So the program does no harm
 * before the first socket is in the map, nor after the last one died.
 *
 * For frames over several buffers it is loaded with BPF_F_XDP_HAS_FRAGS (5.18): it touches no byte of them.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, XG_MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

SEC("xdp")
int frames(struct xdp_md *ctx)
{
	return (int)bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "GPL";
