// SPDX-License-Identifier: GPL-2.0-only
/* empty.bpf.c - the least that an XDP program can do: the measure of all others. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int empty(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
