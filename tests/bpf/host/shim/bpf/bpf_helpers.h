/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* In the place of libbpf's <bpf/bpf_helpers.h>: the same words, and functions of helpers.c behind them. */
#ifndef HOST_BPF_HELPERS_H
#define HOST_BPF_HELPERS_H

#include <linux/bpf.h>

#define SEC(name)
#define __ksym
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))

void *bpf_map_lookup_elem(void *map, const void *key);
long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags);
long bpf_map_delete_elem(void *map, const void *key);
void *bpf_ringbuf_reserve(void *ring, __u64 size, __u64 flags);
void bpf_ringbuf_submit(void *record, __u64 flags);
__u64 bpf_ktime_get_ns(void);
__u64 bpf_ktime_get_coarse_ns(void);
__u64 bpf_ktime_get_boot_ns(void);
__u64 bpf_jiffies64(void);
__u32 bpf_get_smp_processor_id(void);
__u64 bpf_xdp_get_buff_len(struct xdp_md *ctx);
long bpf_redirect_map(void *map, __u64 key, __u64 flags);
long bpf_tail_call(struct xdp_md *ctx, void *array, __u32 at);

#endif
