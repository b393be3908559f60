// SPDX-License-Identifier: GPL-2.0-only
/*
 * The types of kernels whose tracepoints begin with more than here. Only its BTF matters. REAL_TIME: as
 * Debian's 6.1-rt has them, where struct trace_event_raw_sys_enter is not what programs get. Else, a kernel
 * without the other name, and with a member that no kernel has.
 */
struct trace_entry {
	unsigned short type;
	unsigned char flags;
	unsigned char preempt_count;
	int pid;
	unsigned char preempt_lazy_count;
};

#ifdef REAL_TIME
struct syscall_trace_enter {
	struct trace_entry ent;
	int nr;
	unsigned long args[];
};

struct syscall_trace_exit {
	struct trace_entry ent;
	int nr;
	long ret;
};

struct syscall_trace_exit leave_filled;
struct syscall_trace_enter *enter_filled;
#endif

struct trace_event_raw_sys_enter {
	struct trace_entry ent;
#ifndef REAL_TIME
	long something_new;
#endif
	long id;
	unsigned long args[6];
	char data[];
};

struct trace_event_raw_sys_exit {
	struct trace_entry ent;
	long id;
	long ret;
};

struct trace_event_raw_sys_enter enter;
struct trace_event_raw_sys_exit leave;
