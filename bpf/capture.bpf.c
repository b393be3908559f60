// SPDX-License-Identifier: GPL-2.0-only
/*
 * capture.bpf.c - what `xdpgw capture` and `xdpgw trace` add to a port: a copy of the frames they ask for.
 *
 * The datapath's program calls it for a packet that is judged and not changed yet (capture.h). It has an image
 * of its own, of one rule, that is the capture's match, and `cfg` of that; none of the datapath's books.
 * A record is struct xg_event and behind it the frame's first bytes.
 */
#include "maps.h"

#include "parse.h"
#include "match.h"
#include "verdict.h"
#include "event.h"

const volatile struct xg_wanted wanted = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, XG_EVENT_RING_BYTES);
} captured SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XG_CAPTURE_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} capture_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_capture_tally);
} capture_tally SEC(".maps");

struct record {
	struct xg_event event;
	__u8 bytes[XG_CAPTURE_BYTES + 1];
};

/* Where a record is made, by CPU: a ring takes records of constant length only, or whole ones. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

static __always_inline void count_capture(enum xg_capture_counter which)
{
	__u32 at = which;
	__u64 *counter = bpf_map_lookup_elem(&capture_counters, &at);

	if (counter)
		(*counter)++;
}

/* For kernels without bpf_xdp_load_bytes(), where a frame is one piece: `n` of its bytes, which it has. */
static __always_inline void copy_bytes(const struct pkt *pkt, __u8 *out, __u32 n)
{
	__u32 at = 0;

	for (; at < XG_CAPTURE_OLD_BYTES && at + 8 <= n; at += 8) {
		const __u64 *from = bytes_at(pkt->data, pkt->data_end, at, 8);

		if (!from)
			return;
		__builtin_memcpy(out + at, from, 8);
	}
	for (int i = 0; i < 7 && at < n; i++, at++) {
		const __u8 *from = bytes_at(pkt->data, pkt->data_end, at, 1);

		if (!from)
			return;
		out[at] = *from;
	}
}

/*
 * `n` bytes of the frame, up to XG_CAPTURE_BYTES, of whatever buffers. Masked last, as 6.1 forgets that a number on
 * the stack is not 0 ("R3 min value is outside of the allowed memory range", clang 14).
 */
static __always_inline long load_bytes(struct xdp_md *ctx, struct record *record, __u32 n)
{
	__u32 last = n - 1;

	if (!n)
		return 0;
	opaque(last);
	return bpf_xdp_load_bytes(ctx, 0, record->bytes, (last & XG_CAPTURE_BYTES) + 1);
}

static __always_inline long put(struct xdp_md *ctx, const struct pkt *pkt,
				const struct xg_judged *judged)
{
	const struct judgement told = { .verdict = judged->verdict, .reason = judged->reason };
	const __u32 most = cfg.multi_buffer ? XG_CAPTURE_BYTES : XG_CAPTURE_OLD_BYTES;
	__u32 cpu = bpf_get_smp_processor_id(), n = pkt->len;
	struct record *record = bpf_map_lookup_elem(&records, &cpu);

	if (!record)
		return -1;
	write_event(&record->event, ctx, pkt, &told);
	record->event.rule = judged->rule;
	if (n > wanted.snaplen)
		n = wanted.snaplen;
	opaque(n);
	if (n > most)
		n = most;
	if (!cfg.multi_buffer)
		copy_bytes(pkt, record->bytes, n);
	else if (load_bytes(ctx, record, n))
		return -1;
	return bpf_ringbuf_output(&captured, record, sizeof(record->event) + n, 0);
}

static __always_inline bool is_wanted(struct xdp_md *ctx, struct pkt *pkt,
				      const struct xg_judged *judged)
{
	int malformed;

	if (!(wanted.verdicts >> (judged->verdict & 31) & 1) ||
	    !(wanted.reasons >> (judged->reason & 31) & 1) ||
	    (wanted.rule != XG_NO_RULE && wanted.rule != judged->rule))
		return false;
	malformed = parse(ctx, pkt);
	return !cfg.words || (!malformed && match(ctx, pkt) >= 0);
}

static __always_inline bool within_wanted_rate(struct xg_capture_tally *tally)
{
	const struct xg_rate rate = { .interval_ns = wanted.rate.interval_ns,
				      .burst_ns = wanted.rate.burst_ns };

	return !rate.interval_ns || take_turn(&tally->arrival_ns, &rate, now_coarse_ns());
}

/* A frame takes a ticket first, where they are counted, and gives it back where it does not get into the ring. */
static __always_inline void look_at(struct xdp_md *ctx, const struct xg_judged *judged)
{
	struct xg_capture_tally *tally;
	struct pkt pkt = {};
	__u32 at = 0;

	tally = bpf_map_lookup_elem(&capture_tally, &at);
	if (!tally || (wanted.count && *(volatile __u64 *)&tally->taken >= wanted.count) ||
	    !is_wanted(ctx, &pkt, judged))
		return;
	if (wanted.count && __sync_fetch_and_add(&tally->taken, 1) >= wanted.count) {
		__sync_fetch_and_add(&tally->taken, -1);
		return;
	}
	count_capture(XG_CAPTURE_SEEN);
	if (!within_wanted_rate(tally)) {
		count_capture(XG_CAPTURE_LIMITED);
	} else if (put(ctx, &pkt, judged)) {
		count_capture(XG_CAPTURE_LOST);
	} else {
		count_capture(XG_CAPTURE_CAPTURED);
		return;
	}
	if (wanted.count)
		__sync_fetch_and_add(&tally->taken, -1);
}

SEC("xdp")
int capture(struct xdp_md *ctx)
{
	struct judgement judged = {};
	struct xg_judged shown;
	struct xg_judged *found;
	__u32 at = 0;

	found = bpf_map_lookup_elem(&judgements, &at);
	if (!found) /* never: for the verifier */
		return XDP_DROP;
	shown = *found;
	look_at(ctx, &shown);
	judged.verdict = shown.verdict;
	return act(&judged);
}

char LICENSE[] SEC("license") = "GPL";
