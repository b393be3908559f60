// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fake_xdp.c - sockets, UMEMs and pools of the fake kernel; see fake_xdp.h.
 *
 * The order of the checks is that of net/xdp/xsk.c, xdp_umem.c and xsk_buff_pool.c: where several
 * things are wrong, the errno is the kernel's.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fake_kernel.h"

struct fake_plan plan;
uint64_t chance;
struct ksocket sockets[SOCKETS];
struct kpool pools[SOCKETS];
struct kdevice devices[FAKE_DEVICES];
static struct kumem umems[SOCKETS];

static int is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

/* ---- Devices ----------------------------------------------------------------------------------- */

struct kdevice *device_of(uint32_t ifindex)
{
	for (int i = 0; i < FAKE_DEVICES; i++)
		if (ifindex && devices[i].ifindex == ifindex)
			return &devices[i];
	return NULL;
}

void fake_add_device(uint32_t ifindex, uint32_t queues, int zero_copy)
{
	for (int i = 0; i < FAKE_DEVICES; i++) {
		if (devices[i].ifindex)
			continue;
		devices[i] = (struct kdevice){
			.ifindex = ifindex, .queues = queues, .up = 1, .zero_copy = zero_copy
		};
		CHECK(queues <= FAKE_QUEUES);
		return;
	}
	die("no more devices");
}

void fake_set_up(uint32_t ifindex, int up)
{
	device_of(ifindex)->up = up;
}

void fake_keep_busy(uint32_t ifindex, uint32_t queue, uint32_t times)
{
	device_of(ifindex)->busy[queue] = times;
}

void fake_remove_device(uint32_t ifindex)
{
	if (!device_of(ifindex))
		return;
	for (int i = 0; i < SOCKETS; i++) {
		struct ksocket *xs = &sockets[i];

		if (xs->fd && xs->state == BOUND && xs->pool->ifindex == ifindex) {
			xs->state = UNBOUND;
			xs->error = ENETDOWN;
		}
	}
	device_of(ifindex)->ifindex = 0;
}

/* ---- Sockets ----------------------------------------------------------------------------------- */

struct ksocket *socket_of(int fd)
{
	for (int i = 0; i < SOCKETS; i++)
		if (fd > 0 && sockets[i].fd == fd)
			return &sockets[i];
	return NULL;
}

int xdp_create(int type, int protocol)
{
	if ((type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != SOCK_RAW)
		return -ESOCKTNOSUPPORT;
	if (protocol)
		return -EPROTONOSUPPORT;
	for (int i = 0; i < SOCKETS; i++) {
		if (sockets[i].fd)
			continue;
		/* A number that nobody else has: that of a real descriptor. */
		sockets[i] = (struct ksocket){ .fd = real_eventfd() };
		CHECK(sockets[i].fd > 0);
		return sockets[i].fd;
	}
	return -ENFILE;
}

static int register_umem(struct ksocket *xs, const struct xdp_umem_reg *reg)
{
	struct kumem *umem = umems;

	if (reg->chunk_size < 2048 || reg->chunk_size > (unsigned long)sysconf(_SC_PAGESIZE))
		return -EINVAL;
	if (reg->flags)
		die("flags %#x of XDP_UMEM_REG are not what fastpath/ is written for", reg->flags);
	if (!is_power_of_two(reg->chunk_size))
		return -EINVAL;
	if (reg->addr % (unsigned long)sysconf(_SC_PAGESIZE) || reg->addr + reg->len < reg->addr)
		return -EINVAL;
	if (reg->len < reg->chunk_size || reg->len % reg->chunk_size)
		return -EINVAL;
	if (reg->headroom >= reg->chunk_size - HEADROOM_BYTES)
		return -EINVAL;
	if (reg->headroom)
		die("a headroom of %u is not what fastpath/ is written for", reg->headroom);
	while (umem->area)
		umem++;
	*umem = (struct kumem){ .area = (uint8_t *)(uintptr_t)reg->addr,
				.bytes = reg->len,
				.chunk_bytes = reg->chunk_size,
				.chunks = (uint32_t)(reg->len / reg->chunk_size),
				.users = 1 };
	umem->holder = kernel_alloc(umem->chunks, 1);
	umem->pool = kernel_alloc(umem->chunks, 1);
	umem->count[USER] = umem->chunks;
	xs->umem = umem;
	return 0;
}

static void put_umem(struct kumem *umem)
{
	if (!umem || --umem->users)
		return;
	CHECK(umem->count[USER] == umem->chunks);
	kernel_free(umem->holder);
	kernel_free(umem->pool);
	umem->area = NULL;
}

int xdp_is_pinned(const void *area, size_t bytes)
{
	const uint8_t *from = area;

	for (int i = 0; i < SOCKETS; i++)
		if (umems[i].area && umems[i].area < from + bytes &&
		    from < umems[i].area + umems[i].bytes)
			return 1;
	return 0;
}

static int make_ring(struct ksocket *xs, struct kring *ring, const void *value, socklen_t length,
		     int producer, int descs)
{
	uint32_t entries;

	if (length < sizeof(entries))
		return -EINVAL;
	memcpy(&entries, value, sizeof(entries));
	if (xs->state != READY)
		return -EBUSY;
	if (!is_power_of_two(entries) || ring->map)
		return -EINVAL;
	return ring_make(ring, entries, producer, descs);
}

int xdp_set(struct ksocket *xs, int option, const void *value, socklen_t length)
{
	struct xdp_umem_reg reg;
	int err;

	switch (option) {
	case XDP_RX_RING:
		return make_ring(xs, &xs->rx, value, length, 1, 1);
	case XDP_TX_RING:
		err = make_ring(xs, &xs->tx, value, length, 0, 1);
		if (!err)
			/* It has to be woken the first time. */
			atomic_fetch_or(xs->tx.flags, XDP_RING_NEED_WAKEUP);
		return err;
	case XDP_UMEM_FILL_RING:
		return make_ring(xs, &xs->fill, value, length, 0, 0);
	case XDP_UMEM_COMPLETION_RING:
		return make_ring(xs, &xs->completion, value, length, 1, 0);
	case XDP_UMEM_REG:
		if (length != sizeof(reg))
			die("XDP_UMEM_REG of %u bytes", length);
		memcpy(&reg, value, sizeof(reg));
		return xs->state != READY || xs->umem ? -EBUSY : register_umem(xs, &reg);
	default:
		return -ENOPROTOOPT;
	}
}

static void tell_offsets(struct xdp_ring_offset *at)
{
	*at = (struct xdp_ring_offset){ .producer = RING_PRODUCER,
					.consumer = RING_CONSUMER,
					.desc = RING_ENTRIES,
					.flags = RING_FLAGS };
}

int xdp_get(struct ksocket *xs, int option, void *value, socklen_t *length)
{
	struct xdp_statistics statistics = { 0 };
	struct xdp_mmap_offsets at;
	struct xdp_options options = { 0 };

	switch (option) {
	case XDP_MMAP_OFFSETS:
		if (*length < sizeof(at))
			return -EINVAL;
		tell_offsets(&at.rx);
		tell_offsets(&at.tx);
		tell_offsets(&at.fr);
		tell_offsets(&at.cr);
		memcpy(value, &at, *length = sizeof(at));
		return 0;
	case XDP_STATISTICS:
		if (*length < sizeof(statistics))
			return -EINVAL;
		statistics.rx_dropped = xs->rx_dropped;
		statistics.rx_ring_full = xs->rx_full;
		statistics.rx_fill_ring_empty_descs = xs->pool ? xs->pool->fill_empty : 0;
		statistics.tx_ring_empty_descs = xs->tx_empty;
		memcpy(value, &statistics, *length = sizeof(statistics));
		return 0;
	case XDP_OPTIONS:
		if (*length < sizeof(options))
			return -EINVAL;
		options.flags = xs->umem && xs->umem->zero_copy ? XDP_OPTIONS_ZEROCOPY : 0;
		memcpy(value, &options, *length = sizeof(options));
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

int xdp_ring_memory(struct ksocket *xs, off_t offset, size_t bytes)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct kring *ring = NULL;

	if (xs->state != READY)
		return -1;
	if (offset == XDP_PGOFF_RX_RING)
		ring = &xs->rx;
	else if (offset == (off_t)XDP_PGOFF_TX_RING)
		ring = &xs->tx;
	else if (offset == (off_t)XDP_UMEM_PGOFF_FILL_RING)
		ring = &xs->fill;
	else if (offset == (off_t)XDP_UMEM_PGOFF_COMPLETION_RING)
		ring = &xs->completion;
	if (!ring || !ring->map || bytes > (ring->bytes + page - 1) / page * page)
		return -1;
	return ring->fd;
}

/* ---- bind() ------------------------------------------------------------------------------------ */

static struct kpool *pool_at(uint32_t ifindex, uint32_t queue)
{
	for (int i = 0; i < SOCKETS; i++)
		if (pools[i].umem && pools[i].ifindex == ifindex && pools[i].queue == queue)
			return &pools[i];
	return NULL;
}

/* xp_create_and_assign_umem() and xp_assign_dev(): a pool of its own. */
static int assign_device(struct ksocket *xs, struct kumem *umem, struct kdevice *device,
			 uint32_t queue, uint32_t flags)
{
	struct kpool *pool = pools;

	if ((flags & XDP_COPY) && (flags & XDP_ZEROCOPY))
		return -EINVAL;
	if (pool_at(device->ifindex, queue))
		return -EBUSY;
	if (device->busy[queue < FAKE_QUEUES ? queue : 0]) {
		device->busy[queue < FAKE_QUEUES ? queue : 0]--;
		return -EBUSY;
	}
	if (queue >= device->queues)
		return -EINVAL;
	if ((flags & XDP_ZEROCOPY) && !device->zero_copy)
		return -EOPNOTSUPP;
	while (pool->umem)
		pool++;
	*pool = (struct kpool){ .umem = umem,
				.users = 1,
				.ifindex = device->ifindex,
				.queue = queue,
				.need_wakeup = !!(flags & XDP_USE_NEED_WAKEUP),
				.fill = xs->fill,
				.completion = xs->completion };
	pool->flight = kernel_alloc(pool->completion.size, sizeof(*pool->flight));
	if (flags & XDP_USE_SG)
		umem->multi_buffer = 1;
	umem->zero_copy = device->zero_copy && !(flags & XDP_COPY);
	xs->pool = pool;
	return 0;
}

static int bind_shared(struct ksocket *xs, const struct sockaddr_xdp *address,
		       struct kdevice *device)
{
	struct ksocket *first = socket_of((int)address->sxdp_shared_umem_fd);
	int err;

	if (address->sxdp_flags & (XDP_COPY | XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP | XDP_USE_SG))
		return -EINVAL;
	if (xs->umem)
		return -EINVAL;
	if (!first)
		return -ENOTSOCK;
	if (first->state != BOUND)
		return -EBADF;
	if (first->pool->ifindex != device->ifindex ||
	    first->pool->queue != address->sxdp_queue_id) {
		uint32_t flags = first->umem->zero_copy ? XDP_ZEROCOPY : XDP_COPY;

		if (!xs->fill.map || !xs->completion.map)
			return -EINVAL;
		flags |= first->pool->need_wakeup ? XDP_USE_NEED_WAKEUP : 0;
		flags |= first->umem->multi_buffer ? XDP_USE_SG : 0;
		err = assign_device(xs, first->umem, device, address->sxdp_queue_id, flags);
		if (err)
			return err;
	} else {
		if (xs->fill.map || xs->completion.map)
			return -EINVAL;
		xs->pool = first->pool;
		xs->pool->users++;
	}
	xs->umem = first->umem;
	xs->umem->users++;
	return 0;
}

int xdp_bind(struct ksocket *xs, const struct sockaddr_xdp *address, socklen_t length)
{
	struct kdevice *device;
	int err;

	if (length < sizeof(*address) || address->sxdp_family != 44 /* AF_XDP */)
		return -EINVAL;
	if (address->sxdp_flags &
	    ~(XDP_SHARED_UMEM | XDP_COPY | XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP | XDP_USE_SG))
		return -EINVAL;
	if (xs->state != READY)
		return -EBUSY;
	device = device_of(address->sxdp_ifindex);
	if (!device)
		return -ENODEV;
	if (!xs->rx.map && !xs->tx.map)
		return -EINVAL;
	if (address->sxdp_flags & XDP_SHARED_UMEM)
		err = bind_shared(xs, address, device);
	else if (!xs->umem || !xs->fill.map || !xs->completion.map)
		err = -EINVAL;
	else
		err = assign_device(xs, xs->umem, device, address->sxdp_queue_id,
				    address->sxdp_flags);
	if (err)
		return err;
	memset(&xs->fill, 0, sizeof(xs->fill)); /* they are the pool's */
	memset(&xs->completion, 0, sizeof(xs->completion));
	xs->state = BOUND;
	return 0;
}

/* ---- close() ----------------------------------------------------------------------------------- */

void xdp_release(struct ksocket *xs)
{
	struct kpool *pool = xs->pool;

	look();
	if (pool) {
		give_up_rings(xs);
		if (--pool->users == 0) {
			give_up_pool(pool);
			ring_unmake(&pool->fill);
			ring_unmake(&pool->completion);
			kernel_free(pool->flight);
			pool->umem = NULL;
		}
	}
	ring_unmake(&xs->rx);
	ring_unmake(&xs->tx);
	ring_unmake(&xs->fill);
	ring_unmake(&xs->completion);
	put_umem(xs->umem);
	real_close(xs->fd);
	xs->fd = 0;
}
