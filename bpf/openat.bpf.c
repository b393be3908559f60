// SPDX-License-Identifier: GPL-2.0-only
/*
 * openat.bpf.c - `xdpgw snoop openat`: each call of openat and openat2, told when it has returned.
 *
 *   enter: to be told? -> `under_way`, by thread     return: read the path -> ring buffer
 *
 * Why at the return: the kernel has read the path by then, so its page is there, while a program at the enter
 * cannot wait for a page; and what came of the call is known. A path that another thread overwrites during
 * the call is told as it stands then.
 *
 * The layout of a tracepoint's context is the kernel's own affair, so it is taken from its BTF (CO-RE): the
 * structs below name what is used, and the loader puts in where this kernel has it. The kernel has two names
 * for it. What it fills in is struct syscall_trace_enter; struct trace_event_raw_sys_enter is the one that
 * programs commonly name, and a byte more in struct trace_entry, as real-time kernels have it, moves its
 * members beyond what is there (6.1-rt refuses to attach such a program). So the second is for kernels
 * whose BTF lacks the first.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"

/* As in parse.h: makes the compiler forget what it knows of a value. */
#define opaque(value) asm volatile("" : "+r"(value))

struct trace_entry {
	unsigned short type;
	unsigned char flags;
	unsigned char preempt_count;
	int pid;
} __attribute__((preserve_access_index));

struct syscall_trace_enter {
	struct trace_entry ent;
	int nr;
	unsigned long args
		[6]; /* without a length in the kernel, so that elements can be relocated only */
} __attribute__((preserve_access_index));

struct syscall_trace_exit {
	struct trace_entry ent;
	int nr;
	long ret;
} __attribute__((preserve_access_index));

struct trace_event_raw_sys_enter {
	struct trace_entry ent;
	long id;
	unsigned long args[6];
} __attribute__((preserve_access_index));

struct trace_event_raw_sys_exit {
	struct trace_entry ent;
	long id;
	long ret;
} __attribute__((preserve_access_index));

/* struct open_how of openat2, which grows; who is older than a member fills it with 0. */
struct how {
	__u64 flags;
	__u64 mode;
	__u64 resolve;
};

/* A call that has not returned yet. */
struct call {
	__u64 ts_ns;
	__u64 path; /* where it stands in the process, as the next one */
	__u64 how; /* openat2 only */
	__u64 flags;
	__u32 how_bytes;
	__u32 mode;
	__u32 dirfd;
	__u32 pid;
	__u32 tid;
	__u32 call; /* enum xg_call */
};

struct ids {
	__u32 pid;
	__u32 tid;
	bool ours; /* numbers of cfg's PID namespace */
};

/* Never read: it puts types of abi.h into the object's BTF, where control holds them against its own. */
const volatile union {
	enum xg_open_counter counter;
	enum xg_call call;
	enum xg_open_has has;
	struct xg_open open;
} abi_types = {};

const volatile struct xg_snoop cfg = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, XG_OPENS);
	__type(key, __u64);
	__type(value, struct call);
} under_way SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XG_OPEN_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} open_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, XG_OPEN_RING_BYTES);
} opens SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&open_counters, &which);

	if (counter)
		*counter += 1;
}

static __always_inline struct ids ids_of_current(void)
{
	__u64 both = bpf_get_current_pid_tgid();
	struct ids ids = { .pid = both >> 32, .tid = both, .ours = !cfg.pidns_ino };
	struct bpf_pidns_info inside = {};

	if (cfg.pidns_ino &&
	    !bpf_get_ns_current_pid_tgid(cfg.pidns_dev, cfg.pidns_ino, &inside, sizeof(inside))) {
		ids.pid = inside.tgid;
		ids.tid = inside.pid;
		ids.ours = true;
	}
	return ids;
}

static __always_inline bool asked_for(const struct ids *ids)
{
	__u64 comm[2] = {};

	if (cfg.pid && (!ids->ours || ids->pid != cfg.pid))
		return false;
	if (cfg.not_pid && ids->ours && ids->pid == cfg.not_pid)
		return false;
	if (!cfg.comm[0])
		return true;
	bpf_get_current_comm(comm, sizeof(comm));
	return comm[0] == *(const volatile __u64 *)&cfg.comm[0] &&
	       comm[1] == *(const volatile __u64 *)&cfg.comm[8];
}

/*
 * A member of the context, by the first of its two names that the kernel has. A macro, as an index is
 * relocated where it is a literal only. Opaque, as clang would make one read of both, at an offset in a
 * register: "dereference of modified ctx ptr".
 */
#define read_context(ctx, when, member) \
	({ \
		unsigned long read; \
\
		if (bpf_core_type_exists(struct syscall_trace_##when)) { \
			read = ((const struct syscall_trace_##when *)(ctx))->member; \
			opaque(read); \
		} else { \
			read = ((const struct trace_event_raw_sys_##when *)(ctx))->member; \
		} \
		read; \
	})

static __always_inline void note(struct call *call)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct ids ids = ids_of_current();

	if (!asked_for(&ids))
		return;
	call->ts_ns = bpf_ktime_get_ns();
	call->pid = ids.pid;
	call->tid = ids.tid;
	count(XG_OPEN_ASKED);
	if (bpf_map_update_elem(&under_way, &thread, call, BPF_ANY))
		count(XG_OPEN_LOST);
}

SEC("tracepoint/syscalls/sys_enter_openat")
int openat(void *ctx)
{
	struct call call = { .call = XG_CALL_OPENAT };

	call.dirfd = read_context(ctx, enter, args[0]);
	call.path = read_context(ctx, enter, args[1]);
	call.flags = (__u32)read_context(ctx, enter, args[2]);
	call.mode = read_context(ctx, enter, args[3]);
	note(&call);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_openat2")
int openat2(void *ctx)
{
	struct call call = { .call = XG_CALL_OPENAT2 };

	call.dirfd = read_context(ctx, enter, args[0]);
	call.path = read_context(ctx, enter, args[1]);
	call.how = read_context(ctx, enter, args[2]);
	call.how_bytes = read_context(ctx, enter, args[3]);
	note(&call);
	return 0;
}

static __always_inline void write_flags(struct xg_open *open, const struct call *call)
{
	struct how how = { .flags = call->flags, .mode = call->mode };

	open->has |= XG_OPEN_HAS_FLAGS;
	if (call->call == XG_CALL_OPENAT2 &&
	    (call->how_bytes < sizeof(how) ||
	     bpf_probe_read_user(&how, sizeof(how), (const void *)call->how)))
		open->has &= ~XG_OPEN_HAS_FLAGS;
	open->flags = how.flags;
	open->mode = how.mode;
	open->resolve = how.resolve;
}

static __always_inline void write_path(struct xg_open *open, const struct call *call)
{
	const char *path = (const char *)call->path;
	char next = 0;
	long n;

	__builtin_memset(open->path, 0, sizeof(open->path));
	open->path_bytes = 0;
	n = bpf_probe_read_user_str(open->path, sizeof(open->path), path);
	if (n <= 0) {
		count(XG_OPEN_UNREAD);
		return;
	}
	open->has |= XG_OPEN_HAS_PATH;
	open->path_bytes = n - 1;
	if (n == sizeof(open->path) && !bpf_probe_read_user(&next, 1, path + n - 1) && next)
		open->has |= XG_OPEN_HAS_CUT_PATH;
}

/* Of both calls. */
SEC("tracepoint/syscalls/sys_exit_openat")
int openat_return(void *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	const struct call *call = bpf_map_lookup_elem(&under_way, &thread);
	struct xg_open *open;
	long ret = read_context(ctx, exit, ret);

	if (!call)
		return 0;
	open = bpf_ringbuf_reserve(&opens, sizeof(*open), 0);
	if (!open) {
		count(XG_OPEN_LOST);
		bpf_map_delete_elem(&under_way, &thread);
		return 0;
	}
	open->ts_ns = call->ts_ns;
	open->took_ns = bpf_ktime_get_ns() - call->ts_ns;
	open->dirfd = call->dirfd;
	open->fd = ret < 0 ? 0 : ret;
	open->error = ret < 0 ? -ret : 0;
	open->pid = call->pid;
	open->tid = call->tid;
	open->uid = bpf_get_current_uid_gid();
	open->call = call->call;
	open->has = 0;
	bpf_get_current_comm(open->comm, sizeof(open->comm));
	write_flags(open, call);
	write_path(open, call);
	bpf_ringbuf_submit(open, 0);
	count(XG_OPEN_WRITTEN);
	bpf_map_delete_elem(&under_way, &thread);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
