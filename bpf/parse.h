/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * parse.h - from bytes to a packet.
 *
 *   Ethernet -> up to two tags -> ARP | IPv4 | IPv6 -> extension headers -> TCP | UDP | SCTP | ICMP | ICMPv6
 *
 * One cursor (`off`, counted from the frame's first byte), one bounds check (bytes_at), one struct that the
 * parsers fill. `end` is where the bytes that may be read stop: the frame's end at first, then the end that
 * the IP header claims, which is never behind the frame's. A parser returns 0, or -1 for "malformed", and
 * leaves in the struct what it read before the fault.
 */
#ifndef XG_PARSE_H
#define XG_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>

#include "maps.h"

#define ETH_P_QINQ_OLD 0x9100

#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK 0x1fff
#define IP6_MORE_FRAGMENTS 0x0001
#define IP6_OFFSET_MASK 0xfff8

#define SCTP_HEADER_LEN 12
#define ICMP_HEADER_LEN 8
#define ICMP6_HEADER_LEN 4

/* No chain of eight extension headers (2,048 bytes each at most) ends behind this offset. */
#define OFFSET_MASK 0x7fff

/* Makes the compiler forget what it knows of a value, so that it keeps the check that follows. */
#define opaque(value) asm volatile("" : "+r"(value))

struct pkt {
	void *data;
	void *data_end;
	__u32 len;
	__u32 off;
	__u32 end;
	__u32 l3; /* offset of the IP header, when family is set */
	__u32 fragment; /* offset of the IPv6 fragment header, of a first or later fragment */
	__u16 ethertype;
	__u16 vlan;
	__u16 sport;
	__u16 dport;
	__u8 family;
	__u8 proto;
	__u8 frag;
	__u8 ttl;
	__u8 dscp;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 has;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

/* The head that all extension headers share; of a fragment header, `len` is reserved. */
struct ext_header {
	__u8 next;
	__u8 len;
	__be16 frag;
	__u8 rest[4];
};

struct ports {
	__be16 source;
	__be16 dest;
};

/* The only way to a byte: `len` of them at `off` from the frame's first, or NULL. */
static __always_inline void *bytes_at(void *data, void *data_end, __u32 off, __u32 len)
{
	void *at = data + off;

	return at + len > data_end ? NULL : at;
}

/* The `len` bytes at the cursor, inside both frame and IP packet, or NULL. */
static __always_inline void *bytes_next(const struct pkt *pkt, __u32 len)
{
	if (pkt->off + len > pkt->end)
		return NULL;
	return bytes_at(pkt->data, pkt->data_end, pkt->off, len);
}

static __always_inline bool is_vlan(__u16 ethertype)
{
	return ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD || ethertype == ETH_P_QINQ_OLD;
}

static __always_inline int parse_ethernet(struct pkt *pkt)
{
	const struct ethhdr *eth = bytes_next(pkt, sizeof(*eth));

	if (!eth)
		return -1;
	pkt->ethertype = bpf_ntohs(eth->h_proto);
	pkt->off = sizeof(*eth);
	return 0;
}

static __always_inline int parse_vlan(struct pkt *pkt)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		const struct vlan_tag *tag;

		if (!is_vlan(pkt->ethertype))
			return 0;
		tag = bytes_next(pkt, sizeof(*tag));
		if (!tag)
			return -1;
		if (i == 0)
			pkt->vlan = bpf_ntohs(tag->tci) & 0xfff;
		pkt->ethertype = bpf_ntohs(tag->type);
		pkt->off += sizeof(*tag);
	}
	return is_vlan(pkt->ethertype) ? -1 : 0;
}

static __always_inline int parse_ipv4(struct pkt *pkt)
{
	const struct iphdr *ip = bytes_next(pkt, sizeof(*ip));
	__u32 header, total;
	__u16 frag;

	if (!ip)
		return -1;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header ||
	    pkt->off + total > pkt->end)
		return -1;

	pkt->l3 = pkt->off;
	pkt->family = 4;
	pkt->proto = ip->protocol;
	pkt->has |= XG_HAS_PROTO;
	pkt->ttl = ip->ttl;
	pkt->dscp = ip->tos >> 2;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET_MASK)
		pkt->frag = XG_FRAG_LATER;
	else if (frag & IP_MORE_FRAGMENTS)
		pkt->frag = XG_FRAG_FIRST;
	else
		pkt->frag = XG_FRAG_NO;
	pkt->end = pkt->off + total;
	pkt->off += header;
	return 0;
}

/* One test of a bit instead of eight compares, each of which would be a way of its own to the verifier. */
static __always_inline bool is_extension(__u32 next)
{
	const __u64 low = 1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ROUTING |
			  1ULL << IPPROTO_FRAGMENT | 1ULL << IPPROTO_AH | 1ULL << IPPROTO_DSTOPTS;
	const __u64 high = 1ULL << (IPPROTO_MH - 128) | 1ULL << (IPPROTO_HIP - 128) |
			   1ULL << (IPPROTO_SHIM6 - 128);
	__u64 set = next & 128 ? high : low;

	return !(next & 64) && set >> (next & 63) & 1;
}

/*
 * Steps over IPv6 extension headers. Returns what it found as offset | protocol << 16 | xg_frag << 24 |
 * offset of the fragment header << 32, or -1.
 *
 * A global function, which the verifier checks once by itself; a packet without extension headers never calls
 * it. As a static one, checked anew for each way that leads here, it cost 55,000 verified instructions more (6.18,
 * clang 14). Its price: the kernel needs BTF to know the type of `ctx` (Debian's have it from 5.10 on). Masking the
 * offset gives it the same range in each turn, so that the verifier sees the turns as equal. Unrolled, as 6.1
 * refuses a loop that is entered in its middle, which clang makes of it ("back-edge from insn").
 */
__noinline long walk_extensions(struct xdp_md *ctx, __u32 off, __u32 end, __u32 first)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__u64 fragment = 0;
	__u32 frag = XG_FRAG_NO;
	__u32 next = first & 0xff;

#pragma unroll
	for (int n = 0; n <= XG_MAX_EXT_HEADERS; n++) {
		const struct ext_header *ext;
		__u32 len;

		if (!is_extension(next))
			return off | next << 16 | frag << 24 | fragment << 32;
		if (n == XG_MAX_EXT_HEADERS || (next == IPPROTO_HOPOPTS && n > 0))
			return -1;
		opaque(off);
		off &= OFFSET_MASK;
		ext = bytes_at(data, data_end, off, sizeof(*ext));
		if (!ext || off + sizeof(*ext) > end)
			return -1;

		len = (ext->len + 1) * 8;
		if (next == IPPROTO_AH) {
			len = (ext->len + 2) * 4;
		} else if (next == IPPROTO_FRAGMENT) {
			len = sizeof(*ext);
			if (bpf_ntohs(ext->frag) & IP6_OFFSET_MASK)
				return (off + len) | ext->next << 16 | XG_FRAG_LATER << 24 |
				       (__u64)off << 32;
			if (bpf_ntohs(ext->frag) & IP6_MORE_FRAGMENTS) {
				frag = XG_FRAG_FIRST;
				fragment = off;
			}
		}
		if (off + len > end)
			return -1;
		off += len;
		next = ext->next;
	}
	return -1;
}

static __always_inline int parse_ipv6(struct xdp_md *ctx, struct pkt *pkt)
{
	const struct ipv6hdr *ip6 = bytes_next(pkt, sizeof(*ip6));
	__u32 payload;
	long found;

	if (!ip6)
		return -1;
	payload = bpf_ntohs(ip6->payload_len);
	if (ip6->version != 6 || pkt->off + sizeof(*ip6) + payload > pkt->end)
		return -1;

	pkt->l3 = pkt->off;
	pkt->family = 6;
	pkt->proto = ip6->nexthdr;
	pkt->has |= XG_HAS_PROTO;
	pkt->ttl = ip6->hop_limit;
	pkt->dscp = ip6->priority << 2 | ip6->flow_lbl[0] >> 6;
	pkt->frag = XG_FRAG_NO;
	pkt->off += sizeof(*ip6);
	pkt->end = pkt->off + payload;
	if (!is_extension(pkt->proto))
		return 0;

	/* A payload of 0 before a hop-by-hop header (a jumbogram) fails here, as its header is not inside. */
	found = walk_extensions(ctx, pkt->off, pkt->end, pkt->proto);
	if (found < 0)
		return -1;
	pkt->off = found & OFFSET_MASK;
	pkt->proto = found >> 16;
	pkt->frag = (found >> 24) & 3;
	pkt->fragment = (found >> 32) & OFFSET_MASK;
	return 0;
}

static __always_inline void take_ports(struct pkt *pkt, const struct ports *ports)
{
	pkt->sport = bpf_ntohs(ports->source);
	pkt->dport = bpf_ntohs(ports->dest);
	pkt->has |= XG_HAS_PORTS;
}

static __always_inline int parse_tcp(struct pkt *pkt)
{
	const struct tcphdr *tcp = bytes_next(pkt, sizeof(*tcp));
	__u32 header;

	if (!tcp)
		return -1;
	header = tcp->doff * 4;
	if (header < sizeof(*tcp) || pkt->off + header > pkt->end)
		return -1;
	take_ports(pkt, (const void *)tcp);
	pkt->tcp_flags = ((const __u8 *)tcp)[13];
	pkt->has |= XG_HAS_TCP_FLAGS;
	return 0;
}

static __always_inline int parse_udp(struct pkt *pkt)
{
	const struct udphdr *udp = bytes_next(pkt, sizeof(*udp));
	__u32 len;

	if (!udp)
		return -1;
	len = bpf_ntohs(udp->len);
	if (len < sizeof(*udp) || (pkt->frag != XG_FRAG_FIRST && pkt->off + len > pkt->end))
		return -1;
	take_ports(pkt, (const void *)udp);
	return 0;
}

static __always_inline int parse_sctp(struct pkt *pkt)
{
	const struct ports *sctp = bytes_next(pkt, SCTP_HEADER_LEN);

	if (!sctp)
		return -1;
	take_ports(pkt, sctp);
	return 0;
}

static __always_inline int parse_icmp(struct pkt *pkt, __u32 header_len)
{
	const __u8 *icmp = bytes_next(pkt, header_len);

	if (!icmp)
		return -1;
	pkt->icmp_type = icmp[0];
	pkt->icmp_code = icmp[1];
	pkt->has |= XG_HAS_ICMP;
	return 0;
}

static __always_inline int parse_l4(struct pkt *pkt)
{
	if (pkt->frag == XG_FRAG_LATER)
		return 0;
	switch (pkt->proto) {
	case IPPROTO_TCP:
		return parse_tcp(pkt);
	case IPPROTO_UDP:
		return parse_udp(pkt);
	case IPPROTO_SCTP:
		return parse_sctp(pkt);
	case IPPROTO_ICMP:
		return parse_icmp(pkt, ICMP_HEADER_LEN);
	case IPPROTO_ICMPV6:
		return parse_icmp(pkt, ICMP6_HEADER_LEN);
	}
	return 0;
}

static __always_inline int parse(struct xdp_md *ctx, struct pkt *pkt)
{
	int err;

	pkt->data = (void *)(long)ctx->data;
	pkt->data_end = (void *)(long)ctx->data_end;
	pkt->len = cfg.multi_buffer ? bpf_xdp_get_buff_len(ctx) : pkt->data_end - pkt->data;
	pkt->end = pkt->len;
	pkt->vlan = XG_VLAN_NONE;
	pkt->frag = XG_FRAG_NOT_IP;

	if (parse_ethernet(pkt) || parse_vlan(pkt))
		return -1;
	pkt->has |= XG_HAS_ETHERTYPE;
	switch (pkt->ethertype) {
	case ETH_P_IP:
		err = parse_ipv4(pkt);
		break;
	case ETH_P_IPV6:
		err = parse_ipv6(ctx, pkt);
		break;
	default:
		return 0;
	}
	return err ? err : parse_l4(pkt);
}

static __always_inline const struct iphdr *ipv4_header(const struct pkt *pkt)
{
	return bytes_at(pkt->data, pkt->data_end, pkt->l3, sizeof(struct iphdr));
}

static __always_inline const struct ipv6hdr *ipv6_header(const struct pkt *pkt)
{
	return bytes_at(pkt->data, pkt->data_end, pkt->l3, sizeof(struct ipv6hdr));
}

#endif
