/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * match.h - which rule decides.
 *
 * A policy is a table of bits, one column a rule. In each dimension that some
 * rule looks at, the packet's value finds a row: the rules that this value
 * satisfies. The rules that the packet satisfies are the AND of those rows, and
 * the lowest bit left is the first of them. So the cost grows with the
 * dimensions in use and with words of 64 rules, not with rules, prefixes or
 * ports; and `not`, ranges, lists and sets cost nothing, as they are only other
 * bits (Lakshman and Stiliadis, SIGCOMM 1998).
 *
 * A dimension that no rule looks at (cfg.use) is not read: its code is gone
 * after verification.
 *
 * Invariant: classes, rows, tries and cfg.{base,miss,none} of one program
 * belong to one image, hence a lookup in `classes` or `rows` cannot miss. Where
 * one does all the same, the packet gets the reason `error`.
 */
#ifndef XG_MATCH_H
#define XG_MATCH_H

#include "parse.h"

enum match_result {
	MATCH_NONE = -1,
	MATCH_ERROR = -2,
};

/* Rows of a packet, by dimension; only those of dimensions in use are set. */
struct packet_rows {
	const struct xg_row *of[XG_DIM_COUNT];
};

static __always_inline const struct xg_row *row_number(__u32 number)
{
	return bpf_map_lookup_elem(&rows, &number);
}

static __always_inline const struct xg_row *row_direct(enum xg_dim dim, __u32 value)
{
	__u32 at = cfg.base[dim] + value;
	const __u32 *number = bpf_map_lookup_elem(&classes, &at);

	return number ? row_number(*number) : NULL;
}

static __always_inline const struct xg_row *row_found(enum xg_dim dim, const __u32 *number)
{
	return row_number(number ? *number : cfg.miss[dim]);
}

static __always_inline const struct xg_row *row_mac(void *table, enum xg_dim dim, const __u8 *addr)
{
	struct xg_mac mac = {};

	__builtin_memcpy(mac.addr, addr, sizeof(mac.addr));
	return row_found(dim, bpf_map_lookup_elem(table, &mac));
}

static __always_inline const struct xg_row *row_prefix4(void *trie, enum xg_dim dim,
							const void *addr)
{
	struct xg_prefix4 key = { .bits = 32 };

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return row_found(dim, bpf_map_lookup_elem(trie, &key));
}

static __always_inline const struct xg_row *row_prefix6(void *trie, enum xg_dim dim,
							const void *addr)
{
	struct xg_prefix6 key = { .bits = 128 };

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return row_found(dim, bpf_map_lookup_elem(trie, &key));
}

static __always_inline const struct iphdr *ipv4_header(const struct pkt *pkt)
{
	return bytes_at(pkt->data, pkt->data_end, pkt->l3, sizeof(struct iphdr));
}

static __always_inline const struct ipv6hdr *ipv6_header(const struct pkt *pkt)
{
	return bytes_at(pkt->data, pkt->data_end, pkt->l3, sizeof(struct ipv6hdr));
}

/*
 * One side's address. It has one dimension per family; a packet that is not IP
 * has the row `none` of IPv4's. `is_src` and the maps are constants where this
 * is inlined.
 */
static __always_inline const struct xg_row *row_address(const struct pkt *pkt, bool is_src,
							void *trie4, enum xg_dim dim4, void *trie6,
							enum xg_dim dim6)
{
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		return ip ? row_prefix4(trie4, dim4, is_src ? &ip->saddr : &ip->daddr) : NULL;
	}
	if (pkt->family == 6) {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);

		return ip6 ? row_prefix6(trie6, dim6, is_src ? &ip6->saddr : &ip6->daddr) : NULL;
	}
	return row_number(cfg.none[dim4]);
}

/* The dimension's value for this packet. The last class of a dimension is "does
 * not have it". */
static __always_inline __u32 vlan_class(const struct pkt *pkt)
{
	return pkt->vlan == XG_VLAN_NONE ? XG_CLASSES_VLAN - 1 : pkt->vlan;
}

static __always_inline __u32 proto_class(const struct pkt *pkt)
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

static __always_inline __u32 icmp_class(const struct pkt *pkt)
{
	if (!(pkt->has & XG_HAS_ICMP))
		return XG_CLASSES_ICMP - 1;
	return (pkt->proto == IPPROTO_ICMPV6) << 16 | pkt->icmp_type << 8 | pkt->icmp_code;
}

static __always_inline __u32 len_class(const struct pkt *pkt)
{
	return pkt->len < XG_CLASSES_LEN ? pkt->len : XG_CLASSES_LEN - 1;
}

static __always_inline __u32 class_if(bool has, __u32 value, __u32 classes)
{
	return has ? value : classes - 1;
}

#define ROW(DIM, lookup) \
	if (cfg.use[XG_DIM_##DIM]) { \
		found->of[XG_DIM_##DIM] = (lookup); \
		if (!found->of[XG_DIM_##DIM]) \
			return -1; \
	}

static __always_inline int find_rows(const struct pkt *pkt, struct packet_rows *found)
{
	const struct ethhdr *eth = pkt->data;
	bool ports = pkt->has & XG_HAS_PORTS;
	bool ip = pkt->family;

	if ((void *)(eth + 1) > pkt->data_end)
		return -1;
	ROW(ON, row_number(cfg.none[XG_DIM_ON]));
	ROW(VLAN, row_direct(XG_DIM_VLAN, vlan_class(pkt)));
	ROW(ETHERTYPE, row_direct(XG_DIM_ETHERTYPE, pkt->ethertype));
	ROW(PROTO, row_direct(XG_DIM_PROTO, proto_class(pkt)));
	ROW(SPORT, row_direct(XG_DIM_SPORT, class_if(ports, pkt->sport, XG_CLASSES_SPORT)));
	ROW(DPORT, row_direct(XG_DIM_DPORT, class_if(ports, pkt->dport, XG_CLASSES_DPORT)));
	ROW(TCP_FLAGS,
	    row_direct(XG_DIM_TCP_FLAGS, class_if(pkt->has & XG_HAS_TCP_FLAGS, pkt->tcp_flags,
						  XG_CLASSES_TCP_FLAGS)));
	ROW(ICMP, row_direct(XG_DIM_ICMP, icmp_class(pkt)));
	ROW(LEN, row_direct(XG_DIM_LEN, len_class(pkt)));
	ROW(TTL, row_direct(XG_DIM_TTL, class_if(ip, pkt->ttl, XG_CLASSES_TTL)));
	ROW(DSCP, row_direct(XG_DIM_DSCP, class_if(ip, pkt->dscp, XG_CLASSES_DSCP)));
	ROW(FRAG, row_direct(XG_DIM_FRAG, pkt->frag));
	ROW(MAC_SRC, row_mac(&mac_src, XG_DIM_MAC_SRC, eth->h_source));
	ROW(MAC_DST, row_mac(&mac_dst, XG_DIM_MAC_DST, eth->h_dest));
	ROW(SRC4, row_address(pkt, true, &src4, XG_DIM_SRC4, &src6, XG_DIM_SRC6));
	ROW(DST4, row_address(pkt, false, &dst4, XG_DIM_DST4, &dst6, XG_DIM_DST6));
	return 0;
}

#define AND(DIM) \
	if (cfg.use[XG_DIM_##DIM]) \
	bits &= found->of[XG_DIM_##DIM]->word[w]

static __always_inline __u64 and_word(const struct packet_rows *found, __u32 w)
{
	__u64 bits = ~0ULL;

	AND(ON);
	AND(VLAN);
	AND(ETHERTYPE);
	AND(PROTO);
	AND(SPORT);
	AND(DPORT);
	AND(TCP_FLAGS);
	AND(ICMP);
	AND(LEN);
	AND(TTL);
	AND(DSCP);
	AND(FRAG);
	AND(MAC_SRC);
	AND(MAC_DST);
	AND(SRC4);
	AND(DST4);
	return bits;
}

/*
 * Position of the lowest bit set, for which BPF has no instruction: the count
 * of zeros below it. Without a branch, as branches would make 64 numbers on 64
 * paths, each with a rest of the program of its own to the verifier. `opaque`
 * keeps clang from seeing what is counted, of which it might make branches or a
 * table again.
 */
static __always_inline __u32 lowest_bit(__u64 bits)
{
	bits = (bits & -bits) - 1;
	opaque(bits);
	bits -= bits >> 1 & 0x5555555555555555;
	bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
	bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return bits * 0x0101010101010101 >> 56 & 63;
}

/* Returns the number of the first rule that the packet satisfies, or enum
 * match_result. */
static __always_inline int match(const struct pkt *pkt)
{
	struct packet_rows found;

	if (!cfg.words)
		return MATCH_NONE;
	if (find_rows(pkt, &found))
		return MATCH_ERROR;
	for (__u32 w = 0; w < XG_ROW_WORDS && w < cfg.words; w++) {
		__u64 bits = and_word(&found, w);

		if (bits)
			return w * 64 + lowest_bit(bits);
	}
	return MATCH_NONE;
}

#endif
