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

static __always_inline void log_packet(struct xdp_md *ctx, const struct pkt *pkt,
				       const struct judgement *judged)
{
	struct xg_source source;
	struct xg_event *event;
	bool asks_rule = false, asks_source = false, claims = false, allowed = false;
	__u64 *told = NULL;
	__u64 seen = 0, now;

	if (!cfg.log_rules && cfg.log_sources == XG_SOURCES_OFF)
		return;
	if (cfg.log_rules)
		asks_rule = rule_asks(judged->rule);
	if (cfg.log_sources != XG_SOURCES_OFF)
		asks_source = pkt->family;
	if (!asks_rule && !asks_source)
		return;
	now = now_coarse_ns();

	if (cfg.log_sources == XG_SOURCES_NEW && asks_source) {
		if (source_of(pkt, &source))
			return;
		told = bpf_map_lookup_elem(&sources, &source);
		if (told)
			seen = *(volatile __u64 *)told;
		claims = !told || now - seen >= cfg.log_window_ns;
		asks_source = claims;
		if (!asks_rule && !asks_source)
			return;
	}

	if (asks_source)
		allowed = true;
	else if (judged->rule)
		allowed = within_rate(judged->rule->slot, &judged->rule->log_rate, now);
	if (!allowed || !within_global_rate(now, claims)) {
		count_log(XG_LOG_DUE);
		count_log(XG_LOG_LIMITED);
		return;
	}
	if (claims && !claim_source(&source, told, seen, now) && !asks_rule)
		return;

	count_log(XG_LOG_DUE);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count_log(XG_LOG_LOST);
		if (claims)
			bpf_map_delete_elem(&sources, &source);
		return;
	}
	write_event(event, ctx, pkt, judged);
	bpf_ringbuf_submit(event, 0);
	count_log(XG_LOG_WRITTEN);
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
