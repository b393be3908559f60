/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * xg.h - the user-space half of xdpgw, as control sees it.
 *
 * Two jobs. The first is the calls to bpf(2) and libbpf that take a program from bytes to a port:
 *
 *   bytes --xg_object_open--> object --xg_object_load--> programs --xg_link_attach_xdp--> link
 *                               |                          |                             |
 *                     set_rodata, map_reuse              maps --xg_pin--> bpffs <--xg_pin--+
 *
 * The second is the way back: records that the program put into a ring buffer become an array of
 * struct xg_event (xg_events_drain) or JSON lines (xg_events_json), many a call, so that the
 * caller's language is paid once a batch and not once a packet.
 *
 * Who owns what:
 *   struct xg_object   owns the fds of its maps and programs; xg_object_map_fd() and _prog_fd()
 *                      lend them until xg_object_close(). Whoever wants one for longer duplicates
 *                      it.
 *   int *out_fd        a new fd with close-on-exec, the caller's to close.
 *   struct xg_events   owns its two mappings, not the fd of the map, which must outlive it.
 *   const pointers     lent for the call, never kept, except where a function says so.
 *
 * What every function keeps to:
 *   - It returns 0, a count or an fd, or -errno. Nothing else carries the error; errno is not read
 *     again.
 *   - Out pointers come last and are untouched on error.
 *   - It prints nothing and ends no process. What libbpf has to say goes to xg_object_log().
 *   - Two threads may call it at once, but for the same object or the same struct xg_events.
 *
 * Invariant: every fd and mapping has one owner, and the owner's close or free gives back all of
 * it.
 *
 * Plain ISO C declarations only: cffi reads this file, too, and checks every layout with the
 * compiler.
 */
#ifndef XG_H
#define XG_H

#include <stddef.h>
#include <stdint.h>

#include "abi.h"

/* C callers define it as __attribute__((warn_unused_result)); cffi's parser knows no attributes. */
#ifndef XG_MUST_CHECK
#define XG_MUST_CHECK
#endif

/* ---- Objects: an ELF file of BPF programs and maps, through libbpf -------------------------- */

struct xg_object;

/*
 * Parses an ELF image. Needs no privilege and touches no kernel state; the bytes are copied.
 * `name` (at most 15 bytes count) becomes the prefix of the names of .rodata and .bss. btf_path: a
 * file that describes the kernel's types to CO-RE relocations; NULL: what the kernel itself says.
 * -EINVAL, -ENOEXEC, -LIBBPF errors above 4000: not such an object. -ENOMEM.
 */
XG_MUST_CHECK int xg_object_open(const void *elf, size_t len_bytes, const char *name,
				 const char *btf_path, struct xg_object **out);

/* From now on the log has each step of libbpf, too, such as each relocation of a load. */
void xg_object_keep_debug(struct xg_object *object);

/*
 * Everything that libbpf and the verifier said about this object so far, oldest first,
 * '\0'-terminated; "" when nothing. libbpf loads silently and repeats a failed load with the
 * verifier's log on, growing the buffer until the log fits: a program that loads costs nothing.
 * Valid until the next call with this object.
 */
const char *xg_object_log(const struct xg_object *object);

/*
 * Sets a `const volatile` global before load. -ENOENT: no such symbol in .rodata; -EMSGSIZE: its
 * size is not len_bytes; -EBUSY: loaded already.
 */
XG_MUST_CHECK int xg_object_set_rodata(struct xg_object *object, const char *symbol,
				       const void *data, size_t len_bytes);

/* Sets max_entries before load. -ENOENT: no such map; -EBUSY: loaded already. */
XG_MUST_CHECK int xg_object_map_set_entries(struct xg_object *object, const char *map,
					    uint32_t entries);

/*
 * Loads with the map behind fd (duplicated) in the place of a new one. -ENOENT: no such map;
 * -EBUSY: loaded already; -EMEDIUMTYPE: type, sizes or flags differ, or it has fewer entries than
 * the program declares; the log has one line for each difference.
 */
XG_MUST_CHECK int xg_object_map_reuse(struct xg_object *object, const char *map, int fd);

/*
 * Sets the program's BPF_F_* flags of linux/bpf.h before load. -ENOENT: no such program; -EBUSY: loaded
 * already.
 */
XG_MUST_CHECK int xg_object_prog_set_flags(struct xg_object *object, const char *prog,
					   uint32_t flags);

/*
 * Creates the maps and has the verifier check the programs. Needs CAP_BPF, and CAP_NET_ADMIN for
 * XDP (before 5.8 CAP_SYS_ADMIN); before 5.11 libbpf raises RLIMIT_MEMLOCK. A failed load leaves
 * nothing in the kernel, and the object good only for its log. -EPERM, -EACCES or -EINVAL
 * (verifier), -E2BIG (too complex), -ENOMEM.
 */
XG_MUST_CHECK int xg_object_load(struct xg_object *object);

/* Name of the index-th map that the source declares (not .rodata and its like); NULL: no more. */
const char *xg_object_map_name(const struct xg_object *object, uint32_t index);

/* Lent fd of a loaded object's map or program. -ENOENT: no such name; -EBADF: not loaded. */
XG_MUST_CHECK int xg_object_map_fd(const struct xg_object *object, const char *map);
XG_MUST_CHECK int xg_object_prog_fd(const struct xg_object *object, const char *prog);

/* NULL is fine. Links and pins keep what they hold alive. */
void xg_object_close(struct xg_object *object);

/* ---- Maps, by fd ---------------------------------------------------------------------------- */

struct xg_map_info {
	uint32_t type; /* enum bpf_map_type */
	uint32_t id;
	uint32_t key_bytes;
	uint32_t value_bytes; /* of one CPU where the map is per CPU */
	uint32_t max_entries;
	uint32_t flags;
	char name[16];
};

XG_MUST_CHECK int xg_map_create(uint32_t type, const char *name, uint32_t key_bytes,
				uint32_t value_bytes, uint32_t max_entries, uint32_t flags,
				int *out_fd);
XG_MUST_CHECK int xg_map_fd_by_id(uint32_t id, int *out_fd);
XG_MUST_CHECK int xg_map_info(int fd, struct xg_map_info *out);

/*
 * CPUs that may ever come up; per-CPU maps have a value for each. A per-CPU value takes value_bytes
 * rounded up to 8, times this.
 */
XG_MUST_CHECK int xg_possible_cpus(void);

/* -ENOENT: no such key. `value` of a per-CPU map holds all CPUs. */
XG_MUST_CHECK int xg_map_lookup(int fd, const void *key, void *value);
/* flags: BPF_ANY, BPF_NOEXIST (-EEXIST), BPF_EXIST (-ENOENT). -E2BIG or -ENOSPC: full. */
XG_MUST_CHECK int xg_map_update(int fd, const void *key, const void *value, uint64_t flags);
XG_MUST_CHECK int xg_map_delete(int fd, const void *key);
/* key NULL: the first one. -ENOENT: that was the last one. */
XG_MUST_CHECK int xg_map_next_key(int fd, const void *key, void *next);

/*
 * Writes n pairs that lie back to back; one system call where the kernel can, n where it cannot
 * (LPM tries before 5.15, most of all before 5.6). *done tells how many got in, also on error: the
 * first *done pairs, in order.
 */
XG_MUST_CHECK int xg_map_update_many(int fd, const void *keys, const void *values, uint32_t n,
				     uint32_t *done);

/*
 * Reads all entries of a hash map, which nobody writes meanwhile; n is the room, and *done what was there.
 * -ENOSPC: more than that. Kernel 5.6.
 */
XG_MUST_CHECK int xg_map_read_hash(int fd, void *keys, void *values, uint32_t n, uint32_t *done);

/* Removes n keys that lie back to back, which must be there: -ENOENT. *done as above. Kernel 5.6. */
XG_MUST_CHECK int xg_map_delete_many(int fd, const void *keys, uint32_t n, uint32_t *done);

/*
 * Reads the first n entries of an array map: out is [entry][value], and [entry][cpu][value] with
 * value_bytes rounded up to 8 where the map is per CPU. out_bytes must be just that: -EMSGSIZE
 * else. Not a snapshot: writers go on meanwhile. -EMEDIUMTYPE: not an array.
 */
XG_MUST_CHECK int xg_map_read_array(int fd, uint32_t n, void *out, size_t out_bytes);

/* ---- Programs ------------------------------------------------------------------------------- */

struct xg_prog_info {
	uint32_t type; /* enum bpf_prog_type */
	uint32_t id;
	uint8_t tag[8]; /* hash of the instructions */
	char name[16]; /* cut to 15 bytes by the kernel */
	uint64_t load_time_ns; /* CLOCK_BOOTTIME */
	uint32_t xlated_bytes;
	uint32_t jited_bytes; /* 0: interpreted */
	uint32_t verified_insns; /* instructions that the verifier walked; 0 before 5.16 */
	uint32_t zero;
	uint64_t run_time_ns; /* with kernel.bpf_stats_enabled = 1, as the next two */
	uint64_t run_count;
	uint64_t recursion_misses;
};

XG_MUST_CHECK int xg_prog_fd_by_id(uint32_t id, int *out_fd);
XG_MUST_CHECK int xg_prog_info(int fd, struct xg_prog_info *out);

/* Ids of the maps that the program uses, at most max of them. Returns how many it uses. */
XG_MUST_CHECK int xg_prog_map_ids(int prog_fd, uint32_t *ids, uint32_t max);

/*
 * BPF_PROG_TEST_RUN: runs the program on a copy of the frame (14 bytes at least, -EINVAL) on this
 * CPU; it redirects and sends nothing. *out_len: room in `out` before (out NULL: 0), length of the
 * frame after. duration_ns: mean of `repeat` runs. More than one run makes the kernel patch its XDP
 * dispatcher, about 8 ms a call. -ENOSPC: frame longer than `out`. The last three may be NULL.
 */
XG_MUST_CHECK int xg_prog_test_run(int prog_fd, const void *frame, uint32_t len_bytes,
				   uint32_t repeat, void *out, uint32_t *out_len, uint32_t *retval,
				   uint32_t *duration_ns);

/*
 * Runs the program once on each of n frames, frame i being lens[i] bytes at frames + offsets[i].
 * retvals[i] is what it returned. After each run entry 0 of the map explained_fd (ARRAY of struct
 * xg_event) goes to explained[i]; explained NULL: it is not read. *done counts the frames before
 * the one that failed, also on error.
 */
XG_MUST_CHECK int xg_prog_test_many(int prog_fd, const void *frames, const size_t *offsets,
				    const uint32_t *lens, uint32_t n, int explained_fd,
				    uint32_t *retvals, struct xg_event *explained, uint32_t *done);

/*
 * BPF_F_TEST_XDP_LIVE_FRAMES (5.18): the frame enters the program `repeat` times as if ifindex had
 * received it, and verdicts are carried out: a packet generator of exact counts. batch: frames
 * between flushes, at most 256, 0: 64. CAP_NET_ADMIN. -EINVAL: frame shorter than 14 bytes or
 * longer than a page leaves, or no such queue.
 */
XG_MUST_CHECK int xg_prog_live_frames(int prog_fd, uint32_t ifindex, const void *frame,
				      uint32_t len_bytes, uint32_t repeat, uint32_t batch);

/* ---- Links: a program on a port ------------------------------------------------------------- */

struct xg_link_info {
	uint32_t type; /* enum bpf_link_type */
	uint32_t id;
	uint32_t prog_id;
	uint32_t ifindex; /* XDP; 0: the link lost its port */
};

/* Who holds a port, whichever way it was attached. Ids are 0 where there is none. */
struct xg_xdp_query {
	uint32_t attach_mode; /* XDP_ATTACHED_NONE, _DRV, _SKB, _HW, _MULTI */
	uint32_t prog_id;
	uint32_t drv_prog_id;
	uint32_t skb_prog_id;
	uint32_t hw_prog_id;
};

/*
 * flags: XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE. The program stays while the link's fd or a pin
 * of it does. CAP_NET_ADMIN in the port's network namespace. -EBUSY: another link or a program
 * attached by netlink. -EEXIST: the other mode is in use, or a bond above the port has a program.
 * -ENODEV: no such port. -EOPNOTSUPP: no native mode. -EINVAL, -ERANGE, -EMSGSIZE: the driver
 * refuses, most often the MTU.
 */
XG_MUST_CHECK int xg_link_attach_xdp(int prog_fd, uint32_t ifindex, uint32_t flags, int *out_fd);

/*
 * Puts a program on a tracepoint, on all CPUs, while the link's fd is open. event_id: what the file `id` of
 * the event in tracefs says. Kernel 5.15. CAP_PERFMON. -EACCES: the program reads beyond the event, or
 * no permission. -ENOENT: no such event.
 */
XG_MUST_CHECK int xg_link_attach_tracepoint(int prog_fd, uint64_t event_id, int *out_fd);

/*
 * Changes programs between two packets. old_prog_fd -1: whatever is there; else -EPERM where
 * another one is. -ENOLINK: the port is gone.
 */
XG_MUST_CHECK int xg_link_update(int link_fd, int prog_fd, int old_prog_fd);
XG_MUST_CHECK int xg_link_detach(int link_fd);
XG_MUST_CHECK int xg_link_info(int link_fd, struct xg_link_info *out);
XG_MUST_CHECK int xg_link_fd_by_id(uint32_t id, int *out_fd);
/* The next id above `id`, 0 to start. -ENOENT: no more. CAP_SYS_ADMIN. */
XG_MUST_CHECK int xg_link_next_id(uint32_t id, uint32_t *out_id);
XG_MUST_CHECK int xg_xdp_query(uint32_t ifindex, struct xg_xdp_query *out);

/* ---- Pins ----------------------------------------------------------------------------------- */

/* -EEXIST: the name is taken. -EPERM: not on a bpffs, or no permission. */
XG_MUST_CHECK int xg_pin(int fd, const char *path);
/* A new fd of what is pinned, be it map, program or link. -ENOENT, -EACCES; -EPERM: not a pin. */
XG_MUST_CHECK int xg_pin_get(const char *path, int *out_fd);
/* 1: path lies on a bpffs; 0: on something else. -ENOENT, -EACCES. */
XG_MUST_CHECK int xg_is_bpffs(const char *path);

/* ---- Events: the consumer's end of a BPF_MAP_TYPE_RINGBUF ----------------------------------- */

struct xg_events;
struct xg_capture; /* xg_xsk.h */
struct xg_names; /* below */

/* What the reader met since it opened. It only grows. */
struct xg_events_stats {
	uint64_t events; /* handed out */
	uint64_t discarded; /* given up by the program after reserve */
	uint64_t
		malformed; /* of another size than the reader's records; with frames, smaller: skipped */
};

/*
 * Maps the ring: the consumer's page for writing, the producer's page and the data, which the
 * kernel shows twice in a row, for reading. Its records are of record_bytes, a struct of abi.h. One
 * reader a ring. -EMEDIUMTYPE: not a ring buffer. -EPERM, -ENOMEM.
 */
XG_MUST_CHECK int xg_events_open(int map_fd, uint32_t record_bytes, struct xg_events **out);

/*
 * Moves up to max records from the ring to out, back to back, oldest first, and gives their room back to the
 * program. Returns how many. Never waits: ends at the first record that the program has not
 * finished.
 */
XG_MUST_CHECK int xg_events_drain(struct xg_events *events, void *out, uint32_t max);

/*
 * Moves up to max records of a capture from the ring into its file: each is struct xg_event and behind
 * it the first bytes of the frame. A frame's comment is its verdict, reason and rule; its port is
 * interface `port` of the file. Writes what waits when the ring is empty. Returns how many; of what
 * could not be written the file's counters know. realtime_offset_ns: CLOCK_REALTIME - CLOCK_MONOTONIC.
 */
XG_MUST_CHECK int xg_events_capture(struct xg_events *events, struct xg_capture *capture,
				    const struct xg_names *names, int64_t realtime_offset_ns,
				    uint32_t max);

/*
 * Sleeps until there is a record: 1, or timeout_ms went by (-1: never): 0. -EINTR: a signal came.
 */
XG_MUST_CHECK int xg_events_wait(const struct xg_events *events, int timeout_ms);

/*
 * Both: drains; where nothing is there, sleeps as above; where few are there, less than half of max, lets
 * more gather for a millisecond. Returns how many it took, 0 after the timeout or a signal. timeout_ms
 * 0: as xg_events_drain().
 */
XG_MUST_CHECK int xg_events_take(struct xg_events *events, void *out, uint32_t max, int timeout_ms);

/* Lent fd for poll(2), epoll(7) or asyncio. */
int xg_events_fd(const struct xg_events *events);
/* The ring's bytes: all of them, and those not drained yet, headers included. */
uint64_t xg_events_size_bytes(const struct xg_events *events);
uint64_t xg_events_used_bytes(const struct xg_events *events);
void xg_events_stats(const struct xg_events *events, struct xg_events_stats *out);
/* NULL is fine. Records not drained stay for the next reader. */
void xg_events_close(struct xg_events *events);

/* ---- Events as text ------------------------------------------------------------------------- */

/*
 * What slots are called. Escaped for a JSON string by the caller; NULL or a slot past the end:
 * unnamed.
 */
struct xg_names {
	const char *const *ports; /* by struct xg_event.port */
	const char *const *rules; /* by struct xg_event.rule */
	uint32_t n_ports;
	uint32_t n_rules;
};

/* The longest line but for its two names, with the newline: room to keep free for one more. */
enum xg_json { XG_JSON_LINE_BYTES = 512 };

/*
 * Writes one JSON object and '\n' an event, as many as surely fit: each needs XG_JSON_LINE_BYTES
 * plus its names. realtime_offset_ns: CLOCK_REALTIME - CLOCK_MONOTONIC. Returns bytes written (no
 * '\0'); *consumed tells the events they stand for. -ENOSPC: room for not even one. Unknown is
 * null, never 0.
 */
XG_MUST_CHECK ptrdiff_t xg_events_json(const struct xg_event *events, uint32_t n,
				       const struct xg_names *names, int64_t realtime_offset_ns,
				       char *out, size_t room_bytes, uint32_t *consumed);

/* The longest line of xg_opens_json(), with the newline: all of path and comm as \\uXXXX. */
enum xg_open_json { XG_OPEN_LINE_BYTES = 2560 };

/* The same for calls of `xdpgw snoop`. A byte of a path that is not UTF-8 becomes \\udc80 to \\udcff, as in Python. */
XG_MUST_CHECK ptrdiff_t xg_opens_json(const struct xg_open *opens, uint32_t n,
				      int64_t realtime_offset_ns, char *out, size_t room_bytes,
				      uint32_t *consumed);

/* O_RDONLY|O_CLOEXEC, with '\0'; bits without a name as one number. Returns its length. */
enum xg_flags_text { XG_FLAGS_TEXT_BYTES = 320 };
int xg_open_flags_text(uint64_t flags, char out[XG_FLAGS_TEXT_BYTES]);

/* Address texts as RFC 5952 and Python's ipaddress have them, with '\0'. Return their length. */
enum xg_text { XG_IPV4_TEXT_BYTES = 16, XG_IPV6_TEXT_BYTES = 40 };
int xg_ipv4_text(const uint8_t addr[4], char out[XG_IPV4_TEXT_BYTES]);
int xg_ipv6_text(const uint8_t addr[16], char out[XG_IPV6_TEXT_BYTES]);

/* ---- Files of addresses: a header of its own ------------------------------------------------ */

#include "xg_netset.h"

/* ---- AF_XDP: a header of its own ------------------------------------------------------------ */

#include "xg_xsk.h"

#endif
