// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fake_libc.c - the calls that fastpath/ makes, as the linker's --wrap leads them here; see fake_xdp.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fake_kernel.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

enum { MAPPINGS = 256, EVENTFDS = 64, CALL_NS = 500, TICK_NS = 1000000 };

#define EPOCH_S 1700000000

/* What the linker calls the true ones, and what it leads here. */
void *__real_calloc(size_t n, size_t bytes);
void *__real_malloc(size_t bytes);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __real_close(int fd);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __real_socket(int domain, int type, int protocol);
int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __real_getsockopt(int fd, int level, int option, void *value, socklen_t *length);
int __real_bind(int fd, const struct sockaddr *address, socklen_t length);
ssize_t __real_sendto(int fd, const void *bytes, size_t n, int flags,
		      const struct sockaddr *address, socklen_t length);
int __real_eventfd(unsigned value, int flags);

int (*fake_on_sleep)(void);
int fake_real_sleep;

static struct {
	void *at;
	size_t bytes;
} mappings[MAPPINGS];
static int eventfds[EVENTFDS];
static uint64_t now_ns;
static unsigned calls_left; /* until the one that fails; 0: none */
static int fail_with;
static char failed[64];

/* ---- For the fake itself ----------------------------------------------------------------------- */

void *kernel_alloc(size_t n, size_t bytes)
{
	void *at = __real_calloc(n, bytes);

	CHECK(at);
	return at;
}

void kernel_free(void *at)
{
	free(at);
}

int real_close(int fd)
{
	return __real_close(fd);
}

int real_eventfd(void)
{
	return __real_eventfd(0, EFD_CLOEXEC);
}

void *real_map(size_t bytes, int fd)
{
	void *at = __real_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

void real_unmap(void *at, size_t bytes)
{
	CHECK(!__real_munmap(at, bytes));
}

/* ---- Control ----------------------------------------------------------------------------------- */

void fake_start(const struct fake_plan *wanted)
{
	CHECK(!fake_open_things());
	plan = *wanted;
	chance = plan.seed;
	memset(devices, 0, sizeof(*devices) * FAKE_DEVICES);
	fake_on_sent = NULL;
	fake_on_sleep = NULL;
	fake_real_sleep = 0;
	fake_fail(0, 0);
}

unsigned fake_open_things(void)
{
	unsigned n = 0;

	for (int i = 0; i < SOCKETS; i++)
		n += sockets[i].fd != 0;
	for (int i = 0; i < EVENTFDS; i++)
		n += eventfds[i] != 0;
	for (int i = 0; i < MAPPINGS; i++)
		n += mappings[i].at != NULL;
	return n;
}

void fake_fail(unsigned nth, int err)
{
	calls_left = nth;
	fail_with = err;
	failed[0] = 0;
}

const char *fake_failed(void)
{
	return failed[0] ? failed : NULL;
}

/* Is it this call that has to fail? */
__attribute__((format(printf, 1, 2))) static int fails(const char *format, ...)
{
	va_list words;

	if (!calls_left || --calls_left)
		return 0;
	va_start(words, format);
	vsnprintf(failed, sizeof(failed), format, words);
	va_end(words);
	errno = fail_with;
	return 1;
}

static int answer(int result)
{
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

/* ---- Memory ------------------------------------------------------------------------------------ */

void *__wrap_calloc(size_t n, size_t bytes)
{
	return fails("calloc()") ? NULL : __real_calloc(n, bytes);
}

void *__wrap_malloc(size_t bytes)
{
	return fails("malloc()") ? NULL : __real_malloc(bytes);
}

static const char *ring_name(off_t offset)
{
	switch ((uint64_t)offset) {
	case XDP_PGOFF_RX_RING:
		return "XDP_PGOFF_RX_RING";
	case XDP_PGOFF_TX_RING:
		return "XDP_PGOFF_TX_RING";
	case XDP_UMEM_PGOFF_FILL_RING:
		return "XDP_UMEM_PGOFF_FILL_RING";
	case XDP_UMEM_PGOFF_COMPLETION_RING:
		return "XDP_UMEM_PGOFF_COMPLETION_RING";
	}
	die("mmap() at %#llx", (unsigned long long)offset);
}

static void *note_mapping(void *at, size_t bytes)
{
	int i = 0;

	while (mappings[i].at)
		CHECK(++i < MAPPINGS);
	mappings[i].at = at;
	mappings[i].bytes = bytes;
	return at;
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	struct ksocket *xs = socket_of(fd);
	void *made;
	int memory;

	if (!xs) {
		/* The area of a UMEM. */
		CHECK(fd == -1 && flags & MAP_ANONYMOUS);
		if (flags & MAP_HUGETLB && !plan.huge_pages) {
			errno = ENOMEM;
			return MAP_FAILED;
		}
		if (!(flags & MAP_HUGETLB) && fails("mmap()"))
			return MAP_FAILED;
		made = __real_mmap(at, bytes, prot, flags & ~(MAP_HUGETLB | MAP_POPULATE), fd, 0);
	} else {
		if (fails("mmap(%s)", ring_name(offset)))
			return MAP_FAILED;
		CHECK(prot == (PROT_READ | PROT_WRITE) && flags & MAP_SHARED);
		memory = xdp_ring_memory(xs, offset, bytes);
		if (memory < 0) {
			errno = EINVAL;
			return MAP_FAILED;
		}
		made = __real_mmap(at, bytes, prot, MAP_SHARED, memory, 0);
	}
	CHECK(made != MAP_FAILED);
	return note_mapping(made, bytes);
}

int __wrap_munmap(void *at, size_t bytes)
{
	int i = 0;

	while (mappings[i].at != at || mappings[i].bytes != bytes)
		if (++i == MAPPINGS)
			die("munmap() of %zu bytes that were not mapped so", bytes);
	if (xdp_is_pinned(at, bytes))
		die("a UMEM is unmapped while a socket uses it");
	mappings[i].at = NULL;
	return __real_munmap(at, bytes);
}

/* ---- Descriptors ------------------------------------------------------------------------------- */

int __wrap_socket(int domain, int type, int protocol)
{
	if (domain != AF_XDP)
		return __real_socket(domain, type, protocol);
	return fails("socket(AF_XDP)") ? -1 : answer(xdp_create(type, protocol));
}

int __wrap_eventfd(unsigned value, int flags)
{
	int fd, i = 0;

	if (fails("eventfd()"))
		return -1;
	fd = __real_eventfd(value, flags);
	while (eventfds[i])
		CHECK(++i < EVENTFDS);
	return eventfds[i] = fd;
}

int __wrap_close(int fd)
{
	struct ksocket *xs = socket_of(fd);
	int i;

	if (xs) {
		xdp_release(xs);
		return 0;
	}
	for (i = 0; i < EVENTFDS; i++)
		if (eventfds[i] == fd)
			eventfds[i] = 0;
	/* A descriptor that is closed twice may be somebody else's by then. */
	CHECK(!__real_close(fd));
	return 0;
}

static const char *option_name(int level, int option)
{
	if (level == SOL_XDP)
		switch (option) {
		case XDP_MMAP_OFFSETS:
			return "XDP_MMAP_OFFSETS";
		case XDP_RX_RING:
			return "XDP_RX_RING";
		case XDP_TX_RING:
			return "XDP_TX_RING";
		case XDP_UMEM_REG:
			return "XDP_UMEM_REG";
		case XDP_UMEM_FILL_RING:
			return "XDP_UMEM_FILL_RING";
		case XDP_UMEM_COMPLETION_RING:
			return "XDP_UMEM_COMPLETION_RING";
		case XDP_STATISTICS:
			return "XDP_STATISTICS";
		case XDP_OPTIONS:
			return "XDP_OPTIONS";
		}
	else if (level == SOL_SOCKET)
		switch (option) {
		case SO_ERROR:
			return "SO_ERROR";
		case 46:
			return "SO_BUSY_POLL";
		case 69:
			return "SO_PREFER_BUSY_POLL";
		case 70:
			return "SO_BUSY_POLL_BUDGET";
		}
	die("option %d of level %d", option, level);
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	struct ksocket *xs = socket_of(fd);

	if (!xs)
		return __real_setsockopt(fd, level, option, value, length);
	if (fails("setsockopt(%s)", option_name(level, option)))
		return -1;
	if (level == SOL_SOCKET)
		return answer(length == sizeof(int) ? 0 : -EINVAL);
	return answer(xdp_set(xs, option, value, length));
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
	struct ksocket *xs = socket_of(fd);

	if (!xs)
		return __real_getsockopt(fd, level, option, value, length);
	if (fails("getsockopt(%s)", option_name(level, option)))
		return -1;
	if (level == SOL_SOCKET && option == SO_ERROR) {
		CHECK(*length == sizeof(int));
		memcpy(value, &xs->error, sizeof(int));
		xs->error = 0;
		return 0;
	}
	return answer(level == SOL_XDP ? xdp_get(xs, option, value, length) : -ENOPROTOOPT);
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	const struct sockaddr_xdp *xdp = (const struct sockaddr_xdp *)(const void *)address;
	struct ksocket *xs = socket_of(fd);
	uint32_t flags = xdp->sxdp_flags;

	if (!xs)
		return __real_bind(fd, address, length);
	if (fails("bind(%s)", flags & XDP_SHARED_UMEM ? "XDP_SHARED_UMEM"
			      : flags & XDP_ZEROCOPY  ? "XDP_ZEROCOPY"
			      : flags & XDP_COPY      ? "XDP_COPY"
						      : ""))
		return -1;
	return answer(xdp_bind(xs, xdp, length));
}

ssize_t __wrap_sendto(int fd, const void *bytes, size_t n, int flags,
		      const struct sockaddr *address, socklen_t length)
{
	struct ksocket *xs = socket_of(fd);

	if (!xs)
		return __real_sendto(fd, bytes, n, flags, address, length);
	if (xs->state != BOUND)
		return answer(-ENXIO);
	if (!(flags & MSG_DONTWAIT))
		return answer(-EOPNOTSUPP);
	now_ns += CALL_NS;
	complete_due();
	return answer(xdp_xmit(xs));
}

/* ---- Time -------------------------------------------------------------------------------------- */

uint64_t fake_now_ns(void)
{
	return now_ns;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
	now_ns += CALL_NS;
	complete_due();
	out->tv_sec = (time_t)(now_ns / 1000000000u) + (clock == CLOCK_REALTIME ? EPOCH_S : 0);
	out->tv_nsec = (long)(now_ns % 1000000000u);
	return 0;
}

/* The rest of the machine works, for a millisecond at most. 0: nothing will ever happen. */
static int pass_time(uint64_t ns)
{
	now_ns += ns < TICK_NS ? ns : TICK_NS;
	complete_due();
	return fake_on_sleep ? fake_on_sleep() : 0;
}

int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left)
{
	uint64_t ns = (uint64_t)wanted->tv_sec * 1000000000u + (uint64_t)wanted->tv_nsec;

	(void)left;
	for (; ns > TICK_NS; ns -= TICK_NS)
		pass_time(TICK_NS);
	pass_time(ns);
	return 0;
}

static int poll_once(struct pollfd *fds, nfds_t n)
{
	int ready = 0;

	for (nfds_t i = 0; i < n; i++) {
		struct ksocket *xs = socket_of(fds[i].fd);

		fds[i].revents = 0;
		if (fds[i].fd < 0)
			continue;
		if (xs)
			fds[i].revents = xdp_poll(xs) & fds[i].events;
		else
			(void)!__real_poll(&fds[i], 1, 0);
		ready += fds[i].revents != 0;
	}
	return ready;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	uint64_t until = now_ns + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000000u : 0);
	int ready, more;

	if (fails("poll()"))
		return -1;
	while (!(ready = poll_once(fds, n))) {
		if (timeout_ms >= 0 && now_ns >= until)
			return 0;
		more = pass_time(timeout_ms < 0 ? TICK_NS : until - now_ns);
		if (more || timeout_ms >= 0)
			continue;
		if (!fake_real_sleep)
			die("poll() sleeps for ever");
		(void)!__real_poll(&fds[n - 1], 1, 1); /* a real one, the eventfd */
	}
	return ready;
}
