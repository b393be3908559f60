/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * maps.h - everything the program shares with control.
 *
 * Two kinds, told apart by how long they live:
 *   image   lines, rules, limits, MAC tables, allowed, fragments, known: one set a policy, filled before the program
 *           that uses it is attached; lines change only as xdpgw/set_edits.py says, the last two as packets come. A reload builds a new
 *           set beside the old one; the link then changes programs, so that a packet meets one set, whole.
 *   books   counters, log books, buckets, talkers, sources, blocks, the ring, AF_XDP sockets: pinned, handed
 *           from program to program.
 * max_entries of an image map is a placeholder; control sets what the policy needs before load.
 */
#ifndef XG_MAPS_H
#define XG_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define XG_COUNTERS (XG_MAX_PORTS * XG_VERDICT_COUNT * XG_REASON_COUNT)

/* Never read: it puts types of abi.h into the object's BTF, where control holds them against its own. */
const volatile union {
	enum xg_verdict verdict;
	enum xg_action action;
	enum xg_reason reason;
	enum xg_dim dim;
	enum xg_kind kind;
	enum xg_frag frag;
	enum xg_log_counter log_counter;
	enum xg_capture_counter capture_counter;
	enum xg_log_sources log_sources;
	enum xg_fragments fragments;
	enum xg_has has;
	enum xg_limits limits;
	enum xg_values values;
	enum xg_use use;
	enum xg_ref ref;
	enum xg_steps steps;
	enum xg_handle handle;
	struct xg_leaf leaf;
	struct xg_turns turns;
	struct xg_index index;
	struct xg_path path;
	struct xg_row row;
	struct xg_wanted wanted;
	struct xg_capture_tally capture_tally;
} abi_types = {};

/* Set before load; frozen, so that the verifier takes each member for a constant. */
const volatile struct xg_config cfg = {};

/* Image. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct xg_line);
} lines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_limit);
} limits SEC(".maps");

/* Of the image: rows are those of its lines. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_known);
} known SEC(".maps");

#define XG_MAC_TABLE(name) \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 1); \
		__type(key, struct xg_mac); \
		__type(value, __u32); \
	} name SEC(".maps")

XG_MAC_TABLE(mac_src);
XG_MAC_TABLE(mac_dst);

/* Sources that no block covers; the value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct xg_allowed);
	__type(value, __u32);
} allowed SEC(".maps");

/*
 * Verdicts of first fragments, for `fragments = "follow"`. Of the image: a verdict of the old policy is not
 * followed under a new one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct xg_fragment_key);
	__type(value, struct xg_fragment);
} fragments SEC(".maps");

/* Books. */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XG_COUNTERS);
	__type(key, __u32);
	__type(value, struct xg_counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XG_RULE_SLOTS);
	__type(key, __u32);
	__type(value, struct xg_counter);
} rule_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XG_LOG_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} log_counters SEC(".maps");

/* Theoretical arrival times of the log's rates: one a rule slot, the last one for all events. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XG_RULE_SLOTS + 1);
	__type(key, __u32);
	__type(value, __u64);
} log_buckets SEC(".maps");

/* Buckets of the limits per rule, by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XG_LIMIT_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} limit_buckets SEC(".maps");

/* Buckets of the limits per source. Mappable, as the kernel puts only such an array on a page of its own, and
 * so each line on one cache line. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, XG_LIMIT_LINES);
	__type(key, __u32);
	__type(value, struct xg_limit_line);
} limit_lines SEC(".maps");

/* By slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XG_LIMIT_SLOTS);
	__type(key, __u32);
	__type(value, struct xg_offender[XG_OFFENDERS]);
} limit_offenders SEC(".maps");

/*
 * What each source sent: cfg.talker_sets sets of each CPU, one CPU after the other. Mappable, for control reads it
 * so, and each set begins on a cache line.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_talker_set);
} talkers SEC(".maps");

/* When a source was last told, CLOCK_MONOTONIC (coarse) in ns. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, XG_SOURCE_SLOTS);
	__type(key, struct xg_source);
	__type(value, __u64);
} sources SEC(".maps");

/* Written by control only, as the next two; see block.h. Without preallocation, as a full one takes 53 MB. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XG_BLOCK_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct xg_block);
	__type(value, __u64);
} blocks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_block_lengths);
} block_lengths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XG_BLOCK_LINES);
	__type(key, __u32);
	__type(value, struct xg_line);
} block_filter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, XG_EVENT_RING_BYTES);
} events SEC(".maps");

/*
 * AF_XDP sockets: (port slot * XG_MAX_TARGETS + target slot) * XG_MAX_QUEUES + queue. Of the books, so
 * that a reload does not lose them; a socket that is closed leaves by itself.
 */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, XG_XSK_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* To the program of a capture, while there is one; a port has its own. See capture.h, as for the next. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} captures SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_judged);
} judgements SEC(".maps");

/* The answer to `explain`. Its value type also puts struct xg_event into the object's BTF. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xg_event);
} explained SEC(".maps");

#endif
