/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * xg_xsk.h - AF_XDP: frames between the driver and user space, through rings in shared memory.
 *
 * A UMEM is one area of memory, cut into chunks of equal size. A chunk holds a frame, or a part of
 * a long one. What moves is never the frame but a descriptor of its chunk, and at any time a chunk
 * has one owner:
 *
 *        +--------------------------- free -------------------------------+
 *        | (struct xg_umem: a stack of chunks nobody uses)                |
 *        v                                                                |
 *   [fill ring] --> kernel, driver --> [RX ring]                          |
 *     receiving: the kernel's to write into |                             |
 *                                           v                             |
 *                                   held (struct xg_burst) --- drop ------+
 *                                           |                             |
 *                                           | send, forward               |
 *                                           v                             |
 *   [completion ring] <-- driver, kernel <-- [TX ring]                    |
 *        |            sending: the kernel's to read from                  |
 *        +----------------------------------------------------------------+
 *
 * Invariant, after every function of this file: free + receiving + held + sending = all chunks of
 * the UMEM. xg_umem_ledger() tells the four; a build with -DXG_DEBUG also keeps the owner of each
 * chunk, and ends the process where a chunk is about to have two.
 *
 * The objects, each owned by whoever opened it and closed in reverse:
 *
 *   struct xg_umem     the memory. Outlives its sockets. One thread works with it and with all of
 *                      its sockets: there is no lock in here.
 *   struct xg_xsk      one AF_XDP socket, bound to one queue of one port, with its RX and TX ring.
 *                      The first socket of a UMEM on a queue brings the queue's fill and completion
 *                      ring; further ones on the same queue share them (one target each). Sockets
 *                      of one UMEM on several ports pass frames to each other without a copy.
 *   struct xg_burst    the frames that were received last and are held. A lease: it ends with
 *                      xg_burst_end(), which recycles what nobody claimed.
 *   struct xg_worker   a loop over sockets, each with a handler: receive, handle, recycle, and
 *                      sleep when there is nothing to do.
 *
 * Order of stopping: first take the socket out of the XSKMAP, so that the program stops sending
 * frames to it; then stop its worker, which handles what is in the RX ring; then xg_xsk_close().
 *
 * Privileges: CAP_NET_RAW for the socket (in the port's network namespace), RLIMIT_MEMLOCK or
 * CAP_IPC_LOCK for the UMEM. Errors are as in xg.h; a function that makes several system calls
 * tells by *call which one failed, as the man pages write it, such as "bind(XDP_ZEROCOPY)".
 *
 * Sources: Documentation/networking/af_xdp.rst, net/xdp/xsk.c and net/xdp/xsk_queue.h of the kernel.
 */
#ifndef XG_XSK_H
#define XG_XSK_H

#include <stddef.h>
#include <stdint.h>

#include "abi.h"

#ifndef XG_MUST_CHECK
#define XG_MUST_CHECK
#endif

/* ---- UMEM ------------------------------------------------------------------------------------ */

enum xg_umem_limits {
	/* The kernel's XDP_UMEM_MIN_CHUNK_SIZE. Larger ones: a power of two, at most a page. */
	XG_CHUNK_BYTES_MIN = 2048,
	/* XDP_PACKET_HEADROOM: the kernel leaves so much free before each received frame. */
	XG_CHUNK_HEADROOM_BYTES = 256,
	XG_CHUNKS_MAX = 1 << 22, /* 8 GiB of the smallest ones; what is more is a mistake */
};

struct xg_umem;

/* Who owns how many chunks; see the invariant above. */
struct xg_ledger {
	uint32_t chunks;
	uint32_t free;
	uint32_t receiving; /* fill rings, the kernel, RX rings */
	uint32_t held;
	uint32_t sending; /* TX rings, the kernel, completion rings */
};

/*
 * Maps the area: from huge pages if there are any free, else from normal ones. The kernel counts it
 * against RLIMIT_MEMLOCK when the first socket is opened, not now. -EINVAL: chunk_bytes is not a
 * power of two from XG_CHUNK_BYTES_MIN to the page's size, or chunks is 0 or over XG_CHUNKS_MAX.
 * -ENOMEM.
 */
XG_MUST_CHECK int xg_umem_create(uint32_t chunks, uint32_t chunk_bytes, struct xg_umem **out);

/* The area's first byte; addresses of frames are offsets from it. Valid until xg_umem_free(). */
uint8_t *xg_umem_area(const struct xg_umem *umem);
size_t xg_umem_size_bytes(const struct xg_umem *umem);
uint32_t xg_umem_chunk_bytes(const struct xg_umem *umem);
/* 1: huge pages, 0: normal ones. */
int xg_umem_hugepages(const struct xg_umem *umem);
void xg_umem_ledger(const struct xg_umem *umem, struct xg_ledger *out);
/* NULL is fine. All sockets of it must be closed. */
void xg_umem_free(struct xg_umem *umem);

/* ---- Sockets --------------------------------------------------------------------------------- */

enum xg_xsk_mode { XG_XSK_AUTO, XG_XSK_COPY, XG_XSK_ZERO_COPY };

struct xg_xsk_opts {
	uint32_t ifindex;
	uint32_t queue;
	/* Descriptors: powers of two. rx or tx may be 0 (no such ring), not both. */
	uint32_t rx;
	uint32_t tx;
	/*
	 * Of the queue, by its first socket: fill at least twice rx, or the kernel runs out of chunks
	 * while frames wait in the RX ring; completion at least the sum of all tx of the queue.
	 */
	uint32_t fill;
	uint32_t completion;
	uint32_t mode; /* enum xg_xsk_mode; a further socket of a UMEM has the mode of the first */
	uint32_t
		multi_buffer; /* 1: XDP_USE_SG (6.6), frames over several chunks; as of the first */
	uint32_t busy_poll_us; /* SO_BUSY_POLL with SO_PREFER_BUSY_POLL (5.11); 0: off */
	uint32_t busy_budget; /* SO_BUSY_POLL_BUDGET, packets */
	uint32_t retry_ms; /* how long to try bind() again while the queue is still EBUSY */
};

struct xg_xsk;

/* The kernel's struct xdp_statistics, in packets and descriptors, since the socket was opened. */
struct xg_xdp_statistics {
	uint64_t rx_dropped; /* for other reasons than the two below, such as longer than a chunk */
	uint64_t rx_invalid_descs; /* in the fill ring */
	uint64_t tx_invalid_descs;
	uint64_t rx_ring_full;
	uint64_t rx_fill_ring_empty;
	uint64_t tx_ring_empty;
};

/* Since the socket was opened. Only grows; another thread may read it at any time. */
struct xg_xsk_counters {
	uint64_t rx_packets;
	uint64_t rx_bytes;
	uint64_t tx_packets; /* put into the TX ring */
	uint64_t tx_bytes;
	uint64_t dropped; /* received and recycled: what was not sent */
	uint64_t tx_full; /* to be sent from here, and recycled as the TX ring stayed full */
	uint64_t kicks; /* system calls made to send */
	uint64_t polls; /* times it slept */
};

/* Descriptors in the rings now; size 0: no such ring. */
struct xg_ring_levels {
	uint32_t rx, rx_size;
	uint32_t tx, tx_size;
	uint32_t fill, fill_size;
	uint32_t completion, completion_size;
};

/*
 * Makes the socket, its rings and, as the first of its UMEM on this queue, the queue's fill and
 * completion ring; binds it; fills the fill ring. The socket gets frames once it is in an XSKMAP
 * that a program on the port redirects to.
 *
 * `beside`: a socket of the same UMEM on the same queue, whose fill and completion rings are shared;
 * else NULL. Mode AUTO tries zero-copy, then copy; xg_xsk_zero_copy() tells which one it got.
 *
 * -EINVAL: a ring size is no power of two, or bind() says so. -ENOENT: no such queue... the kernel
 * says -EINVAL for it. -EPERM: no CAP_NET_RAW. -ENOBUFS: RLIMIT_MEMLOCK. -EBUSY: another process
 * has a socket on this queue. -EOPNOTSUPP: the mode. -ENODEV: no such port. -ENETDOWN: it is down.
 * -ENOSPC: too few free chunks for the fill ring.
 */
XG_MUST_CHECK int xg_xsk_open(struct xg_umem *umem, const struct xg_xsk_opts *opts,
			      struct xg_xsk *beside, const char **call, struct xg_xsk **out);

/* Lent fd for poll(2), and to be put into an XSKMAP. */
int xg_xsk_fd(const struct xg_xsk *xsk);
int xg_xsk_zero_copy(const struct xg_xsk *xsk);
/*
 * The socket's pending error, once: 0, or -ENETDOWN as its port is gone, which poll() does not tell
 * (xsk_poll() of the kernel). Any thread may ask.
 */
XG_MUST_CHECK int xg_xsk_error(const struct xg_xsk *xsk);
XG_MUST_CHECK int xg_xsk_statistics(const struct xg_xsk *xsk, struct xg_xdp_statistics *out);
void xg_xsk_counters(const struct xg_xsk *xsk, struct xg_xsk_counters *out);
void xg_xsk_levels(const struct xg_xsk *xsk, struct xg_ring_levels *out);

/*
 * Closes the socket, and with the last one of a queue its fill and completion ring. Chunks that the
 * kernel had come back to the UMEM; those of frames that it had not sent, with the last one. NULL is
 * fine.
 */
void xg_xsk_close(struct xg_xsk *xsk);

/* ---- Bursts ---------------------------------------------------------------------------------- */

enum xg_fate { XG_UNCLAIMED, XG_DROPPED, XG_SENT, XG_COPIED /* a copy was sent */ };

/*
 * Frames that were received together. Frame i begins at area + addr[i] and is length[i] bytes long.
 * With multi_buffer it may lie in several chunks, which are parts[first[i]] .. parts[first[i + 1] -
 * 1], in order; without, it lies in one.
 */
struct xg_part {
	uint64_t addr;
	uint32_t length;
	uint32_t zero;
};

struct xg_burst {
	uint32_t n; /* frames */
	uint32_t room; /* frames at most */
	uint32_t multi_buffer; /* 1: first and parts are valid */
	uint32_t zero;
	uint64_t *addr; /* (n,) bytes from the area's start */
	uint32_t *length; /* (n,) bytes of the whole frame */
	uint8_t *fate; /* (n,) enum xg_fate */
	uint32_t *first; /* (n + 1,), with multi_buffer only */
	struct xg_part *parts; /* (first[n],), with multi_buffer only */
	struct xg_xsk *from; /* that it was received from; NULL: ended */
	uint8_t *area; /* of the UMEM */
};

/* -EINVAL: room is 0 or over 4096. -ENOMEM. */
XG_MUST_CHECK int xg_burst_create(uint32_t room, struct xg_burst **out);
/* NULL is fine. It must have ended. */
void xg_burst_free(struct xg_burst *burst);

/*
 * Takes what is in the RX ring, at most the burst's room, and never waits. Returns the number of
 * frames, 0: none. A frame whose last chunk is not there yet stays in the ring; one in more chunks
 * than can be sent (18) is counted and recycled. -EBUSY: the burst has not ended, or another one of
 * this socket.
 */
XG_MUST_CHECK int xg_xsk_receive(struct xg_xsk *xsk, struct xg_burst *burst);

/*
 * Claims frames: those with mask[i] != 0 (mask NULL: all) that are unclaimed. Dropping recycles them
 * at the end; sending puts them into the TX ring of `to`, which may be any socket: of another UMEM,
 * then the bytes are copied. Returns how many it claimed and sent; what does not fit into the TX ring,
 * even after a kick, is dropped and counted as tx_full of `to`.
 */
XG_MUST_CHECK int xg_burst_drop(struct xg_burst *burst, const uint8_t *mask);
XG_MUST_CHECK int xg_burst_send(struct xg_burst *burst, const uint8_t *mask, struct xg_xsk *to);

/* Recycles what is not sent, fills the fill ring, and kicks what was sent. Twice is fine. */
void xg_burst_end(struct xg_burst *burst);

/*
 * Copies the first header_bytes of each frame to out, (n, header_bytes), zeros behind a shorter one.
 * What was sent from here (XG_SENT) is the kernel's: its bytes may be another frame's by now.
 */
void xg_burst_headers(const struct xg_burst *burst, uint32_t header_bytes, uint8_t *out);

/* Copies frame i as a whole, as long as it was not sent; `out` has room for length[i] bytes. */
void xg_burst_copy(const struct xg_burst *burst, uint32_t i, uint8_t *out);

/*
 * The loop of a reader in one call: ends the burst, receives, and waits for the first frame, at most
 * timeout_ms (-1: for ever). It spins as long as that pays, and then sleeps in poll(). Returns the
 * number of frames; 0: time is up. -EINTR: a signal came.
 */
XG_MUST_CHECK int xg_xsk_next(struct xg_xsk *xsk, struct xg_burst *burst, int timeout_ms);

/*
 * Sends n frames, frame i being lengths[i] bytes at bytes + offsets[i], by copying them into free
 * chunks. Returns how many went into the TX ring, also as *done, fewer where it is full or chunks are
 * out. -EMSGSIZE: frame *done is longer than a chunk, or, with multi_buffer, than 17 chunks (the kernel's
 * MAX_SKB_FRAGS); or shorter than 14 bytes. Frames before it are sent.
 */
XG_MUST_CHECK int xg_xsk_send(struct xg_xsk *xsk, const uint8_t *bytes, const size_t *offsets,
			      const uint32_t *lengths, uint32_t n, uint32_t *done);

/* Kicks until the kernel has taken all, or timeout_ms is over. Returns what is left in TX. */
XG_MUST_CHECK int xg_xsk_flush(struct xg_xsk *xsk, int timeout_ms);

/* ---- Handlers and workers -------------------------------------------------------------------- */

/* A pcapng file that threads share; see pcapng.c. */
struct xg_capture;

struct xg_capture_opts {
	const char *path; /* NULL: to fd, which becomes the capture's own */
	int32_t fd;
	uint32_t snaplen; /* bytes of a frame that are kept */
	uint32_t keep; /* old files: path.1 is the youngest */
	uint64_t max_bytes; /* a file over it is rotated; 0: never */
	const char *const *ports; /* names, by the port slot of the opener */
	uint32_t n_ports;
};

struct xg_capture_counters {
	uint64_t frames; /* written */
	uint64_t bytes; /* of the file, all rotations together */
	uint64_t lost; /* frames that could not be written */
	int32_t error; /* of the last write: 0, or -errno as long as it fails (such as -ENOSPC) */
	uint32_t zero;
};

/* Opens the file, and rotates one that is there. -errno of open(2), or of write(2) to fd. */
XG_MUST_CHECK int xg_capture_open(const struct xg_capture_opts *opts, struct xg_capture **out);
/* Locked: workers and control may call it. */
void xg_capture_counters(struct xg_capture *capture, struct xg_capture_counters *out);
/* NULL is fine. Writes what waits, and closes. All workers that use it must have stopped. */
void xg_capture_close(struct xg_capture *capture);

/* What is done with a socket's frames. */
struct xg_handler_opts {
	uint32_t kind; /* enum xg_handle of abi.h */
	uint32_t port; /* CAPTURE: slot of the port that frames come from */
	struct xg_xsk *to; /* FORWARD: sent from there; of the same worker */
	struct xg_capture *capture; /* CAPTURE */
	/* PYTHON: called with each burst, which it may claim frames of; != 0: gives up, see below */
	int (*call)(void *context, struct xg_burst *burst);
	void *context;
};

struct xg_worker;

enum xg_worker_limits {
	XG_WORKER_SOCKETS = 1024,
	XG_WORKER_BURST = 64, /* frames a round and socket, of a handler in C */
};

XG_MUST_CHECK int xg_worker_create(struct xg_worker **out);

/* Before it runs. -ENOSPC: more than XG_WORKER_SOCKETS. -EINVAL: the options lack what kind needs. */
XG_MUST_CHECK int xg_worker_add(struct xg_worker *worker, struct xg_xsk *xsk,
				const struct xg_handler_opts *handler);

/*
 * Runs on the calling thread until xg_worker_stop(): round by round one burst a socket, adaptive
 * spinning, then poll(). Then handles what is in the RX rings, sends what is in the TX rings (at most
 * 100 ms), and returns 0. -ECANCELED: a handler gave up; -ENETDOWN: the port of a socket is gone. Then
 * *at says which socket, in the order added; nothing of it is handled any more, and the loop goes on
 * for the others when it is called again.
 */
XG_MUST_CHECK int xg_worker_run(struct xg_worker *worker, uint32_t *at);

/* Any thread, also before it runs and twice; xg_worker_run() returns soon. */
void xg_worker_stop(struct xg_worker *worker);
/* NULL is fine. It must not run. */
void xg_worker_free(struct xg_worker *worker);

/* ---- Generator ------------------------------------------------------------------------------- */

struct xg_generate_opts {
	uint64_t count; /* frames to send; 0: until stopped */
	uint64_t interval_ns_q16; /* time a frame, ns << 16: 0 for as fast as it goes */
	uint64_t stop_after_ns; /* 0: no limit of time */
	const volatile uint32_t *stop; /* != 0: end soon; NULL: nobody asks */
	uint64_t *progress; /* frames sent so far, for another thread to read; NULL: nobody asks */
};

struct xg_generate_result {
	uint64_t frames; /* that the kernel has sent (completed) */
	uint64_t bytes;
	uint64_t duration_ns;
	uint64_t kicks;
};

/*
 * Sends n frames in order, again and again from the first one on, until opts->count are out; at the
 * end waits for all completions. Frames are given as in xg_xsk_send(), and laid once into chunks, so
 * that a round costs no copy in user space. The UMEM must have n free chunks. -EINVAL: no frame, or no
 * TX ring. -EMSGSIZE as in xg_xsk_send(), without multi_buffer. -ENOSPC: too few chunks. -ETIMEDOUT:
 * frames are out, and for 1 s none of them was completed; `out` is written.
 */
XG_MUST_CHECK int xg_generate(struct xg_xsk *xsk, const uint8_t *bytes, const size_t *offsets,
			      const uint32_t *lengths, uint32_t n,
			      const struct xg_generate_opts *opts, struct xg_generate_result *out);

#endif
