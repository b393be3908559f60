/* SPDX-License-Identifier: GPL-2.0-only */
/* refused.bpf.c - reads a packet without asking whether the byte is there: no verifier lets it through. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int careless(struct xdp_md *ctx)
{
	return *(__u8 *)(long)ctx->data;
}

char LICENSE[] SEC("license") = "GPL";
