/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * In the place of <linux/bpf.h>: the kernel's own, but for struct xdp_md, whose members of 32 bits the
 * verifier widens to pointers. Here they are wide enough for one.
 */
#ifndef HOST_LINUX_BPF_H
#define HOST_LINUX_BPF_H

#define xdp_md xdp_md_of_the_kernel
#include_next <linux/bpf.h>
#undef xdp_md

struct xdp_md {
	__u64 data;
	__u64 data_end;
	__u64 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

#endif
