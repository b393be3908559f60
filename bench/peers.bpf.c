// SPDX-License-Identifier: GPL-2.0-only
/*
 * peers.bpf.c - what a user would write instead, over the same trace: rules tried one by one, and the kernel's
 * own longest prefix match. Reads packets by the datapath's parser, so that only the match differs.
 */
#include "parse.h"

#include "trace.h"

/* A rule as ranges. Addresses in host order; an address outside of the range where `not` is set. */
struct linear_rule {
	__u32 src[2], dst[2];
	__u16 sport[2], dport[2];
	__u8 any_proto, proto, src_not, dst_not;
	__u32 action; /* enum xdp_action */
};

struct scan {
	__u32 src, dst, action;
	__u16 sport, dport;
	__u8 proto;
};

/* Set before load. */
const volatile __u32 linear_rules = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct linear_rule);
} linear_table SEC(".maps");

/* Bits of the prefix, then the address in network order: as the kernel's trie wants them. */
struct lpm4_key {
	__u32 bits;
	__u8 addr[4];
};

struct lpm6_key {
	__u32 bits;
	__u8 addr[16];
};

#define XG_PEER_TRIE(name, key_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE); \
		__uint(max_entries, 1); \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__type(key, key_type); \
		__type(value, __u32); \
	} name SEC(".maps")

XG_PEER_TRIE(lpm4, struct lpm4_key);
XG_PEER_TRIE(lpm6, struct lpm6_key);

static __always_inline bool within(__u32 value, const __u32 range[2])
{
	return value - range[0] <= range[1] - range[0];
}

static __always_inline bool within_ports(__u16 value, const __u16 range[2])
{
	return value >= range[0] && value <= range[1];
}

static long try_rule(__u32 number, struct scan *scan)
{
	const struct linear_rule *rule = bpf_map_lookup_elem(&linear_table, &number);

	if (!rule)
		return 1;
	if (within(scan->src, rule->src) == rule->src_not ||
	    within(scan->dst, rule->dst) == rule->dst_not ||
	    (!rule->any_proto && rule->proto != scan->proto) ||
	    !within_ports(scan->sport, rule->sport) || !within_ports(scan->dport, rule->dport))
		return 0;
	scan->action = rule->action;
	return 1;
}

static __always_inline int scan_rules(struct xdp_md *ctx)
{
	struct scan scan = { .action = XDP_PASS };
	const struct iphdr *ip;
	struct pkt pkt = {};

	if (parse(ctx, &pkt) || pkt.family != 4)
		return XDP_PASS;
	ip = bytes_at(pkt.data, pkt.data_end, pkt.l3, sizeof(*ip));
	if (!ip)
		return XDP_PASS;
	scan.src = bpf_ntohl(ip->saddr);
	scan.dst = bpf_ntohl(ip->daddr);
	scan.sport = pkt.sport;
	scan.dport = pkt.dport;
	scan.proto = pkt.proto;
	bpf_loop(linear_rules, try_rule, &scan, 0);
	return scan.action;
}

static __always_inline int lookup_lpm4(struct xdp_md *ctx)
{
	const void *source = bytes_of(ctx, SOURCE4_AT, sizeof(__u32));
	struct lpm4_key key = { .bits = 32 };

	if (!source)
		return XDP_PASS;
	__builtin_memcpy(key.addr, source, sizeof(key.addr));
	return bpf_map_lookup_elem(&lpm4, &key) ? XDP_DROP : XDP_PASS;
}

static __always_inline int lookup_lpm6(struct xdp_md *ctx)
{
	const void *source = bytes_of(ctx, SOURCE6_AT, sizeof(struct in6_addr));
	struct lpm6_key key = { .bits = 128 };

	if (!source)
		return XDP_PASS;
	__builtin_memcpy(key.addr, source, sizeof(key.addr));
	return bpf_map_lookup_elem(&lpm6, &key) ? XDP_DROP : XDP_PASS;
}

TRACE_PROGRAM(linear, scan_rules)
TRACE_PROGRAM(trie4, lookup_lpm4)
TRACE_PROGRAM(trie6, lookup_lpm6)

char LICENSE[] SEC("license") = "GPL";
