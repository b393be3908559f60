/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * match.h - which rule decides.
 *
 * A policy is a table of bits, one column a rule. In each dimension that some rule looks at, the
 * packet's value finds a row: the rules that this value satisfies. The rules that the packet
 * satisfies are the AND of those rows; the first of them decides. So `not`, ranges, lists and sets
 * cost nothing, as they are only other bits (Lakshman and Stiliadis, SIGCOMM 1998).
 *
 * Here a packet's values are looked up; rows.h goes on. Dimensions that tell few packets apart are
 * folded into one: what each finds is a summand of the packet's meta class, which has one row for all
 * of them. A dimension that no rule looks at (cfg.use) is not read: its code is gone after verification.
 *
 * Invariant: lines and cfg of one program belong to one image, hence a lookup cannot miss. Where one
 * does all the same, the packet gets the reason `error`.
 */
#ifndef XG_MATCH_H
#define XG_MATCH_H

#include "rows.h"

static __always_inline void take(struct found *found, enum xg_dim dim, __u32 value)
{
	found->any |= value;
	if (cfg.narrow)
		found->bits &= value;
	else if (cfg.use[dim] == XG_USE_META)
		found->meta += value;
	else
		found->row[dim] = value;
}

static __always_inline __u32 find_mac(void *table, enum xg_dim dim, const __u8 *addr)
{
	struct xg_mac mac = {};
	const __u32 *value;

	__builtin_memcpy(mac.addr, addr, sizeof(mac.addr));
	value = bpf_map_lookup_elem(table, &mac);
	return value ? *value : cfg.miss[dim];
}

static __always_inline __u64 half_of(const struct in6_addr *addr, int word)
{
	return (__u64)bpf_ntohl(addr->s6_addr32[word]) << 32 | bpf_ntohl(addr->s6_addr32[word + 1]);
}

/*
 * One side's address. It has a table per family; a packet that is not IP finds `none`. `is_src` is a
 * constant where this is inlined.
 */
static __always_inline __u32 find_address(const struct pkt *pkt, bool is_src, enum xg_dim dim4,
					  enum xg_dim dim6)
{
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		if (!ip)
			return XG_BROKEN;
		return find4(cfg.root[dim4], bpf_ntohl(is_src ? ip->saddr : ip->daddr));
	}
	if (pkt->family == 6) {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);
		const struct in6_addr *addr;

		if (!ip6)
			return XG_BROKEN;
		addr = is_src ? &ip6->saddr : &ip6->daddr;
		return find6(cfg.root[dim6], half_of(addr, 0), half_of(addr, 2));
	}
	return cfg.none[dim4];
}

static __always_inline __u32 find_if(bool has, enum xg_dim dim, __u32 value)
{
	return has ? find(cfg.root[dim], value) : cfg.none[dim];
}

static __always_inline __u32 proto_value(const struct pkt *pkt)
{
	enum xg_kind kind = XG_KIND_OTHER;

	if (pkt->family == 4)
		kind = XG_KIND_IP;
	else if (pkt->family == 6)
		kind = XG_KIND_IP6;
	else if (pkt->ethertype == ETH_P_ARP)
		kind = XG_KIND_ARP;
	return kind * 256 + pkt->proto;
}

static __always_inline __u32 find_icmp(const struct pkt *pkt)
{
	__u32 value = pkt->icmp_type << 8 | pkt->icmp_code;

	if (!(pkt->has & XG_HAS_ICMP))
		return cfg.none[XG_DIM_ICMP];
	if (pkt->proto == IPPROTO_ICMPV6)
		return find(cfg.root[XG_DIM_ICMP6], value);
	return find(cfg.root[XG_DIM_ICMP], value);
}

static __always_inline __u32 len_value(const struct pkt *pkt)
{
	return pkt->len < XG_VALUES_LEN ? pkt->len : XG_VALUES_LEN - 1;
}

#define LOOK_UP(DIM, value) \
	if (cfg.use[XG_DIM_##DIM]) \
	take(found, XG_DIM_##DIM, (value))

static __always_inline int look_up(const struct pkt *pkt, struct found *found)
{
	const struct ethhdr *eth = pkt->data;
	bool ports = pkt->has & XG_HAS_PORTS;
	bool ip = pkt->family;

	if ((void *)(eth + 1) > pkt->data_end)
		return -1;
	LOOK_UP(ON, cfg.none[XG_DIM_ON]);
	LOOK_UP(VLAN, find_if(pkt->vlan != XG_VLAN_NONE, XG_DIM_VLAN, pkt->vlan));
	LOOK_UP(ETHERTYPE, find(cfg.root[XG_DIM_ETHERTYPE], pkt->ethertype));
	LOOK_UP(PROTO, find(cfg.root[XG_DIM_PROTO], proto_value(pkt)));
	LOOK_UP(SPORT, find_if(ports, XG_DIM_SPORT, pkt->sport));
	LOOK_UP(DPORT, find_if(ports, XG_DIM_DPORT, pkt->dport));
	LOOK_UP(TCP_FLAGS, find_if(pkt->has & XG_HAS_TCP_FLAGS, XG_DIM_TCP_FLAGS, pkt->tcp_flags));
	LOOK_UP(ICMP, find_icmp(pkt));
	LOOK_UP(LEN, find(cfg.root[XG_DIM_LEN], len_value(pkt)));
	LOOK_UP(TTL, find_if(ip, XG_DIM_TTL, pkt->ttl));
	LOOK_UP(DSCP, find_if(ip, XG_DIM_DSCP, pkt->dscp));
	LOOK_UP(FRAG, find(cfg.root[XG_DIM_FRAG], pkt->frag));
	LOOK_UP(MAC_SRC, find_mac(&mac_src, XG_DIM_MAC_SRC, eth->h_source));
	LOOK_UP(MAC_DST, find_mac(&mac_dst, XG_DIM_MAC_DST, eth->h_dest));
	LOOK_UP(SRC4, find_address(pkt, true, XG_DIM_SRC4, XG_DIM_SRC6));
	LOOK_UP(DST4, find_address(pkt, false, XG_DIM_DST4, XG_DIM_DST6));
	if (cfg.meta) {
		found->meta = direct(cfg.meta, found->meta);
		found->any |= found->meta;
	}
	return found->any & XG_REF_NODE ? -1 : 0;
}

/*
 * Returns the number of the rule that decides about the packet, or enum match_result: the first limit that it is
 * over, else the first rule that is no limit.
 */
static __always_inline int match(struct xdp_md *ctx, const struct pkt *pkt)
{
	struct found found = { .bits = cfg.narrow ? ~XG_REF_NODE : 0, .best = XG_NO_RULE };

	if (!cfg.words)
		return MATCH_NONE;
	if (look_up(pkt, &found))
		return MATCH_ERROR;
	return cfg.narrow ? match_narrow(ctx, pkt, &found) : match_rows(ctx, pkt, &found);
}

#endif
