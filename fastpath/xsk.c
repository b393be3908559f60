// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * xsk.c - opening and closing AF_XDP sockets; see xg_xsk.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "xsk_internal.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

enum { RETRY_NS = 5000000 }; /* between two tries of bind(): the kernel needs tens of ms */

static int is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int check_sizes(const struct xg_xsk_opts *opts, const struct xg_xsk *beside)
{
	if (!opts->rx && !opts->tx)
		return -EINVAL;
	if (opts->rx && !is_power_of_two(opts->rx))
		return -EINVAL;
	if (opts->tx && !is_power_of_two(opts->tx))
		return -EINVAL;
	if (beside)
		return 0;
	return is_power_of_two(opts->fill) && is_power_of_two(opts->completion) ? 0 : -EINVAL;
}

static int set(int fd, int level, int option, const void *value, size_t len_bytes)
{
	return setsockopt(fd, level, option, value, (socklen_t)len_bytes) ? -errno : 0;
}

static int register_umem(int fd, const struct xg_umem *umem)
{
	struct xdp_umem_reg reg;

	memset(&reg, 0, sizeof(reg)); /* newer headers have more members */
	reg.addr = (uintptr_t)umem->area;
	reg.len = xg_umem_size_bytes(umem);
	reg.chunk_size = umem->chunk_bytes;
	return set(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg));
}

static int map_ring(int fd, struct ring *ring, const struct xdp_ring_offset *at, uint32_t size,
		    size_t entry_bytes, off_t page_offset)
{
	size_t bytes = at->desc + size * entry_bytes;
	uint8_t *map;

	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page_offset);
	if (map == MAP_FAILED)
		return -errno;
	ring->producer = (_Atomic uint32_t *)(void *)(map + at->producer);
	ring->consumer = (_Atomic uint32_t *)(void *)(map + at->consumer);
	ring->flags = (const _Atomic uint32_t *)(void *)(map + at->flags);
	ring->entries = map + at->desc;
	ring->size = size;
	ring->mask = size - 1;
	ring->cached_producer = atomic_load_explicit(ring->producer, memory_order_acquire);
	ring->cached_consumer = atomic_load_explicit(ring->consumer, memory_order_acquire);
	ring->map = map;
	ring->map_bytes = bytes;
	return 0;
}

static void unmap_ring(struct ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->map_bytes);
	memset(ring, 0, sizeof(*ring));
}

static int read_offsets(int fd, struct xdp_mmap_offsets *out)
{
	socklen_t len = sizeof(*out);

	if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, out, &len))
		return -errno;
	/* Before 5.4 they had no flags, and this would misread them. */
	return len == sizeof(*out) ? 0 : -EOPNOTSUPP;
}

static int make_queue_rings(struct xg_xsk *xsk, const struct xg_xsk_opts *opts,
			    const struct xdp_mmap_offsets *at, const char **call)
{
	struct queue *queue = xsk->queue;
	int err;

	*call = "setsockopt(XDP_UMEM_FILL_RING)";
	err = set(xsk->fd, SOL_XDP, XDP_UMEM_FILL_RING, &opts->fill, sizeof(opts->fill));
	if (err)
		return err;
	*call = "setsockopt(XDP_UMEM_COMPLETION_RING)";
	err = set(xsk->fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &opts->completion,
		  sizeof(opts->completion));
	if (err)
		return err;
	*call = "mmap(XDP_UMEM_PGOFF_FILL_RING)";
	err = map_ring(xsk->fd, &queue->fill, &at->fr, opts->fill, sizeof(uint64_t),
		       (off_t)XDP_UMEM_PGOFF_FILL_RING);
	if (err)
		return err;
	*call = "mmap(XDP_UMEM_PGOFF_COMPLETION_RING)";
	return map_ring(xsk->fd, &queue->completion, &at->cr, opts->completion, sizeof(uint64_t),
			(off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
}

static int make_socket_rings(struct xg_xsk *xsk, const struct xg_xsk_opts *opts,
			     const struct xdp_mmap_offsets *at, const char **call)
{
	int err;

	if (opts->rx) {
		*call = "setsockopt(XDP_RX_RING)";
		err = set(xsk->fd, SOL_XDP, XDP_RX_RING, &opts->rx, sizeof(opts->rx));
		if (err)
			return err;
		*call = "mmap(XDP_PGOFF_RX_RING)";
		err = map_ring(xsk->fd, &xsk->rx, &at->rx, opts->rx, sizeof(struct xdp_desc),
			       XDP_PGOFF_RX_RING);
		if (err)
			return err;
	}
	if (opts->tx) {
		*call = "setsockopt(XDP_TX_RING)";
		err = set(xsk->fd, SOL_XDP, XDP_TX_RING, &opts->tx, sizeof(opts->tx));
		if (err)
			return err;
		*call = "mmap(XDP_PGOFF_TX_RING)";
		err = map_ring(xsk->fd, &xsk->tx, &at->tx, opts->tx, sizeof(struct xdp_desc),
			       (off_t)XDP_PGOFF_TX_RING);
		if (err)
			return err;
	}
	return 0;
}

static int set_busy_poll(struct xg_xsk *xsk, const struct xg_xsk_opts *opts, const char **call)
{
	const int on = 1, us = (int)opts->busy_poll_us, budget = (int)opts->busy_budget;
	int err;

	if (!opts->busy_poll_us)
		return 0;
	*call = "setsockopt(SO_PREFER_BUSY_POLL)";
	err = set(xsk->fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &on, sizeof(on));
	if (err)
		return err;
	*call = "setsockopt(SO_BUSY_POLL)";
	err = set(xsk->fd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof(us));
	if (err)
		return err;
	if (budget) {
		*call = "setsockopt(SO_BUSY_POLL_BUDGET)";
		err = set(xsk->fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof(budget));
		if (err)
			return err;
	}
	xsk->idle.busy_poll = 1;
	return 0;
}

/* A queue whose last socket was closed stays EBUSY for some tens of milliseconds: try again. */
static int bind_patiently(int fd, const struct sockaddr_xdp *address, uint32_t retry_ms)
{
	const struct timespec pause = { .tv_nsec = RETRY_NS };
	uint64_t until = now_ns() + retry_ms * 1000000ull;

	while (bind(fd, (const struct sockaddr *)address, sizeof(*address))) {
		int err = errno;

		if (err != EBUSY || now_ns() >= until)
			return -err;
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int bind_socket(struct xg_xsk *xsk, const struct xg_xsk_opts *opts,
		       const struct xg_xsk *beside, const char **call)
{
	static const char *const calls[] = {
		[XG_XSK_AUTO] = "bind()",
		[XG_XSK_COPY] = "bind(XDP_COPY)",
		[XG_XSK_ZERO_COPY] = "bind(XDP_ZEROCOPY)",
	};
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP,
					.sxdp_ifindex = opts->ifindex,
					.sxdp_queue_id = opts->queue };

	if (beside || xsk->umem->sockets) {
		/* Mode, wake-ups and multi-buffer are the first one's; the kernel takes no flag. */
		*call = "bind(XDP_SHARED_UMEM)";
		address.sxdp_flags = XDP_SHARED_UMEM;
		address.sxdp_shared_umem_fd =
			(uint32_t)(beside ? beside->fd : xsk->umem->sockets->fd);
		return bind_patiently(xsk->fd, &address, opts->retry_ms);
	}
	*call = calls[opts->mode];
	address.sxdp_flags = XDP_USE_NEED_WAKEUP;
	/* Neither flag: the kernel tries zero-copy and falls back to copy, whatever the driver says. */
	if (opts->mode == XG_XSK_COPY)
		address.sxdp_flags |= XDP_COPY;
	if (opts->mode == XG_XSK_ZERO_COPY)
		address.sxdp_flags |= XDP_ZEROCOPY;
	if (opts->multi_buffer)
		address.sxdp_flags |= XDP_USE_SG;
	return bind_patiently(xsk->fd, &address, opts->retry_ms);
}

static int find_queue_slot(struct xg_umem *umem, const struct xg_xsk *beside, uint16_t *out)
{
	uint32_t slot = 0;

	if (beside) {
		*out = beside->queue_slot;
		return 0;
	}
	while (slot < umem->n_queues && umem->queues[slot].sockets)
		slot++;
	if (slot == QUEUES_MAX)
		return -ENOSPC;
	if (slot == umem->n_queues)
		umem->n_queues++;
	*out = (uint16_t)slot;
	return 0;
}

static void ask_options(struct xg_xsk *xsk)
{
	struct xdp_options options = { 0 };
	socklen_t len = sizeof(options);

	if (!getsockopt(xsk->fd, SOL_XDP, XDP_OPTIONS, &options, &len))
		xsk->zero_copy = !!(options.flags & XDP_OPTIONS_ZEROCOPY);
}

int xg_xsk_open(struct xg_umem *umem, const struct xg_xsk_opts *opts, struct xg_xsk *beside,
		const char **call, struct xg_xsk **out)
{
	struct xdp_mmap_offsets at;
	struct xg_xsk *xsk;
	int err;

	*call = "mode";
	if (opts->mode > XG_XSK_ZERO_COPY)
		return -EINVAL;
	*call = "ring sizes";
	err = check_sizes(opts, beside);
	if (err)
		return err;
	*call = "fill ring";
	if (!beside && n_free(umem) < opts->fill)
		return -ENOSPC;

	*call = "calloc()";
	xsk = calloc(1, sizeof(*xsk));
	if (!xsk)
		return -ENOMEM;
	xsk->umem = umem;
	xsk->multi_buffer = umem->sockets ? umem->sockets->multi_buffer : !!opts->multi_buffer;
	*call = "queues of one UMEM";
	err = find_queue_slot(umem, beside, &xsk->queue_slot);
	if (err)
		goto free_xsk;
	xsk->queue = &umem->queues[xsk->queue_slot];

	*call = "socket(AF_XDP)";
	xsk->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (xsk->fd < 0) {
		err = -errno;
		goto free_xsk;
	}
	if (!umem->sockets) {
		*call = "setsockopt(XDP_UMEM_REG)";
		err = register_umem(xsk->fd, umem);
		if (err)
			goto close_fd;
	}
	*call = "getsockopt(XDP_MMAP_OFFSETS)";
	err = read_offsets(xsk->fd, &at);
	if (err)
		goto close_fd;
	if (!beside) {
		err = make_queue_rings(xsk, opts, &at, call);
		if (err)
			goto unmap_queue;
	}
	err = make_socket_rings(xsk, opts, &at, call);
	if (err)
		goto unmap_socket;
	err = set_busy_poll(xsk, opts, call);
	if (err)
		goto unmap_socket;
	err = bind_socket(xsk, opts, beside, call);
	if (err)
		goto unmap_socket;
	ask_options(xsk);

	if (!beside) {
		xsk->queue->ifindex = opts->ifindex;
		xsk->queue->number = opts->queue;
		xsk->queue->sending = 0;
	}
	xsk->queue->sockets++;
	xsk->next = umem->sockets;
	umem->sockets = xsk;
	xsk_fill(xsk);
	*out = xsk;
	return 0;

unmap_socket:
	unmap_ring(&xsk->tx);
	unmap_ring(&xsk->rx);
unmap_queue:
	if (!beside) {
		unmap_ring(&xsk->queue->completion);
		unmap_ring(&xsk->queue->fill);
	}
close_fd:
	close(xsk->fd);
free_xsk:
	free(xsk);
	return err;
}

int xg_xsk_fd(const struct xg_xsk *xsk)
{
	return xsk->fd;
}

int xg_xsk_zero_copy(const struct xg_xsk *xsk)
{
	return xsk->zero_copy;
}

int xg_xsk_error(const struct xg_xsk *xsk)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(xsk->fd, SOL_SOCKET, SO_ERROR, &error, &len))
		return -errno;
	return -error;
}

int xg_xsk_statistics(const struct xg_xsk *xsk, struct xg_xdp_statistics *out)
{
	struct xdp_statistics raw;
	socklen_t len = sizeof(raw);

	memset(&raw, 0, sizeof(raw)); /* before 5.9 the kernel gives three of them */
	if (getsockopt(xsk->fd, SOL_XDP, XDP_STATISTICS, &raw, &len))
		return -errno;
	out->rx_dropped = raw.rx_dropped;
	out->rx_invalid_descs = raw.rx_invalid_descs;
	out->tx_invalid_descs = raw.tx_invalid_descs;
	out->rx_ring_full = raw.rx_ring_full;
	out->rx_fill_ring_empty = raw.rx_fill_ring_empty_descs;
	out->tx_ring_empty = raw.tx_ring_empty_descs;
	return 0;
}

void xg_xsk_counters(const struct xg_xsk *xsk, struct xg_xsk_counters *out)
{
	out->rx_packets = atomic_load_explicit(&xsk->rx_packets, memory_order_relaxed);
	out->rx_bytes = atomic_load_explicit(&xsk->rx_bytes, memory_order_relaxed);
	out->tx_packets = atomic_load_explicit(&xsk->tx_packets, memory_order_relaxed);
	out->tx_bytes = atomic_load_explicit(&xsk->tx_bytes, memory_order_relaxed);
	out->dropped = atomic_load_explicit(&xsk->dropped, memory_order_relaxed);
	out->tx_full = atomic_load_explicit(&xsk->tx_full, memory_order_relaxed);
	out->kicks = atomic_load_explicit(&xsk->kicks, memory_order_relaxed);
	out->polls = atomic_load_explicit(&xsk->polls, memory_order_relaxed);
}

void xg_xsk_levels(const struct xg_xsk *xsk, struct xg_ring_levels *out)
{
	out->rx = ring_level(&xsk->rx);
	out->rx_size = xsk->rx.size;
	out->tx = ring_level(&xsk->tx);
	out->tx_size = xsk->tx.size;
	out->fill = ring_level(&xsk->queue->fill);
	out->fill_size = xsk->queue->fill.size;
	out->completion = ring_level(&xsk->queue->completion);
	out->completion_size = xsk->queue->completion.size;
}

/*
 * What the RX ring of a closed socket still holds is nobody's: the mapping outlives the descriptor,
 * and the kernel moves the indices no more. The TX ring cannot be read so: before 6.17 the kernel
 * shows what it took only when it has taken all (xskq_cons_release()), and what it took still comes
 * back by the completion ring. What it did not take stays `sending` until the queue's last socket
 * is closed.
 */
static void take_back_rx(struct xg_xsk *xsk)
{
	struct xg_umem *umem = xsk->umem;
	uint32_t top = n_free(umem), n, i;

	if (!xsk->rx.size)
		return;
	n = ring_filled(&xsk->rx, xsk->rx.size);
	for (i = 0; i < n; i++) {
		uint64_t addr = ring_desc_at(&xsk->rx, i)->addr;

		xg_debug_hand(umem, addr, OWNER_RECEIVING, OWNER_FREE);
		free_push(umem, &top, addr);
	}
	hand_over(umem, OWNER_RECEIVING, OWNER_FREE, n);
	xsk->rx.cached_consumer += n;
}

/*
 * With its last socket the kernel's side of a queue is gone, and whatever chunk it had is ours
 * again. The chunks on the stack, and those that are held, are not of them.
 */
static void take_back_queue(struct xg_umem *umem, uint16_t slot)
{
	struct queue *queue = &umem->queues[slot];
	uint32_t top = n_free(umem), before = top, i;

	for (i = 0; i < top; i++)
		umem->where[umem->free[i]] = NO_QUEUE;
	for (i = 0; i < umem->chunks; i++) {
		if (umem->where[i] != slot)
			continue;
		umem->where[i] = NO_QUEUE;
		umem->free[top++] = i;
#ifdef XG_DEBUG
		umem->owner[i] = OWNER_FREE;
#endif
	}
	hand_over(umem, OWNER_SENDING, OWNER_FREE, queue->sending);
	hand_over(umem, OWNER_RECEIVING, OWNER_FREE, top - before - queue->sending);
	queue->sending = 0;
}

void xg_xsk_close(struct xg_xsk *xsk)
{
	struct xg_xsk **link;
	struct xg_umem *umem;

	if (!xsk)
		return;
	umem = xsk->umem;
	if (xsk->lent)
		xg_burst_end(xsk->lent);
	for (link = &umem->sockets; *link != xsk; link = &(*link)->next)
		;
	*link = xsk->next;
	close(xsk->fd);
	take_back_rx(xsk);
	unmap_ring(&xsk->tx);
	unmap_ring(&xsk->rx);
	if (--xsk->queue->sockets == 0) {
		take_back_queue(umem, xsk->queue_slot);
		unmap_ring(&xsk->queue->completion);
		unmap_ring(&xsk->queue->fill);
	}
	xg_debug_ledger(umem);
	free(xsk);
}
