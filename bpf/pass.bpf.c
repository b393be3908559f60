// SPDX-License-Identifier: GPL-2.0-only
/*
 * pass.bpf.c - lets every packet pass. On the far end of a veth pair it makes the driver poll and flush, without
 * which frames that the near end sends back by XDP_TX stay in the ring (kernel: veth_xdp_flush).
 *
 * Twice, as a driver takes an MTU beyond a page only with a program for frames of several buffers, and kernels
 * before 5.18 refuse such a program. Whoever attaches names the section, and ip(8) loads no other.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

SEC("xdp.frags")
int pass_frags(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
