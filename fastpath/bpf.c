// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * bpf.c - maps, programs, links and pins by fd; see xg.h.
 *
 * libbpf 1.x returns -errno from every call used here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <linux/perf_event.h>

#include "xg.h"

/*
 * The kernel's own ENOTSUPP (include/linux/errno.h), which leaks to user space from map operations.
 */
#define KERNEL_ENOTSUPP 524

#define ROUND_UP_8(n) (((size_t)(n) + 7) & ~(size_t)7)

static int take_fd(int fd, int *out_fd)
{
	if (fd < 0)
		return fd;
	*out_fd = fd;
	return 0;
}

/* ---- Maps ---- */

int xg_map_create(uint32_t type, const char *name, uint32_t key_bytes, uint32_t value_bytes,
		  uint32_t max_entries, uint32_t flags, int *out_fd)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags);

	return take_fd(bpf_map_create(type, name, key_bytes, value_bytes, max_entries, &opts),
		       out_fd);
}

int xg_map_fd_by_id(uint32_t id, int *out_fd)
{
	return take_fd(bpf_map_get_fd_by_id(id), out_fd);
}

int xg_map_info(int fd, struct xg_map_info *out)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int err;

	err = bpf_obj_get_info_by_fd(fd, &info, &len);
	if (err)
		return err;
	*out = (struct xg_map_info){
		.type = info.type,
		.id = info.id,
		.key_bytes = info.key_size,
		.value_bytes = info.value_size,
		.max_entries = info.max_entries,
		.flags = info.map_flags,
	};
	memcpy(out->name, info.name, sizeof(out->name));
	return 0;
}

int xg_possible_cpus(void)
{
	return libbpf_num_possible_cpus();
}

int xg_map_lookup(int fd, const void *key, void *value)
{
	return bpf_map_lookup_elem(fd, key, value);
}

int xg_map_update(int fd, const void *key, const void *value, uint64_t flags)
{
	return bpf_map_update_elem(fd, key, value, flags);
}

int xg_map_delete(int fd, const void *key)
{
	return bpf_map_delete_elem(fd, key);
}

int xg_map_next_key(int fd, const void *key, void *next)
{
	return bpf_map_get_next_key(fd, key, next);
}

static int is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_ARRAY || type == BPF_MAP_TYPE_PERCPU_HASH ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static int is_array(uint32_t type)
{
	return type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

/* Bytes of one entry's value at the system call, all CPUs. */
static int value_stride(const struct xg_map_info *info, size_t *out)
{
	int cpus;

	if (!is_per_cpu(info->type)) {
		*out = info->value_bytes;
		return 0;
	}
	cpus = libbpf_num_possible_cpus();
	if (cpus < 0)
		return cpus;
	*out = ROUND_UP_8(info->value_bytes) * (size_t)cpus;
	return 0;
}

/* The kernel has no such operation for this map, or knows no batches at all. */
static int lacks_batch(int err)
{
	return err == -KERNEL_ENOTSUPP || err == -EOPNOTSUPP || err == -EINVAL;
}

int xg_map_update_many(int fd, const void *keys, const void *values, uint32_t n, uint32_t *done)
{
	struct xg_map_info info;
	uint32_t count = n, i;
	size_t stride;
	int err;

	*done = 0;
	if (!n)
		return 0;
	err = xg_map_info(fd, &info);
	if (err)
		return err;
	err = value_stride(&info, &stride);
	if (err)
		return err;

	err = bpf_map_update_batch(fd, keys, values, &count, NULL);
	if (!err || !lacks_batch(err)) {
		/* On -EFAULT the kernel may leave count alone; nothing is then known to be in. */
		*done = err == -EFAULT ? 0 : count;
		return err;
	}
	/* Pairs that a batch of -EINVAL had written are written again: the same bytes. */
	for (i = 0; i < n; i++) {
		err = bpf_map_update_elem(fd, (const char *)keys + (size_t)i * info.key_bytes,
					  (const char *)values + i * stride, BPF_ANY);
		if (err)
			return err;
		*done = i + 1;
	}
	return 0;
}

/*
 * One call for all of it. The keys come back in order, as an array's next key is its index plus
 * one.
 */
static int read_batch(int fd, uint32_t n, void *out)
{
	uint32_t count = n, next;
	uint32_t *keys;
	int err;

	keys = malloc(n * sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	err = bpf_map_lookup_batch(fd, NULL, &next, keys, out, &count, NULL);
	free(keys);
	/* -ENOENT: the end of the map was reached, and what was read is good. */
	if (err && err != -ENOENT)
		return err;
	return count == n ? 0 : -EINVAL;
}

int xg_map_read_array(int fd, uint32_t n, void *out, size_t out_bytes)
{
	struct xg_map_info info;
	size_t stride;
	uint32_t i;
	int err;

	err = xg_map_info(fd, &info);
	if (err)
		return err;
	if (!is_array(info.type))
		return -EMEDIUMTYPE;
	err = value_stride(&info, &stride);
	if (err)
		return err;
	if (n > info.max_entries || out_bytes != n * stride)
		return -EMSGSIZE;
	if (!n)
		return 0;
	err = read_batch(fd, n, out);
	if (!lacks_batch(err))
		return err;
	for (i = 0; i < n; i++) {
		err = bpf_map_lookup_elem(fd, &i, (char *)out + i * stride);
		if (err)
			return err;
	}
	return 0;
}

int xg_map_read_hash(int fd, void *keys, void *values, uint32_t n, uint32_t *done)
{
	struct xg_map_info info;
	uint32_t at = 0;
	int err;

	*done = 0;
	err = xg_map_info(fd, &info);
	if (err)
		return err;
	for (;;) {
		uint32_t count = n - *done;

		err = bpf_map_lookup_batch(
			fd, *done ? &at : NULL, &at, (char *)keys + (size_t)*done * info.key_bytes,
			(char *)values + (size_t)*done * info.value_bytes, &count, NULL);
		if (!err || err == -ENOENT)
			*done += count;
		if (err)
			return err == -ENOENT ? 0 : err; /* -ENOENT: that was all */
		if (!count)
			return -ENOSPC;
	}
}

int xg_map_delete_many(int fd, const void *keys, uint32_t n, uint32_t *done)
{
	uint32_t count = n;
	int err;

	*done = 0;
	if (!n)
		return 0;
	err = bpf_map_delete_batch(fd, keys, &count, NULL);
	*done = err == -EFAULT ? 0 : count;
	return err;
}

/* ---- Programs ---- */

int xg_prog_fd_by_id(uint32_t id, int *out_fd)
{
	return take_fd(bpf_prog_get_fd_by_id(id), out_fd);
}

int xg_prog_info(int fd, struct xg_prog_info *out)
{
	/* The kernel fills what it knows of the struct and leaves the rest as it is: zero. */
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	int err;

	err = bpf_obj_get_info_by_fd(fd, &info, &len);
	if (err)
		return err;
	*out = (struct xg_prog_info){
		.type = info.type,
		.id = info.id,
		.load_time_ns = info.load_time,
		.xlated_bytes = info.xlated_prog_len,
		.jited_bytes = info.jited_prog_len,
		.verified_insns = info.verified_insns,
		.run_time_ns = info.run_time_ns,
		.run_count = info.run_cnt,
		.recursion_misses = info.recursion_misses,
	};
	memcpy(out->tag, info.tag, sizeof(out->tag));
	memcpy(out->name, info.name, sizeof(out->name));
	return 0;
}

int xg_prog_map_ids(int prog_fd, uint32_t *ids, uint32_t max)
{
	struct bpf_prog_info info = { .nr_map_ids = max, .map_ids = (__u64)(uintptr_t)ids };
	__u32 len = sizeof(info);
	int err = bpf_obj_get_info_by_fd(prog_fd, &info, &len);

	return err ? err : (int)info.nr_map_ids;
}

int xg_prog_test_run(int prog_fd, const void *frame, uint32_t len_bytes, uint32_t repeat, void *out,
		     uint32_t *out_len, uint32_t *retval, uint32_t *duration_ns)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int err;

	opts.data_in = frame;
	opts.data_size_in = len_bytes;
	opts.data_out = out;
	opts.data_size_out = out && out_len ? *out_len : 0;
	opts.repeat = (int)repeat;
	err = bpf_prog_test_run_opts(prog_fd, &opts);
	if (err)
		return err;
	if (out_len)
		*out_len = opts.data_size_out;
	if (retval)
		*retval = opts.retval;
	if (duration_ns)
		*duration_ns = opts.duration;
	return 0;
}

int xg_prog_test_many(int prog_fd, const void *frames, const size_t *offsets, const uint32_t *lens,
		      uint32_t n, int explained_fd, uint32_t *retvals, struct xg_event *explained,
		      uint32_t *done)
{
	const uint32_t first = 0;
	uint32_t i;
	int err;

	for (i = 0; i < n; i++) {
		*done = i;
		err = xg_prog_test_run(prog_fd, (const char *)frames + offsets[i], lens[i], 1, NULL,
				       NULL, &retvals[i], NULL);
		if (err)
			return err;
		if (!explained)
			continue;
		err = bpf_map_lookup_elem(explained_fd, &first, &explained[i]);
		if (err)
			return err;
	}
	*done = n;
	return 0;
}

int xg_prog_live_frames(int prog_fd, uint32_t ifindex, const void *frame, uint32_t len_bytes,
			uint32_t repeat, uint32_t batch)
{
	struct xdp_md ctx = { .data_end = len_bytes, .ingress_ifindex = ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	opts.data_in = frame;
	opts.data_size_in = len_bytes;
	opts.ctx_in = &ctx;
	opts.ctx_size_in = sizeof(ctx);
	opts.repeat = (int)repeat;
	opts.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
	opts.batch_size = batch;
	return bpf_prog_test_run_opts(prog_fd, &opts);
}

/* ---- Links ---- */

int xg_link_attach_xdp(int prog_fd, uint32_t ifindex, uint32_t flags, int *out_fd)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);

	return take_fd(bpf_link_create(prog_fd, (int)ifindex, BPF_XDP, &opts), out_fd);
}

int xg_link_attach_tracepoint(int prog_fd, uint64_t event_id, int *out_fd)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = event_id,
	};
	int event_fd, err;

	/* One CPU is enough: programs of an event run wherever it happens. */
	event_fd = (int)syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (event_fd < 0)
		return -errno;
	err = take_fd(bpf_link_create(prog_fd, event_fd, BPF_PERF_EVENT, NULL), out_fd);
	close(event_fd);
	return err;
}

int xg_link_update(int link_fd, int prog_fd, int old_prog_fd)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts);

	if (old_prog_fd >= 0) {
		opts.flags = BPF_F_REPLACE;
		opts.old_prog_fd = (__u32)old_prog_fd;
	}
	return bpf_link_update(link_fd, prog_fd, &opts);
}

int xg_link_detach(int link_fd)
{
	return bpf_link_detach(link_fd);
}

int xg_link_info(int link_fd, struct xg_link_info *out)
{
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);
	int err;

	err = bpf_obj_get_info_by_fd(link_fd, &info, &len);
	if (err)
		return err;
	*out = (struct xg_link_info){
		.type = info.type,
		.id = info.id,
		.prog_id = info.prog_id,
		.ifindex = info.type == BPF_LINK_TYPE_XDP ? info.xdp.ifindex : 0,
	};
	return 0;
}

int xg_link_fd_by_id(uint32_t id, int *out_fd)
{
	return take_fd(bpf_link_get_fd_by_id(id), out_fd);
}

int xg_link_next_id(uint32_t id, uint32_t *out_id)
{
	__u32 next;
	int err;

	err = bpf_link_get_next_id(id, &next);
	if (err)
		return err;
	*out_id = next;
	return 0;
}

int xg_xdp_query(uint32_t ifindex, struct xg_xdp_query *out)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	int err;

	err = bpf_xdp_query((int)ifindex, 0, &opts);
	if (err)
		return err;
	*out = (struct xg_xdp_query){
		.attach_mode = opts.attach_mode,
		.prog_id = opts.prog_id,
		.drv_prog_id = opts.drv_prog_id,
		.skb_prog_id = opts.skb_prog_id,
		.hw_prog_id = opts.hw_prog_id,
	};
	return 0;
}

/* ---- Pins ---- */

int xg_pin(int fd, const char *path)
{
	return bpf_obj_pin(fd, path);
}

int xg_pin_get(const char *path, int *out_fd)
{
	return take_fd(bpf_obj_get(path), out_fd);
}

int xg_is_bpffs(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs) < 0)
		return -errno;
	return (unsigned long)fs.f_type == BPF_FS_MAGIC;
}
