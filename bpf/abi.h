/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * abi.h - what crosses a border, said once.
 *
 * Three readers compile or parse this file: the BPF programs, the C half in fastpath/, and the build
 * step that derives xdpgw/_abi.py (enums and numpy dtypes) from the preprocessed text and the layout
 * that the host's C compiler gives it. Nobody types a number of this file again.
 *
 *   struct xg_config   control -> program, once, before load (.rodata: the verifier prunes by it)
 *   struct xg_rule     control -> program, a row of the map `rules`
 *   struct xg_line     control -> program, a row of the map `lines`, read as one of the structs below it
 *   struct xg_limit    control -> program, a row of the map `limits`
 *   struct xg_limit_line   program -> itself and control: buckets of sources
 *   struct xg_offender     program -> control, XG_OFFENDERS a limit
 *   struct xg_talker_set   program -> itself and control, sources with what they sent
 *   struct xg_counter  program -> control, per CPU
 *   struct xg_event    program -> control, through the ring buffer, or as the answer of `explain`
 *   struct xg_snoop    control -> the program of `xdpgw snoop openat`, once, before load
 *   struct xg_open     that program -> control, through a ring buffer of its own
 *   struct xg_judged   program -> the program of a capture
 *   struct xg_wanted   control -> the program of a capture, once, before load
 *   struct xg_socket_stats   the process that serves AF_XDP targets -> whoever asks, a row a socket
 *
 * Rules of the house: fixed-width members only, ordered so that no padding arises, every byte written
 * before it crosses. A new row in a table below is a new enum member, a new name in Python, in the
 * metrics and in the docs; the tests fail until some packet provokes it.
 */
#ifndef XG_ABI_H
#define XG_ABI_H

#include <linux/types.h>

enum xg_limits {
	XG_MAX_RULES = 10000, /* rules in one policy */
	XG_SUMMARIES = 3, /* words of a row's summary, a bit for each word of the row */
	XG_ROW_WORDS =
		192, /* XG_SUMMARIES * 64; 64 rules a word, with room for words that are not full */
	XG_NARROW_RULES = 31, /* so few rules fit in what a lookup gives */
	XG_DENSE_WORDS = 8, /* a row of so few words is a line as it is: 512 rules */
	XG_META_CLASSES = 4096, /* packets told apart by the dimensions that are folded into one */
	XG_KNOWN_SLOTS = 2048, /* combinations of rows whose rule is known, on each CPU */
	XG_KNOWN_ROWS = 6, /* rows in such a combination */
	XG_RULE_SLOTS = 20480, /* counters: a whole new policy fits beside the old one */
	XG_NO_RULE = 0xffff, /* "no rule decided" where a rule slot or index is asked for */
	XG_MAX_PORTS = 64,
	XG_MAX_TARGETS = 16, /* AF_XDP targets of one policy */
	XG_NO_TARGET = 0xff, /* of a socket that only sends */
	XG_MAX_QUEUES = 128, /* receive queues of a port that AF_XDP sockets can serve */
	XG_XSK_SLOTS = 131072, /* XG_MAX_PORTS * XG_MAX_TARGETS * XG_MAX_QUEUES */
	XG_VLAN_NONE = 0xffff,
	XG_MAX_EXT_HEADERS = 8, /* IPv6 extension headers that are stepped over */
	XG_FRAGMENT_SLOTS = 16384, /* fragmented packets that are followed at once */
	XG_FRAGMENT_SECONDS = 30, /* so long after its first fragment */
	XG_BLOCK_SLOTS = 500000, /* addresses and prefixes that are blocked at once */
	XG_BLOCK_LINES = 8192, /* of the filter before them, struct xg_line */
	XG_SOURCE_SLOTS = 131072, /* sources that `[log] sources = "new"` remembers */
	XG_MAX_LIMITS = 1024, /* rules with the action limit in one policy */
	XG_LIMIT_SLOTS = 2048, /* their buckets: a whole new policy fits beside the old one */
	XG_LIMIT_LINES = 131072, /* lines of buckets of sources, for all rules together */
	XG_LIMIT_WAYS = 8, /* buckets in a line */
	XG_OFFENDERS = 8, /* sources over the rate that are known by address, of each limit */
	XG_LIMIT_TIME_BITS = 44, /* of a bucket; the rest tells whose it is */
	XG_LIMIT_FRACTION_BITS = 24, /* of a nanosecond, in struct xg_limit */
	XG_TALKER_WAYS = 8, /* sources in a set */
	XG_TALKER_KEEP_BITS = 26, /* the ns in one unit of `keep`, struct xg_talker_set */
	XG_TALKER_STAY = 16, /* units that one newcomer of so many is kept for longer: 1 s */
	XG_TALKER_LUCKY = 128,
	XG_TALKER_KEEP =
		1024, /* units that a source is kept for each doubling of its packets: 69 s */
	XG_CAPTURE_BYTES =
		65535, /* of one frame that a capture keeps; bpf_xdp_load_bytes() gives no more */
	XG_CAPTURE_OLD_BYTES = 4096, /* the same on kernels before 5.18 */
	XG_MANIFEST_VERSION = 4, /* of what is pinned: a change of a pinned map raises it */
	XG_EVENT_RING_BYTES =
		8388608, /* about 100,000 events; a power of two, a multiple of the page */
	XG_COMM_BYTES = 16, /* name of a process, with its '\0': TASK_COMM_LEN of the kernel */
	XG_PATH_BYTES = 256, /* of a path that is told, with its '\0'; longer ones are cut */
	XG_OPENS = 16384, /* calls that may be under way at once */
	XG_OPEN_RING_BYTES = 8388608, /* about 24,000 struct xg_open */
};

/* What a packet gets. X(NAME, name, meaning) */
#define XG_VERDICTS(X) \
	X(PASS, pass, "the host's network stack") \
	X(DROP, drop, "nothing") \
	X(REJECT, reject, "a refusal is sent back, then drop") \
	X(TX, tx, "back out of the port it came in on, unchanged") \
	X(REDIRECT, redirect, "out of another port, unchanged") \
	X(FORWARD, forward, "routed by the host's FIB") \
	X(AF_XDP, af_xdp, "the AF_XDP socket of a target on the packet's queue")

/* What a rule asks: a verdict with the same number, or one of these, which do not decide alone. */
#define XG_UNDECIDING_ACTIONS(X) X(LIMIT, limit, "drop what is over the rate, let the rest go on")

/* Why a packet got its verdict. */
#define XG_REASONS(X) \
	X(RULE, rule, "a rule decided") \
	X(DEFAULT, default, "no rule decided") \
	X(MALFORMED, malformed, "a header contradicts itself or the packet's end") \
	X(BLOCK, block, "the source is blocked") \
	X(FRAGMENT, fragment, "the setting `fragments` decided") \
	X(GUARD, guard, "what a host needs to stay reachable") \
	X(LIMIT, limit, "over a rule's rate") \
	X(NO_SOCKET, no_socket, "nobody listens on the target") \
	X(ERROR, error, "the program met a state that cannot be")

/* The log's books, per CPU. Always: due = written + lost + limited. */
#define XG_LOG_COUNTERS(X) \
	X(DUE, due, "events that the policy asks for") \
	X(WRITTEN, written, "events put into the ring buffer") \
	X(LOST, lost, "events for which the ring buffer had no room") \
	X(LIMITED, limited, "events held back by a rate")

/* The books of `xdpgw snoop`, per CPU. asked = written + lost + under way. */
#define XG_OPEN_COUNTERS(X) \
	X(ASKED, asked, "calls that were to be told") \
	X(WRITTEN, written, "calls put into the ring buffer") \
	X(LOST, lost, "calls for which a table or the ring buffer had no room") \
	X(UNREAD, unread, "calls told without their path, as it could not be read")

/* The books of a capture, per CPU. Always: seen = captured + lost + limited. */
#define XG_CAPTURE_COUNTERS(X) \
	X(SEEN, seen, "frames that it asks for") \
	X(CAPTURED, captured, "frames put into its ring buffer") \
	X(LOST, lost, "frames for which its ring buffer had no room") \
	X(LIMITED, limited, "frames held back by its rate")

/* Who takes the frames of an AF_XDP target. */
#define XG_HANDLERS(X) \
	X(COUNT, count, "receive and recycle") \
	X(REFLECT, reflect, "swap the MAC addresses and send back") \
	X(FORWARD, forward, "send out of another port") \
	X(CAPTURE, capture, "write to a pcapng file") \
	X(PYTHON, python, "a Python function, a burst a call")

/*
 * Dimensions of a match. A packet's value in a dimension finds the rules that it satisfies there (bpf/match.h).
 * X(NAME, name, KIND, values)
 *
 * KIND says where the value is looked up:
 *   CONST   known at load time (the port)
 *   TABLE   a step function of `values` values (bpf/lookup.h)
 *   HASH    a hash map by the exact value; one that is not there finds cfg.miss[dim]
 *   PREFIX  an address: a step function of 32 or 128 bits
 * A packet that lacks the field finds cfg.none[dim]. What has a table for each family of addresses is two
 * dimensions here, and counts as the first of them; the second ones stand at the end.
 */
#define XG_DIMENSIONS(X) \
	X(ON, on, CONST, 0) \
	X(VLAN, vlan, TABLE, 4096) \
	X(ETHERTYPE, ethertype, TABLE, 65536) \
	X(PROTO, proto, TABLE, 1024) \
	X(SPORT, sport, TABLE, 65536) \
	X(DPORT, dport, TABLE, 65536) \
	X(TCP_FLAGS, tcp_flags, TABLE, 256) \
	X(ICMP, icmp, TABLE, 65536) \
	X(LEN, len, TABLE, 65536) \
	X(TTL, ttl, TABLE, 256) \
	X(DSCP, dscp, TABLE, 64) \
	X(FRAG, frag, TABLE, 4) \
	X(MAC_SRC, mac_src, HASH, 0) \
	X(MAC_DST, mac_dst, HASH, 0) \
	X(SRC4, src4, PREFIX, 0) \
	X(DST4, dst4, PREFIX, 0) \
	X(ICMP6, icmp6, TABLE, 65536) \
	X(SRC6, src6, PREFIX, 0) \
	X(DST6, dst6, PREFIX, 0)

#define XG_ENUM_VERDICT(NAME, name, doc) XG_VERDICT_##NAME,
enum xg_verdict { XG_VERDICTS(XG_ENUM_VERDICT) XG_VERDICT_COUNT };

#define XG_ENUM_ACTION(NAME, name, doc) XG_ACTION_##NAME,
enum xg_action {
	XG_VERDICTS(XG_ENUM_ACTION) XG_UNDECIDING_ACTIONS(XG_ENUM_ACTION) XG_ACTION_COUNT
};

#define XG_ENUM_REASON(NAME, name, doc) XG_REASON_##NAME,
enum xg_reason { XG_REASONS(XG_ENUM_REASON) XG_REASON_COUNT };

#define XG_ENUM_LOG(NAME, name, doc) XG_LOG_##NAME,
enum xg_log_counter { XG_LOG_COUNTERS(XG_ENUM_LOG) XG_LOG_COUNT };

#define XG_ENUM_OPEN(NAME, name, doc) XG_OPEN_##NAME,
enum xg_open_counter { XG_OPEN_COUNTERS(XG_ENUM_OPEN) XG_OPEN_COUNT };

#define XG_ENUM_CAPTURE(NAME, name, doc) XG_CAPTURE_##NAME,
enum xg_capture_counter { XG_CAPTURE_COUNTERS(XG_ENUM_CAPTURE) XG_CAPTURE_COUNT };

/* Not XG_HANDLER_: the row COUNT is no sentinel. */
#define XG_ENUM_HANDLE(NAME, name, doc) XG_HANDLE_##NAME,
enum xg_handle { XG_HANDLERS(XG_ENUM_HANDLE) XG_HANDLES };

#define XG_ENUM_DIM(NAME, name, KIND, values) XG_DIM_##NAME,
enum xg_dim { XG_DIMENSIONS(XG_ENUM_DIM) XG_DIM_COUNT };

#define XG_ENUM_VALUES(NAME, name, KIND, values) XG_VALUES_##NAME = values,
enum xg_values { XG_DIMENSIONS(XG_ENUM_VALUES) };

/* What cfg.use says of a dimension. */
enum xg_use {
	XG_USE_NOT, /* no rule looks at it, the program does not either */
	XG_USE_ROW, /* a lookup gives a row of its own; up to XG_NARROW_RULES rules, the rules themselves */
	XG_USE_META, /* a lookup gives a summand of the packet's meta class */
};

/*
 * What a lookup gives, or a table holds, is 31 bits of a value, or with the highest bit set a node: its kind
 * and the line where it begins.
 */
enum xg_ref {
	XG_REF_LEAF = 0x80000000, /* a leaf, up to XG_LEAF_STEPS steps */
	XG_REF_INDEX = 0x90000000, /* a line of ends, then that many leaves */
	XG_REF_INDEX2 =
		0xa0000000, /* a line of ends, then that many groups of 1 + XG_INDEX_ENDS lines */
	XG_REF_DIRECT = 0xb0000000, /* XG_DIRECT_VALUES to the line, by number */
	XG_REF_PATH = 0xc0000000, /* struct xg_path; in tables of 128 bits only */
	XG_REF_TURNS = 0xd0000000, /* struct xg_turns */
	XG_REF_TURNS2 = 0xe0000000, /* two of them; the first is full */
	XG_REF_PAGES =
		0xf0000000, /* the line of each page of XG_PAGE_VALUES, by number; first strides only */
	XG_REF_KIND = 0xf0000000,
	XG_REF_LINE = 0x0fffffff,
};

enum xg_steps {
	XG_LEAF_STEPS = 10,
	XG_TURNS_STEPS = 28,
	XG_INDEX_ENDS = 32,
	XG_DIRECT_VALUES = 16,
	XG_PAGE_VALUES = 64,
	XG_STRIDE_BITS = 16,
	XG_ROW_HEAD = 6, /* words of struct xg_row before those of the row itself */
	XG_LINE_WORDS = 8,
	XG_LINE_RULES = 32, /* numbers of rules to the line, by position */
};

/* The first index of the dimension PROTO, times 256, plus the protocol (0 where there is none). */
enum xg_kind { XG_KIND_OTHER, XG_KIND_ARP, XG_KIND_IP, XG_KIND_IP6 };

/* The index of the dimension FRAG; NOT_IP for a packet that is not IP. */
enum xg_frag { XG_FRAG_NO, XG_FRAG_FIRST, XG_FRAG_LATER, XG_FRAG_NOT_IP };

/* The setting `fragments`. */
enum xg_fragments { XG_FRAGMENTS_RULES, XG_FRAGMENTS_DROP, XG_FRAGMENTS_FOLLOW };

enum xg_log_sources { XG_SOURCES_OFF, XG_SOURCES_NEW, XG_SOURCES_EVERY };

/* Which optional members of struct xg_event the packet has. Addresses go with `family` (0: none). */
enum xg_has {
	XG_HAS_PROTO = 1,
	XG_HAS_PORTS = 2,
	XG_HAS_TCP_FLAGS = 4,
	XG_HAS_ICMP = 8,
	XG_HAS_ETHERTYPE = 16,
};

/* The system calls that `xdpgw snoop openat` tells. */
enum xg_call { XG_CALL_OPENAT, XG_CALL_OPENAT2 };

/* What is known of struct xg_open. */
enum xg_open_has {
	XG_OPEN_HAS_PATH = 1,
	XG_OPEN_HAS_CUT_PATH = 2, /* the path goes on; with XG_OPEN_HAS_PATH */
	XG_OPEN_HAS_FLAGS = 4, /* flags, mode and resolve */
};

/*
 * A rate as the program keeps it: one event every interval_ns, burst_ns of them at once (GCRA: the
 * bucket is the one number "theoretical arrival time"). interval_ns 0: no bound.
 */
struct xg_rate {
	__u64 interval_ns;
	__u64 burst_ns;
};

/* One TCP connection that the guard lets through: the SSH session of the operator. Port 0: none. */
struct xg_session {
	__u32 client[4]; /* network order; IPv4 in the first, the rest 0 */
	__u32 server[4];
	__u16 client_port;
	__u16 server_port;
	__u8 family;
	__u8 zero[3];
};

/* One program is loaded per port; this is its view of the policy. */
struct xg_config {
	__u64 log_window_ns;
	__u64 tick_ns; /* of the kernel's jiffies */
	__u64 first_jiffy; /* what jiffies were when the system started */
	__u64 limit_deepest_ns; /* no bucket is fuller */
	__u64 talker_seed; /* of the hash of sources in the map `talkers` */
	__u64 talker_mask6[2]; /* the bits that tell them apart, network order */
	struct xg_rate log_rate; /* all events of all ports together */
	struct xg_session session;
	__u32 root[XG_DIM_COUNT]; /* TABLE, PREFIX: what a lookup begins with */
	__u32 miss[XG_DIM_COUNT]; /* HASH: what a value finds that is not there */
	__u32 none
		[XG_DIM_COUNT]; /* what a packet without the field finds; CONST: what each finds */
	__u32 meta; /* line of the rows of meta classes, XG_DIRECT_VALUES to the line; 0: none */
	__u32 order; /* line of the numbers of rules by position; 0: a position is the number */
	__u32 narrow_limits; /* narrow: the rules with the action limit */
	__u32 narrow_deciding; /* narrow: the others */
	__u32 talker_mask4; /* as talker_mask6 */
	__u32 talker_sets; /* of the map `talkers`, on each CPU, a power of two; 0: sources are not counted */
	__u16 first[XG_ROW_WORDS]; /* the first rule of each word; ascending */
	__u8 use[XG_DIM_COUNT]; /* enum xg_use */
	__u8 words; /* words of a row in use, 0: no rules */
	__u8 deciding; /* the first so many words are without limits, the others with nothing else */
	__u8 narrow; /* up to XG_NARROW_RULES rules: no rows, no positions */
	__u8 known; /* a packet has up to XG_KNOWN_ROWS rows, but more than one: what they find is kept */
	__u8 port; /* slot of the port, 0 .. XG_MAX_PORTS - 1 */
	__u8 default_verdict; /* enum xg_verdict, pass or drop */
	__u8 malformed_verdict;
	__u8 fragments; /* enum xg_fragments */
	__u8 guard;
	__u8 log_rules; /* some rule has the option log */
	__u8 log_sources; /* enum xg_log_sources */
	__u8 explain; /* write what was found to the map `explained` */
	__u8 multi_buffer; /* a frame may go on behind data_end (kernel 5.18) */
	__u8 af_xdp; /* some rule hands packets to an AF_XDP target */
	__u8 limits; /* some rule has the action limit */
	__u8 allow; /* the table of sources that no block covers is not empty */
	__u8 dense; /* up to XG_DENSE_WORDS words: each row is a line of them, without summaries */
	__u8 capture; /* frames may be shown to a capture: the kernel can call its program */
	__u8 zero[7];
};

/* A cache line, of which everything is built that a lookup walks. */
struct xg_line {
	__u64 word[XG_LINE_WORDS];
};

/* Steps of a function of 16 bits: value[n] up to and with end[n], above end[n - 1]. Unused ends are 0xffff. */
struct xg_leaf {
	__u32 value[XG_LEAF_STEPS];
	__u16 end[XG_LEAF_STEPS + 2];
};

/* Steps of two values in turn, as those of a set are: value[n & 1] up to and with end[n]. */
struct xg_turns {
	__u32 value[2];
	__u16 end[XG_TURNS_STEPS];
};

/* The last end of each leaf or group that follows. Unused ends are 0xffff. */
struct xg_index {
	__u16 end[XG_INDEX_ENDS];
};

/* One address, of the rest of which only some bits matter, amid others that all find the same. */
struct xg_path {
	__u64 wanted[2]; /* host order, the high half first */
	__u64 mask[2];
	__u32 hit;
	__u32 miss;
	__u32 next; /* stride at which `hit` goes on */
	__u32 zero[5];
};

/*
 * A row: which rules a value satisfies, a bit a position, 64 positions a word. Up to XG_DENSE_WORDS words are a
 * struct xg_line, all of them, and those behind the last are zero. Of more, only words stand here that are
 * neither empty nor full, in order; the first two in the row's first line, the others in the lines behind it.
 */
struct xg_row {
	__u64 some[XG_SUMMARIES]; /* words that are not empty */
	__u64 all[XG_SUMMARIES]; /* words that are full */
	__u64 word[XG_LINE_WORDS - XG_ROW_HEAD];
};

/* What some rows found. Rows are lines, of which none is 0. */
struct xg_known {
	__u32 row[XG_KNOWN_ROWS];
	__u32 number; /* of the first rule that is no limit, XG_NO_RULE */
	__u32 zero;
};

struct xg_rule {
	struct xg_rate log_rate;
	__u32 sample; /* log one of so many, 0 and 1: all */
	__u32 target; /* AF_XDP target, or number of the limit, by action */
	__u16 slot; /* of its counter; kept over reloads by the rule's name */
	__u8 action; /* enum xg_action */
	__u8 otherwise; /* af_xdp: enum xg_verdict where nobody listens */
	__u8 log;
	__u8 zero[3];
};

/*
 * One `limit`, as the program keeps it. A bucket is one number, the time at which it will be empty (GCRA):
 * a packet that goes on moves it by what it costs, and one that finds it further ahead of the clock than
 * `depth_ns` is over the rate.
 */
struct xg_limit {
	__u64 seed; /* of the hash of sources; another one makes all buckets fresh */
	__u64 cost; /* of a packet, or of a byte, in ns * 2^XG_LIMIT_FRACTION_BITS */
	__u64 depth_ns;
	__u8 mask6[16]; /* of the source: the bits that tell buckets apart, network order */
	__u32 mask4; /* the same, network order */
	__u16 slot; /* of its own bucket, and of its offenders; kept over reloads */
	__u8 per_source; /* 0: one bucket, `slot`, for all */
	__u8 bytes; /* bytes cost, not packets */
	__u8 exact; /* by the exact clock, as its burst is too short for ticks */
	__u8 zero[7];
};

/*
 * Buckets of sources whose hashes fall together, in one cache line. A bucket is the sum of its time and its
 * source's key, whose low XG_LIMIT_TIME_BITS are 0: see bpf/limit.h.
 */
struct xg_limit_line {
	__u64 bucket[XG_LIMIT_WAYS];
};

/* A source that was over the rate; as a bucket knows no address, some are written down. */
struct xg_offender {
	__u64 ts_ns; /* when it was seen over the rate, give or take a quarter of a second; 0: nobody */
	__u8 addr[16]; /* as in struct xg_event, less the bits that the limit does not look at */
	__u32 family; /* 0: not IP */
	__u32 busy; /* being written */
};

struct xg_counter {
	__u64 packets;
	__u64 bytes;
};

/* What a source sent, as one CPU saw it: a cache line. See bpf/talker.h. */
struct xg_talker {
	__u8 addr[16]; /* as in struct xg_event, less the bits that are not looked at */
	__u64 packets;
	__u64 bytes;
	__u64 dropped; /* those of its packets that were dropped or rejected */
	__u64 first_ns; /* CLOCK_MONOTONIC by ticks */
	__u64 last_ns;
	__u8 family; /* 0: nobody */
	__u8 verdict; /* enum xg_verdict, of the last packet, as the next two */
	__u8 reason; /* enum xg_reason */
	__u8 port; /* slot */
	__u8 level; /* how often its packets doubled */
	__u8 zero[3];
};

/* Sources whose hashes fall together. */
struct xg_talker_set {
	__u64 tags; /* a byte of each one's hash */
	__u32 keep[XG_TALKER_WAYS]; /* the least gives way */
	__u64 gone_packets; /* what sources had sent that gave way */
	__u64 gone_bytes;
	__u64 gone_sources;
	struct xg_talker talker[XG_TALKER_WAYS];
};

/* Key of the table of fragmented packets: what all fragments of one have in common. */
struct xg_fragment_key {
	__u8 src[16]; /* as in struct xg_event */
	__u8 dst[16];
	__u32 id; /* as it stands in the header */
	__u8 family;
	__u8 proto; /* IPv6: the next header of the fragment header */
	__u8 zero[2];
};

/* What its first fragment got. */
struct xg_fragment {
	__u64 ts_ns; /* CLOCK_MONOTONIC (coarse) */
	__u16 rule; /* index of the rule that decided, XG_NO_RULE */
	__u8 verdict; /* enum xg_verdict */
	__u8 reason; /* enum xg_reason */
	__u8 zero[4];
};

/*
 * Key of the table of blocks: an address without what lies behind its prefix. Its value is a u64: the
 * CLOCK_BOOTTIME in ns from which on the block is over, 0 for never.
 */
struct xg_block {
	__u64 high; /* the address as a number, 128 bits with the first byte the most significant; */
	__u64 low; /* IPv4 in the upper half of `high` */
	__u16 bits; /* of the prefix, 0 .. 128 */
	__u8 family;
	__u8 zero[5];
};

/* The prefix lengths that the table of blocks holds: bit n of a family is length n. */
struct xg_block_lengths {
	__u64 v4;
	__u64 v6[3];
};

/* Key of the trie of sources that no block covers. */
struct xg_allowed {
	__u32 bits; /* 8 for the family, and those of the prefix */
	__u8 family;
	__u8 addr[16]; /* as in struct xg_event */
	__u8 zero[3];
};

/* Key of the table of sources seen. */
struct xg_source {
	__u8 addr[16];
	__u32 family;
};

struct xg_mac {
	__u8 addr[6];
	__u8 zero[2];
};

/* One packet as the program read and judged it. */
struct xg_event {
	__u64 ts_ns; /* CLOCK_MONOTONIC; 0 in an explanation */
	__u8 src[16]; /* network order; IPv4 in the first four bytes, the rest 0 */
	__u8 dst[16];
	__u32 len_bytes; /* frame on the wire without FCS */
	__u32 queue;
	__u16 sport; /* host order, as all numbers here */
	__u16 dport;
	__u16 ethertype; /* behind the VLAN tags */
	__u16 vlan; /* id of the outer tag, XG_VLAN_NONE: no tag */
	__u16 rule; /* slot of the rule that decided, XG_NO_RULE */
	__u8 port; /* slot */
	__u8 family; /* 4, 6, 0: not IP or not read */
	__u8 proto;
	__u8 tcp_flags; /* CWR 0x80 .. FIN 0x01 */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 ttl;
	__u8 dscp;
	__u8 frag; /* enum xg_frag */
	__u8 has; /* enum xg_has */
	__u8 verdict; /* enum xg_verdict */
	__u8 reason; /* enum xg_reason */
	__u8 zero[2];
};

/* Which calls `xdpgw snoop` tells. */
struct xg_snoop {
	__u64 pidns_dev; /* PID namespace that numbers of processes are of */
	__u64 pidns_ino; /* 0: the initial one */
	__u8 comm[XG_COMM_BYTES]; /* only this name, filled with 0; empty: any */
	__u32 pid; /* only this process; 0: any */
	__u32 not_pid; /* not this one; 0: none */
};

/* One call of openat or openat2 that has returned. */
struct xg_open {
	__u64 ts_ns; /* CLOCK_MONOTONIC of the call */
	__u64 took_ns;
	__u64 flags; /* O_* of the kernel */
	__u64 resolve; /* RESOLVE_* of openat2 */
	__u32 mode;
	__u32 dirfd; /* as int: AT_FDCWD */
	__u32 fd; /* where error is 0 */
	__u32 error; /* positive, as in errno */
	__u32 pid; /* of the process; of cfg's PID namespace where it lies in that, else of the initial one */
	__u32 tid;
	__u32 uid; /* of the initial user namespace */
	__u8 call; /* enum xg_call */
	__u8 has; /* enum xg_open_has */
	__u16 path_bytes; /* without '\0' */
	__u8 comm[XG_COMM_BYTES]; /* of the thread */
	__u8 path[XG_PATH_BYTES]; /* '\0' behind it, as far as the end */
};

/* What was decided about the packet at hand, for the program of a capture. */
struct xg_judged {
	__u16 rule; /* slot of the rule that decided, XG_NO_RULE */
	__u8 verdict; /* enum xg_verdict */
	__u8 reason; /* enum xg_reason */
};

/* Which frames a capture asks for, beside those that match its rule, and how much of them. */
struct xg_wanted {
	struct xg_rate rate;
	__u64 count; /* no more than so many, 0: no end */
	__u32 verdicts; /* a bit each */
	__u32 reasons; /* a bit each */
	__u32 rule; /* slot, XG_NO_RULE: any and none */
	__u32 snaplen; /* bytes of a frame, up to XG_CAPTURE_BYTES */
};

/* What all CPUs of a capture share. */
struct xg_capture_tally {
	__u64 arrival_ns; /* theoretical arrival time of its rate */
	__u64 taken; /* frames, where there is a count */
};

/*
 * What one AF_XDP socket counts, as the process that has it publishes it. Counters are since the
 * socket was opened, levels and sizes are descriptors.
 */
struct xg_socket_stats {
	__u64 ts_ns; /* CLOCK_MONOTONIC of the sample */
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets; /* put into the TX ring */
	__u64 tx_bytes;
	__u64 dropped; /* received and recycled: what was not sent */
	__u64 tx_full; /* to be sent from here, and recycled as the TX ring stayed full */
	__u64 kicks; /* system calls made to send */
	__u64 polls; /* times it slept */
	__u64 rx_dropped; /* XDP_STATISTICS of the kernel, this one and the next five */
	__u64 rx_invalid_descs;
	__u64 tx_invalid_descs;
	__u64 rx_ring_full;
	__u64 rx_fill_ring_empty;
	__u64 tx_ring_empty;
	__u32 rx;
	__u32 rx_size; /* 0: no such ring */
	__u32 tx;
	__u32 tx_size;
	__u32 fill; /* of the queue, as the next three */
	__u32 fill_size;
	__u32 completion;
	__u32 completion_size;
	__u32 queue;
	__u32 chunks_free; /* of the UMEM */
	__u8 port; /* slot */
	__u8 target; /* slot, XG_NO_TARGET: it only sends */
	__u8 handler; /* enum xg_handle */
	__u8 zero_copy;
	__u8 multi_buffer;
	__u8 alive; /* 0: its handler gave up, or its port is gone */
	__u8 zero[2];
};

#endif
