// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * worker.c - one thread's loop over sockets and their handlers; see xg_xsk.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "xsk_internal.h"

enum {
	LAST_FLUSH_MS = 100,
	/* Of what a caller left in the XSKMAP there would be no end; no RX ring holds more. */
	LAST_ROUNDS = 65536 / XG_WORKER_BURST,
};

struct seat {
	struct xg_xsk *xsk;
	struct handler handler;
	int gave_up; /* its frames are recycled */
};

struct xg_worker {
	struct seat *seats;
	struct pollfd *waits; /* one a seat, the last one for `stop` */
	uint32_t n;
	int stop_fd;
	_Atomic int stop;
	struct idle idle;
	struct xg_burst *burst;
};

int xg_worker_create(struct xg_worker **out)
{
	struct xg_worker *worker;
	int err;

	worker = calloc(1, sizeof(*worker));
	if (!worker)
		return -ENOMEM;
	worker->seats = calloc(XG_WORKER_SOCKETS, sizeof(*worker->seats));
	worker->waits = calloc(XG_WORKER_SOCKETS + 1, sizeof(*worker->waits));
	err = -ENOMEM;
	if (!worker->seats || !worker->waits)
		goto free_worker;
	err = xg_burst_create(XG_WORKER_BURST, &worker->burst);
	if (err)
		goto free_worker;
	worker->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->stop_fd < 0) {
		err = -errno;
		goto free_burst;
	}
	*out = worker;
	return 0;

free_burst:
	xg_burst_free(worker->burst);
free_worker:
	free(worker->waits);
	free(worker->seats);
	free(worker);
	return err;
}

/* The row of XG_HANDLERS, and what it needs. */
static int seat_handler(struct handler *handler)
{
	const struct xg_handler_opts *opts = &handler->opts;

	switch ((enum xg_handle)opts->kind) {
	case XG_HANDLE_COUNT:
		handler->burst = handle_count;
		return 0;
	case XG_HANDLE_REFLECT:
		handler->burst = handle_reflect;
		return 0;
	case XG_HANDLE_FORWARD:
		handler->burst = handle_forward;
		return opts->to ? 0 : -EINVAL;
	case XG_HANDLE_CAPTURE:
		handler->burst = handle_capture;
		handler->idle = idle_capture;
		return opts->capture ? 0 : -EINVAL;
	case XG_HANDLE_PYTHON:
		handler->burst = handle_python;
		return opts->call ? 0 : -EINVAL;
	case XG_HANDLES:
		break;
	}
	return -EINVAL;
}

int xg_worker_add(struct xg_worker *worker, struct xg_xsk *xsk,
		  const struct xg_handler_opts *handler)
{
	struct seat *seat = &worker->seats[worker->n];
	int err;

	if (worker->n == XG_WORKER_SOCKETS)
		return -ENOSPC;
	seat->handler.opts = *handler;
	err = seat_handler(&seat->handler);
	if (err)
		return err;
	seat->xsk = xsk;
	worker->waits[worker->n].fd = xg_xsk_fd(xsk);
	worker->waits[worker->n].events = POLLIN;
	worker->idle.busy_poll |= xsk->idle.busy_poll;
	worker->n++;
	return 0;
}

/* One burst of one socket. Returns its frames, or -ECANCELED. */
static int serve(struct xg_worker *worker, struct seat *seat)
{
	int n = xg_xsk_receive(seat->xsk, worker->burst), gave_up = 0;

	if (n <= 0)
		return n;
	if (!seat->gave_up)
		gave_up = seat->handler.burst(&seat->handler, worker->burst);
	xg_burst_end(worker->burst);
	if (!gave_up)
		return n;
	seat->gave_up = 1;
	return -ECANCELED;
}

/* One burst of each socket. Returns the frames, or -ECANCELED and which socket. */
static int serve_round(struct xg_worker *worker, uint32_t *at)
{
	int frames = 0;
	uint32_t i;

	for (i = 0; i < worker->n; i++) {
		int n = serve(worker, &worker->seats[i]);

		if (n < 0) {
			*at = i;
			return n;
		}
		frames += n;
	}
	return frames;
}

static int any_filled(const struct xg_worker *worker)
{
	uint32_t i;

	for (i = 0; i < worker->n; i++)
		if (worker->seats[i].xsk->rx.size && ring_filled(&worker->seats[i].xsk->rx, 1))
			return 1;
	return 0;
}

/*
 * Sends what a busy device left in the TX rings, and feeds fill rings that ran short of chunks.
 * Returns whether some of it is to be tried again soon: no frame may wake us for it.
 */
static int tend(struct xg_worker *worker)
{
	int unsettled = 0;
	uint32_t i;

	for (i = 0; i < worker->n; i++) {
		struct seat *seat = &worker->seats[i];
		struct xg_xsk *to = seat->handler.opts.to;

		if (xsk_has_unsent(seat->xsk))
			unsettled |= xsk_kick(seat->xsk) != 0;
		if (to && xsk_has_unsent(to))
			unsettled |= xsk_kick(to) != 0;
		xsk_reclaim(seat->xsk->umem, seat->xsk->queue);
		if (to)
			xsk_reclaim(to->umem, to->queue);
		xsk_fill(seat->xsk);
		unsettled |= xsk_awaits_chunks(seat->xsk);
		if (seat->handler.idle)
			seat->handler.idle(&seat->handler);
	}
	return unsettled;
}

static int wait_for_frames(struct xg_worker *worker, uint32_t *at)
{
	uint32_t rounds = idle_rounds(&worker->idle), i;
	int found = 0, unsettled;

	if (rounds) {
		while (!found && rounds--) {
			idle_relax();
			found = any_filled(worker);
		}
		idle_spun(&worker->idle, found);
		if (found)
			return 0;
	}
	unsettled = tend(worker);
	for (i = 0; i < worker->n; i++)
		bump(&worker->seats[i].xsk->polls, 1);
	if (poll(worker->waits, worker->n + 1, unsettled ? 1 : -1) < 0 && errno != EINTR)
		return -errno;
	for (i = 0; i < worker->n; i++) {
		if (!(worker->waits[i].revents & (POLLERR | POLLHUP | POLLNVAL)))
			continue;
		worker->waits[i].fd = -1; /* it would wake us for ever */
		worker->seats[i].gave_up = 1;
		*at = i;
		return -ENETDOWN;
	}
	return 0;
}

/* -ECANCELED: a handler gave up, and the frames of the others are still to be handled. */
static int finish(struct xg_worker *worker, uint32_t *at)
{
	uint32_t rounds = LAST_ROUNDS, i;
	int frames = 1;

	while (rounds-- && frames > 0 && any_filled(worker))
		frames = serve_round(worker, at);
	if (frames < 0)
		return frames;
	tend(worker);
	for (i = 0; i < worker->n; i++) {
		struct xg_xsk *to = worker->seats[i].handler.opts.to;

		/* What the device will not take in that time is lost with the socket. */
		(void)!xg_xsk_flush(worker->seats[i].xsk, LAST_FLUSH_MS);
		if (to)
			(void)!xg_xsk_flush(to, LAST_FLUSH_MS);
	}
	return 0;
}

int xg_worker_run(struct xg_worker *worker, uint32_t *at)
{
	worker->waits[worker->n].fd = worker->stop_fd;
	worker->waits[worker->n].events = POLLIN;
	while (!atomic_load_explicit(&worker->stop, memory_order_acquire)) {
		int frames = serve_round(worker, at);

		if (frames < 0)
			return frames;
		if (!frames) {
			int err = wait_for_frames(worker, at);

			if (err)
				return err;
		}
	}
	return finish(worker, at);
}

void xg_worker_stop(struct xg_worker *worker)
{
	const uint64_t one = 1;

	atomic_store_explicit(&worker->stop, 1, memory_order_release);
	/* It can only fail when it is full, and then it wakes already. */
	(void)!write(worker->stop_fd, &one, sizeof(one));
}

void xg_worker_free(struct xg_worker *worker)
{
	if (!worker)
		return;
	close(worker->stop_fd);
	xg_burst_free(worker->burst);
	free(worker->waits);
	free(worker->seats);
	free(worker);
}
