/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * guard.h - what a default of drop lets pass all the same, so that the host stays reachable: address
 * resolution, router and neighbour discovery, link protocols, DHCP answers, and the operator's SSH session.
 */
#ifndef XG_GUARD_H
#define XG_GUARD_H

#include "match.h"

#define ETH_P_EAPOL 0x888e

#define ND_ROUTER_SOLICIT 133
#define ND_REDIRECT 137
#define ND_HOP_LIMIT 255

static __always_inline bool is_link_protocol(const struct pkt *pkt)
{
	switch (pkt->ethertype) {
	case ETH_P_ARP:
	case ETH_P_SLOW:
	case ETH_P_LLDP:
	case ETH_P_EAPOL:
		return true;
	}
	return false;
}

static __always_inline bool is_neighbour_discovery(const struct pkt *pkt)
{
	return pkt->family == 6 && pkt->proto == IPPROTO_ICMPV6 && pkt->has & XG_HAS_ICMP &&
	       pkt->icmp_type >= ND_ROUTER_SOLICIT && pkt->icmp_type <= ND_REDIRECT &&
	       pkt->ttl == ND_HOP_LIMIT;
}

static __always_inline bool is_dhcp_answer(const struct pkt *pkt)
{
	if (pkt->proto != IPPROTO_UDP || !(pkt->has & XG_HAS_PORTS))
		return false;
	return (pkt->sport == 67 && pkt->dport == 68) || (pkt->sport == 547 && pkt->dport == 546);
}

static __always_inline bool is_session(const struct pkt *pkt)
{
	if (!cfg.session.client_port || pkt->family != cfg.session.family ||
	    pkt->proto != IPPROTO_TCP || !(pkt->has & XG_HAS_PORTS) ||
	    pkt->sport != cfg.session.client_port || pkt->dport != cfg.session.server_port)
		return false;
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		return ip && ip->saddr == cfg.session.client[0] &&
		       ip->daddr == cfg.session.server[0];
	} else {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);
		const __u32 *src, *dst;

		if (!ip6)
			return false;
		src = ip6->saddr.in6_u.u6_addr32;
		dst = ip6->daddr.in6_u.u6_addr32;
		return src[0] == cfg.session.client[0] && src[1] == cfg.session.client[1] &&
		       src[2] == cfg.session.client[2] && src[3] == cfg.session.client[3] &&
		       dst[0] == cfg.session.server[0] && dst[1] == cfg.session.server[1] &&
		       dst[2] == cfg.session.server[2] && dst[3] == cfg.session.server[3];
	}
}

/*
 * Fields of a packet in two words: what global functions take, which have five registers for arguments, and
 * whose arguments are scalars.
 */
static __always_inline __u64 pack_head(const struct pkt *pkt)
{
	return pkt->ethertype | (__u64)pkt->family << 16 | (__u64)pkt->proto << 24 |
	       (__u64)pkt->ttl << 32 | (__u64)pkt->has << 40 | (__u64)pkt->icmp_type << 48;
}

static __always_inline __u64 pack_more(const struct pkt *pkt)
{
	return pkt->l3 | (__u64)pkt->sport << 16 | (__u64)pkt->dport << 32;
}

static __always_inline struct pkt unpack(struct xdp_md *ctx, __u64 head, __u64 more)
{
	return (struct pkt){
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.l3 = more & OFFSET_MASK,
		.ethertype = head,
		.family = head >> 16,
		.proto = head >> 24,
		.ttl = head >> 32,
		.has = head >> 40,
		.icmp_type = head >> 48,
		.sport = more >> 16,
		.dport = more >> 32,
	};
}

/*
 * A global function of scalars, as walk_extensions(), so that the verifier checks it once. What it asks of a
 * packet would otherwise keep all ways through the parser apart in front of match.h: 124,182 verified
 * instructions in place of 27,073 for 1,024 rules over all fields (6.18, clang 14).
 */
__noinline int is_guarded(struct xdp_md *ctx, __u64 head, __u64 more)
{
	struct pkt pkt = unpack(ctx, head, more);

	return is_link_protocol(&pkt) || is_neighbour_discovery(&pkt) || is_dhcp_answer(&pkt) ||
	       is_session(&pkt);
}

static __always_inline bool guarded(struct xdp_md *ctx, const struct pkt *pkt)
{
	return is_guarded(ctx, pack_head(pkt), pack_more(pkt));
}

#endif
