// SPDX-License-Identifier: GPL-2.0-only
/*
 * The types of a kernel whose tracepoints begin with more than here, as one with PREEMPT_RT's lazy
 * preemption does. Only its BTF matters.
 */
struct trace_entry {
	unsigned short type;
	unsigned char flags;
	unsigned char preempt_count;
	int pid;
	unsigned char preempt_lazy_count;
};

struct trace_event_raw_sys_enter {
	struct trace_entry ent;
	long long something_new;
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
