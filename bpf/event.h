/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * event.h - which packets are told, and telling them.
 *
 *   due      the policy asks for it: the rule that decided has `log` (thinned by `sample`), or [log] sources
 *            is `every`, or `new` and the source was not told within the window
 *   limited  due, but over the rule's rate or the rate of all events
 *   lost     due and within the rates, but the ring had no room
 *   written  the rest. due = limited + lost + written, on each CPU, after every packet.
 *
 * A rate is asked before the ring is touched, so that a flood costs a flood's log one compare. A new source
 * is written down as told only when it was.
 */
#ifndef XG_EVENT_H
#define XG_EVENT_H

#include "count.h"
#include "match.h"
#include "rate.h"

/* Steps of the coarse clock are ticks (1 to 10 ms); it costs half of the exact one. */
#define now_coarse_ns() bpf_ktime_get_coarse_ns()

static __always_inline void write_addresses(struct xg_event *event, const struct pkt *pkt)
{
	__builtin_memset(event->src, 0, sizeof(event->src));
	__builtin_memset(event->dst, 0, sizeof(event->dst));
	event->family = 0;
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		if (!ip)
			return;
		__builtin_memcpy(event->src, &ip->saddr, sizeof(ip->saddr));
		__builtin_memcpy(event->dst, &ip->daddr, sizeof(ip->daddr));
	} else if (pkt->family == 6) {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);

		if (!ip6)
			return;
		__builtin_memcpy(event->src, &ip6->saddr, sizeof(ip6->saddr));
		__builtin_memcpy(event->dst, &ip6->daddr, sizeof(ip6->daddr));
	}
	event->family = pkt->family;
}

static __always_inline void write_event(struct xg_event *event, struct xdp_md *ctx,
					const struct pkt *pkt, const struct judgement *judged)
{
	event->ts_ns = cfg.explain ? 0 : bpf_ktime_get_ns();
	write_addresses(event, pkt);
	event->len_bytes = pkt->len;
	event->queue = ctx->rx_queue_index;
	event->sport = pkt->sport;
	event->dport = pkt->dport;
	event->ethertype = pkt->ethertype;
	event->vlan = pkt->vlan;
	event->rule = judged->rule ? judged->rule->slot : XG_NO_RULE;
	event->port = cfg.port;
	event->proto = pkt->proto;
	event->tcp_flags = pkt->tcp_flags;
	event->icmp_type = pkt->icmp_type;
	event->icmp_code = pkt->icmp_code;
	event->ttl = pkt->ttl;
	event->dscp = pkt->dscp;
	event->frag = pkt->frag;
	event->has = pkt->has;
	event->verdict = judged->verdict;
	event->reason = judged->reason;
	event->zero[0] = 0;
	event->zero[1] = 0;
}

static __always_inline bool within_rate(__u32 bucket, const struct xg_rate *rate, __u64 now)
{
	__u64 *arrival;

	if (!rate->interval_ns)
		return true;
	arrival = bpf_map_lookup_elem(&log_buckets, &bucket);
	return arrival && take_turn(arrival, rate, now);
}

/*
 * Packets that a rule tells come in floods and spend the rate of all events; a new source comes once. So it
 * may go a quarter of the burst further into debt, and an event at least: it is told in the flood.
 */
static __always_inline bool within_global_rate(__u64 now, bool new_source)
{
	struct xg_rate rate = { .interval_ns = cfg.log_rate.interval_ns,
				.burst_ns = cfg.log_rate.burst_ns };

	if (cfg.log_rules && new_source)
		rate.burst_ns += rate.interval_ns + rate.burst_ns / 4;

	return within_rate(XG_RULE_SLOTS, &rate, now);
}

/* Has the rule that decided asked for this packet? Its first one, then each sample-th, on each CPU. */
static __always_inline bool rule_asks(const struct xg_rule *rule)
{
	const struct xg_counter *counter;
	__u32 slot;

	if (!rule || !rule->log)
		return false;
	if (rule->sample < 2)
		return true;
	slot = rule->slot;
	counter = bpf_map_lookup_elem(&rule_counters, &slot);
	return counter && counter->packets % rule->sample == 1;
}

static __always_inline int source_of(const struct pkt *pkt, struct xg_source *source)
{
	__builtin_memset(source, 0, sizeof(*source));
	source->family = pkt->family;
	if (pkt->family == 4) {
		const struct iphdr *ip = ipv4_header(pkt);

		if (!ip)
			return -1;
		__builtin_memcpy(source->addr, &ip->saddr, sizeof(ip->saddr));
	} else {
		const struct ipv6hdr *ip6 = ipv6_header(pkt);

		if (!ip6)
			return -1;
		__builtin_memcpy(source->addr, &ip6->saddr, sizeof(ip6->saddr));
	}
	return 0;
}

/* Writes the source down as told now. Of several CPUs that saw it at once, one gets true. */
static __always_inline bool claim_source(const struct xg_source *source, __u64 *told, __u64 seen,
					 __u64 now)
{
	if (told)
		return __sync_val_compare_and_swap(told, seen, now) == seen;
	return bpf_map_update_elem(&sources, source, &now, BPF_NOEXIST) != -17 /* EEXIST */;
}

/*
 * All of a packet that is told, and what was decided, in four words: what a global function takes.
 *   words    ethertype, vlan, sport, dport
 *   bytes    family, proto, frag, ttl, dscp, tcp_flags, icmp_type, icmp_code
 *   decided  number of the rule (16 bits), l3 (16), has, verdict, reason
 */
static __always_inline __u64 pack_words(const struct pkt *pkt)
{
	return pkt->ethertype | (__u64)pkt->vlan << 16 | (__u64)pkt->sport << 32 |
	       (__u64)pkt->dport << 48;
}

static __always_inline __u64 pack_bytes(const struct pkt *pkt)
{
	return pkt->family | (__u64)pkt->proto << 8 | (__u64)pkt->frag << 16 |
	       (__u64)pkt->ttl << 24 | (__u64)pkt->dscp << 32 | (__u64)pkt->tcp_flags << 40 |
	       (__u64)pkt->icmp_type << 48 | (__u64)pkt->icmp_code << 56;
}

static __always_inline __u64 pack_decided(const struct pkt *pkt, const struct judgement *judged)
{
	__u64 number = judged->rule ? judged->number : XG_NO_RULE;

	return number | (__u64)pkt->l3 << 16 | (__u64)pkt->has << 32 |
	       (__u64)judged->verdict << 40 | (__u64)judged->reason << 48;
}

static __always_inline struct pkt unpack_all(struct xdp_md *ctx, __u64 words, __u64 bytes,
					     __u64 decided, __u64 len)
{
	return (struct pkt){
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.len = len,
		.l3 = decided >> 16 & OFFSET_MASK,
		.ethertype = words,
		.vlan = words >> 16,
		.sport = words >> 32,
		.dport = words >> 48,
		.family = bytes,
		.proto = bytes >> 8,
		.frag = bytes >> 16,
		.ttl = bytes >> 24,
		.dscp = bytes >> 32,
		.tcp_flags = bytes >> 40,
		.icmp_type = bytes >> 48,
		.icmp_code = bytes >> 56,
		.has = decided >> 32,
	};
}

static __always_inline const struct xg_rule *unpack_rule(__u64 decided)
{
	__u32 number = decided & 0xffff;

	return number == XG_NO_RULE ? NULL : bpf_map_lookup_elem(&rules, &number);
}

enum due {
	NOT_DUE,
	DUE,
	DUE_NEW, /* and its source was written down as told */
};

/*
 * Is a packet to be told, and is there a rate left for it? This and the next one are global functions, so that the
 * verifier walks them once, and not behind each way that leads here: on 6.1 that was half of what a policy took
 * that asks for everything.
 */
__noinline int is_due(struct xdp_md *ctx, __u64 family, __u64 decided)
{
	const struct pkt pkt = unpack_all(ctx, 0, family, decided, 0);
	bool asks_rule = false, asks_source = false, claims = false, allowed = false;
	const struct xg_rule *rule = unpack_rule(decided);
	struct xg_source source;
	__u64 *told = NULL;
	__u64 seen = 0, now;

	if (cfg.log_rules)
		asks_rule = rule_asks(rule);
	if (cfg.log_sources != XG_SOURCES_OFF)
		asks_source = pkt.family;
	if (!asks_rule && !asks_source)
		return NOT_DUE;
	now = now_coarse_ns();

	if (cfg.log_sources == XG_SOURCES_NEW && asks_source) {
		if (source_of(&pkt, &source))
			return NOT_DUE;
		told = bpf_map_lookup_elem(&sources, &source);
		if (told)
			seen = *(volatile __u64 *)told;
		claims = !told || now - seen >= cfg.log_window_ns;
		asks_source = claims;
		if (!asks_rule && !asks_source)
			return NOT_DUE;
	}

	if (asks_source)
		allowed = true;
	else if (rule)
		allowed = within_rate(rule->slot, &rule->log_rate, now);
	if (!allowed || !within_global_rate(now, claims)) {
		count_log(XG_LOG_DUE);
		count_log(XG_LOG_LIMITED);
		return NOT_DUE;
	}
	if (claims && !claim_source(&source, told, seen, now) && !asks_rule)
		return NOT_DUE;
	return claims ? DUE_NEW : DUE;
}

/* Tells a packet. Returns 0, or -1 if there is no room. */
__noinline int tell(struct xdp_md *ctx, __u64 words, __u64 bytes, __u64 decided, __u64 len)
{
	const struct pkt pkt = unpack_all(ctx, words, bytes, decided, len);
	const struct judgement judged = {
		.rule = unpack_rule(decided),
		.verdict = decided >> 40 & 0xff,
		.reason = decided >> 48 & 0xff,
	};
	struct xg_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return -1;
	write_event(event, ctx, &pkt, &judged);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Takes back that a source was told. */
__noinline int forget_source(struct xdp_md *ctx, __u64 family, __u64 decided)
{
	const struct pkt pkt = unpack_all(ctx, 0, family, decided, 0);
	struct xg_source source;

	if (!source_of(&pkt, &source))
		bpf_map_delete_elem(&sources, &source);
	return 0;
}

static __always_inline void log_packet(struct xdp_md *ctx, const struct pkt *pkt,
				       const struct judgement *judged)
{
	bool may_be_due = false;
	__u64 decided;
	int due;

	if (cfg.log_sources != XG_SOURCES_OFF)
		may_be_due = pkt->family;
	if (cfg.log_rules && judged->rule && judged->rule->log)
		may_be_due = true;
	if (!may_be_due)
		return;
	decided = pack_decided(pkt, judged);
	due = is_due(ctx, pkt->family, decided);
	if (due == NOT_DUE)
		return;
	count_log(XG_LOG_DUE);
	if (!tell(ctx, pack_words(pkt), pack_bytes(pkt), decided, pkt->len)) {
		count_log(XG_LOG_WRITTEN);
		return;
	}
	count_log(XG_LOG_LOST);
	if (due == DUE_NEW)
		forget_source(ctx, pkt->family, decided);
}

/* `explain`: the same record, as the answer to a test run. */
static __always_inline void explain_packet(struct xdp_md *ctx, const struct pkt *pkt,
					   const struct judgement *judged)
{
	__u32 at = 0;
	struct xg_event *event = bpf_map_lookup_elem(&explained, &at);

	if (event)
		write_event(event, ctx, pkt, judged);
}

#endif
