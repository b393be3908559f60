/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * talker.h - what each source sent, in a table that does not grow.
 *
 * Each CPU has a table of its own, and no other one writes there: no lock, no atomic, nothing lost. Control adds
 * them up. A source's keyed hash names its set of eight and its tag, a byte; the tags of a set are one word, of
 * which all eight are compared at once. So a packet of a source that is known costs two cache lines:
 *
 *     set   | tags | keep[8]            | gone |     who may be here, who is to stay, what those sent that went
 *           | addr | packets, bytes, ...       |     x 8, each a line
 *
 * A newcomer takes the place of the one whose `keep` is the least: when it was last seen, plus over a minute for
 * each doubling of its packets. So of sources that came once the oldest goes, and a flood of them that never
 * come again moves in the places of its own; who sent a thousand packets is safe from it for ten minutes of
 * silence, but not for ever. One newcomer of 128 is kept for a second more than the others: so a source gets in
 * sooner or later that sends at intervals in which all newcomers are gone.
 *
 * What the one that goes had sent is added to what is gone of its set: sources and gone are all packets that have
 * a source, exactly.
 *
 * Who reads meanwhile may find a place that changes hands: `family`, which stands behind the address and the
 * numbers, is 0 from before they are written until after. Read in order, nobody has the packets of another.
 */
#ifndef XG_TALKER_H
#define XG_TALKER_H

#include "judgement.h"
#include "limit.h"

#define EACH_BYTE 0x0101010101010101ULL

/* Tags that are alike are more than these with a chance of one in a million; then a source may be here twice. */
#define TALKER_TRIES 3

/* Place n for bit 8 * n + 7. */
static __always_inline __u32 place_of(__u64 bit)
{
	return (bit >> 7) * 0x0001020304050607ULL >> 56;
}

static __always_inline bool is_talker(const struct xg_talker *talker, __u32 family,
				      const struct limit_source *source)
{
	const __u64 *addr = (const void *)talker->addr;

	return !((addr[0] ^ source->first) | (addr[1] ^ source->rest) | (talker->family ^ family));
}

/* The place of a source in its set, or XG_TALKER_WAYS. */
static __always_inline __u32 find_talker(const struct xg_talker_set *set, __u64 tag, __u32 family,
					 const struct limit_source *source)
{
	__u64 differ = set->tags ^ tag * EACH_BYTE;
	/* The highest bit of each byte that is 0, and maybe of one above. */
	__u64 hits = (differ - EACH_BYTE) & ~differ & EACH_BYTE << 7;

	for (int i = 0; i < TALKER_TRIES && hits; i++) {
		__u64 bit = hits & -hits;
		__u32 way = place_of(bit) & (XG_TALKER_WAYS - 1);

		if (is_talker(&set->talker[way], family, source))
			return way;
		hits ^= bit;
		opaque(hits);
	}
	return XG_TALKER_WAYS;
}

/* Who is to give way: without a branch, and of those that are alike each in turn. */
static __always_inline __u32 least_talker(const struct xg_talker_set *set)
{
	__u64 best = ~0ULL >> 1;
	__u32 turn = set->gone_sources;

	for (__u32 i = 0; i < XG_TALKER_WAYS; i++) {
		__u64 rank = (__u64)set->keep[i] << 3 | ((i - turn) & (XG_TALKER_WAYS - 1));
		__u64 below = rank - best;

		opaque(below);
		best += below * (below >> 63);
	}
	opaque(best);
	return (best + turn) & (XG_TALKER_WAYS - 1);
}

#define set_once(place, value) (*(volatile typeof(place) *)&(place) = (value))

static __always_inline void replace_talker(struct xg_talker_set *set, __u32 way, __u64 tag,
					   __u32 family, const struct limit_source *source,
					   __u64 now)
{
	struct xg_talker *talker = &set->talker[way];
	__u64 *addr = (void *)talker->addr;

	set->gone_packets += talker->packets;
	set->gone_bytes += talker->bytes;
	set->gone_sources += !!talker->family;
	set_once(talker->family, 0);
	set_once(addr[0], source->first);
	set_once(addr[1], source->rest);
	set_once(talker->packets, 0);
	set_once(talker->bytes, 0);
	set_once(talker->dropped, 0);
	set_once(talker->first_ns, now);
	set_once(talker->last_ns, now);
	set_once(talker->level, 0);
	set_once(talker->family, family);
	set->tags = (set->tags & ~(0xffULL << 8 * way)) | tag << 8 * way;
}

static __always_inline void add_packet(struct xg_talker_set *set, __u32 way, __u32 len,
				       __u32 verdict, __u32 reason, __u64 now, __u32 stay)
{
	struct xg_talker *talker = &set->talker[way];
	__u64 packets = talker->packets + 1;
	__u32 level = talker->level + !(packets & (packets - 1));

	talker->packets = packets;
	talker->bytes += len;
	talker->dropped += verdict == XG_VERDICT_DROP || verdict == XG_VERDICT_REJECT;
	talker->last_ns = now;
	talker->verdict = verdict;
	talker->reason = reason;
	talker->port = cfg.port;
	talker->level = level;
	set->keep[way] = (now >> XG_TALKER_KEEP_BITS) + level * XG_TALKER_KEEP + stay;
}

/*
 * Counts a packet for its source; `packet` is its limit_packet(). Global, as over_rate() is, and called where
 * the stack is short.
 */
__noinline int tally(struct xdp_md *ctx, __u64 packet, __u32 verdict, __u32 reason)
{
	struct limit_source source = {};
	struct xg_talker_set *set;
	__u32 family = packet >> 48, stay = 0, at, way;
	__u64 hash, now = tick_clock();

	if (limit_source(ctx, family, packet >> 32, &source))
		return 0;
	mask_source(family, &source, cfg.talker_mask4, cfg.talker_mask6[0], cfg.talker_mask6[1]);
	hash = hash_source(cfg.talker_seed, family, &source);
	at = bpf_get_smp_processor_id() * cfg.talker_sets + (hash & (cfg.talker_sets - 1));
	set = bpf_map_lookup_elem(&talkers, &at);
	if (!set)
		return 0;
	way = find_talker(set, hash >> 56, family, &source);
	if (way >= XG_TALKER_WAYS) {
		way = least_talker(set);
		replace_talker(set, way, hash >> 56, family, &source, now);
		if (set->gone_sources % XG_TALKER_LUCKY == XG_TALKER_LUCKY - 1)
			stay = XG_TALKER_STAY;
	}
	opaque(way); /* or the mask goes, and with it what kernels before 6.18 know of it */
	add_packet(set, way & (XG_TALKER_WAYS - 1), packet, verdict, reason, now, stay);
	return 0;
}

/* Packets without a source, as the log's: not IP, or with an IP header that is malformed. */
static __always_inline void count_source(struct xdp_md *ctx, const struct pkt *pkt,
					 const struct judgement *judged)
{
	if (cfg.talker_sets && !cfg.explain && pkt->family)
		tally(ctx, limit_packet(pkt), judged->verdict, judged->reason);
}

#endif
