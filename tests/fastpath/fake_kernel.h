/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* fake_kernel.h - what the files of the fake know of each other; see fake_xdp.h. */
#ifndef FAKE_KERNEL_H
#define FAKE_KERNEL_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <linux/if_xdp.h>

#include "fake_xdp.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* as gcc says it */
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
/* As in sanitizer/asan_interface.h, which not every installation has. */
void __asan_poison_memory_region(const volatile void *at, size_t bytes);
void __asan_unpoison_memory_region(const volatile void *at, size_t bytes);
#define POISON(at, bytes) __asan_poison_memory_region(at, bytes)
#define UNPOISON(at, bytes) __asan_unpoison_memory_region(at, bytes)
#else
#define POISON(at, bytes) ((void)(at), (void)(bytes))
#define UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif

#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif
#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD (1 << 0)
#endif

enum { SOCKETS = 32, HEADROOM_BYTES = 256, TX_BUDGET = 32, NO_POOL = 0xff };

enum holder { USER, RECEIVING, SENDING, HOLDERS };

/* The kernel's end of a ring. It reads its own index here, never from shared memory. */
struct kring {
	uint8_t *map; /* NULL: no such ring */
	size_t bytes;
	int fd; /* of the memory */
	uint32_t size;
	uint32_t ours; /* our index */
	uint32_t seen; /* theirs, when we looked last */
	uint32_t shown; /* our index as they see it */
	struct xdp_desc *copy; /* of the entries between the two */
	_Atomic uint32_t *our_index;
	const _Atomic uint32_t *their_index;
	_Atomic uint32_t *flags;
};

/* struct xdp_ring of the kernel: each index has a cache line, and an empty one behind it. */
enum { RING_PRODUCER = 0, RING_CONSUMER = 128, RING_FLAGS = 256, RING_ENTRIES = 384 };

struct kumem {
	uint8_t *area; /* NULL: the place is free */
	uint64_t bytes;
	uint32_t chunk_bytes, chunks;
	uint32_t users; /* sockets */
	int multi_buffer, zero_copy;
	uint8_t *holder; /* enum holder, a chunk */
	uint8_t *pool; /* that has it */
	uint64_t count[HOLDERS];
};

/* A descriptor on its way out. */
struct sent {
	uint64_t addr;
	uint64_t hash; /* of the part's bytes */
	uint64_t due_ns; /* to be completed */
	uint32_t length;
};

struct kpool {
	struct kumem *umem; /* NULL: the place is free */
	uint32_t users;
	uint32_t ifindex, queue;
	int need_wakeup;
	struct kring fill, completion;
	struct sent *flight; /* a ring of completion.size */
	uint32_t first, n; /* in it, in the order of sending */
	uint32_t reserved; /* in the completion ring, for partial frames */
	uint64_t fill_empty;
	uint32_t forgotten; /* entries of the TX rings of closed sockets */
};

enum state { READY, BOUND, UNBOUND };

struct ksocket {
	int fd; /* 0: the place is free */
	enum state state;
	struct kumem *umem;
	struct kpool *pool;
	struct kring rx, tx, fill, completion; /* the latter two until bind() */
	int hold_back;
	uint32_t kept_back; /* entries of RX that are not published yet */
	struct sent partial[FAKE_PARTS_MAX]; /* of the frame whose last part is not there yet */
	uint32_t partials;
	int error; /* SO_ERROR */
	uint64_t rx_dropped, rx_full, tx_empty;
};

struct kdevice {
	uint32_t ifindex; /* 0: the place is free */
	uint32_t queues;
	int up, zero_copy;
	uint32_t busy[FAKE_QUEUES];
};

extern struct fake_plan plan;
extern uint64_t chance; /* state of next_random() */
extern struct ksocket sockets[SOCKETS];
extern struct kpool pools[SOCKETS];
extern struct kdevice devices[FAKE_DEVICES];

#define die(...) \
	do { \
		fprintf(stderr, "kernel: " __VA_ARGS__); \
		fputc('\n', stderr); \
		abort(); \
	} while (0)

static inline int percent(uint32_t n)
{
	return n && pick(&chance, 100) < n;
}

/* fake_xdp.c */
struct ksocket *socket_of(int fd);
struct kdevice *device_of(uint32_t ifindex);
int xdp_create(int type, int protocol);
int xdp_set(struct ksocket *xs, int option, const void *value, socklen_t length);
int xdp_get(struct ksocket *xs, int option, void *value, socklen_t *length);
int xdp_bind(struct ksocket *xs, const struct sockaddr_xdp *address, socklen_t length);
void xdp_release(struct ksocket *xs);
/* The memory of a ring, for mmap(). -1: not to be had. */
int xdp_ring_memory(struct ksocket *xs, off_t offset, size_t bytes);
/* Is it the memory of a UMEM that is in use? */
int xdp_is_pinned(const void *area, size_t bytes);

/* fake_rings.c */
void pass_on(struct kpool *pool, uint64_t addr, enum holder from, enum holder to);
uint64_t hash_of(const uint8_t *bytes, uint32_t length);
int ring_make(struct kring *ring, uint32_t size, int producer, int descs);
void ring_unmake(struct kring *ring);
/* All indices and entries that the user has published. */
void look(void);
/* The next entry of a ring that the user fills. He has not touched it since. */
struct xdp_desc take(struct kring *ring, int descs);
/* Without showing it yet. */
void put(struct kring *ring, const struct xdp_desc *entry, int descs);
void show(struct kring *ring, uint32_t index);
uint32_t room_in(const struct kring *ring);
void give_up_rings(struct ksocket *xs);
void give_up_pool(struct kpool *pool);

/* fake_path.c */
/* xsk_generic_xmit(), or the wake-up of a zero-copy driver. */
int xdp_xmit(struct ksocket *xs);
short xdp_poll(struct ksocket *xs);
/* What the devices have done by now. */
void complete_due(void);

/* fake_libc.c */
void *kernel_alloc(size_t n, size_t bytes);
void kernel_free(void *at);
int real_close(int fd);
int real_eventfd(void);
void *real_map(size_t bytes, int fd);
void real_unmap(void *at, size_t bytes);

#endif
