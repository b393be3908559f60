// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * pcapng.c - writes frames to a pcapng file (draft-ietf-opsawg-pcapng): one section, an interface
 * a port, an enhanced packet block a frame, with its queue and what else is known of it.
 *
 * Frames wait in a buffer, so that a burst costs a copy and no system call; the buffer is written
 * when it is full and when its user has nothing to do. A file always ends with a whole block: what
 * a full disk cut off is cut off the file, too, and counted as lost, and every later buffer tries
 * again. Several threads share one file, under one lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pcapng.h"

enum {
	BUFFER_BYTES = 1 << 20,
	PATIENCE_MS = 1000,
	BLOCK_SECTION = 0x0a0d0d0a,
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 6,
	LINKTYPE_ETHERNET = 1,
	OPTION_END = 0,
	OPTION_COMMENT = 1,
	OPTION_IF_NAME = 2,
	OPTION_IF_TSRESOL = 9,
	OPTION_EPB_FLAGS = 2,
	OPTION_EPB_QUEUE = 6,
	FLAGS_INBOUND = 1,
	TSRESOL_NS = 9, /* 10^-9 s */
	PACKET_HEAD_BYTES = 28,
	PACKET_TAIL_BYTES = 8 + 8 + 4 + 4, /* options flags, queue and end, length */
};

struct xg_capture {
	pthread_mutex_t lock;
	int fd; /* -1: the last try to open it anew failed */
	uint32_t snaplen;
	uint32_t keep;
	uint64_t max_bytes;
	uint64_t size; /* of the file: all of it whole blocks */
	char *path;
	uint8_t *head; /* what every file begins with */
	size_t head_bytes;
	uint8_t *buffer;
	size_t used;
	uint32_t waiting; /* frames in the buffer */
	uint32_t n_ports;
	struct xg_capture_counters counters;
};

static uint8_t *put_u16(uint8_t *at, uint32_t value)
{
	uint16_t word = (uint16_t)value;

	memcpy(at, &word, sizeof(word));
	return at + sizeof(word);
}

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static uint32_t padded(uint32_t bytes)
{
	return (bytes + 3) & ~3u;
}

static uint8_t *put_padded(uint8_t *at, const void *bytes, uint32_t n)
{
	memcpy(at, bytes, n);
	memset(at + n, 0, padded(n) - n);
	return at + padded(n);
}

static uint32_t interface_bytes(const char *name)
{
	return 16 + 4 + padded((uint32_t)strlen(name)) + 8 + 4 + 4;
}

static uint8_t *put_interface(uint8_t *at, const char *name, uint32_t snaplen)
{
	uint32_t bytes = interface_bytes(name), length = (uint32_t)strlen(name);
	const uint8_t resolution = TSRESOL_NS;

	at = put_u32(at, BLOCK_INTERFACE);
	at = put_u32(at, bytes);
	at = put_u16(at, LINKTYPE_ETHERNET);
	at = put_u16(at, 0);
	at = put_u32(at, snaplen);
	at = put_u16(at, OPTION_IF_NAME);
	at = put_u16(at, length);
	at = put_padded(at, name, length);
	at = put_u16(at, OPTION_IF_TSRESOL);
	at = put_u16(at, sizeof(resolution));
	at = put_padded(at, &resolution, sizeof(resolution));
	at = put_u32(at, OPTION_END);
	return put_u32(at, bytes);
}

/* A section header and all interfaces, in the byte order of this machine. */
static int make_head(struct xg_capture *capture, const struct xg_capture_opts *opts)
{
	static const char application[] = "xdpgw";
	uint32_t section = 24 + 4 + padded(sizeof(application) - 1) + 4 + 4, i;
	size_t bytes = section;
	uint8_t *at;

	for (i = 0; i < opts->n_ports; i++)
		bytes += interface_bytes(opts->ports[i] ? opts->ports[i] : "");
	capture->head = malloc(bytes);
	if (!capture->head)
		return -ENOMEM;
	capture->head_bytes = bytes;
	at = put_u32(capture->head, BLOCK_SECTION);
	at = put_u32(at, section);
	at = put_u32(at, 0x1a2b3c4d);
	at = put_u16(at, 1); /* version 1.0 */
	at = put_u16(at, 0);
	at = put_u32(at, UINT32_MAX); /* section length: not said */
	at = put_u32(at, UINT32_MAX);
	at = put_u16(at, 4); /* shb_userappl */
	at = put_u16(at, sizeof(application) - 1);
	at = put_padded(at, application, sizeof(application) - 1);
	at = put_u32(at, OPTION_END);
	at = put_u32(at, section);
	for (i = 0; i < opts->n_ports; i++)
		at = put_interface(at, opts->ports[i] ? opts->ports[i] : "", opts->snaplen);
	return 0;
}

/*
 * A write that a signal cut short goes on, as the file is to end with a whole block. But somebody wants us to
 * end: who reads a pipe and takes nothing for a second is not waited for, else only SIGKILL would end it.
 */
static int write_all(int fd, const uint8_t *bytes, size_t n)
{
	struct pollfd room = { .fd = fd, .events = POLLOUT };

	while (n) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			bytes += done;
			n -= (size_t)done;
		}
		if (n && poll(&room, 1, PATIENCE_MS) == 0)
			return -EPIPE;
	}
	return 0;
}

/* All or nothing: after an error the file ends where it ended before. */
static int append(struct xg_capture *capture, const uint8_t *bytes, size_t n)
{
	int err = write_all(capture->fd, bytes, n);

	if (!err) {
		capture->size += n;
		capture->counters.bytes += n;
	} else if (ftruncate(capture->fd, (off_t)capture->size) ||
		   lseek(capture->fd, (off_t)capture->size, SEEK_SET) < 0) {
		/* Not even that: no more into this one, a new one is begun. */
		close(capture->fd);
		capture->fd = -1;
	}
	return err;
}

static void old_name(const struct xg_capture *capture, uint32_t age, char out[PATH_MAX])
{
	if (age)
		snprintf(out, PATH_MAX, "%s.%u", capture->path, age);
	else
		snprintf(out, PATH_MAX, "%s", capture->path);
}

/* Each file takes the name of the next older one; the oldest goes. */
static void rotate(struct xg_capture *capture)
{
	char from[PATH_MAX], to[PATH_MAX];
	uint32_t age;

	if (capture->fd >= 0)
		close(capture->fd);
	capture->fd = -1;
	for (age = capture->keep; age > 0; age--) {
		old_name(capture, age - 1, from);
		old_name(capture, age, to);
		/* A gap in the numbers, or an older file that stays, costs no frame. */
		if (rename(from, to) && errno != ENOENT)
			capture->counters.error = -errno;
	}
	if (!capture->keep)
		unlink(capture->path);
}

static int begin_file(struct xg_capture *capture)
{
	/* Frames are nobody else's business. */
	int fd, err;

	if (!capture->path)
		return -EPIPE; /* the descriptor that was given took no more */
	fd = open(capture->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	capture->fd = fd;
	capture->size = 0;
	err = append(capture, capture->head, capture->head_bytes);
	if (err && capture->fd >= 0) {
		close(capture->fd);
		capture->fd = -1;
	}
	return err;
}

void pcapng_write(struct xg_capture *capture)
{
	int err = 0;

	if (!capture->used)
		return;
	if (capture->fd >= 0 && capture->max_bytes && capture->size > capture->head_bytes &&
	    capture->size + capture->used > capture->max_bytes)
		rotate(capture);
	if (capture->fd < 0)
		err = begin_file(capture);
	if (!err)
		err = append(capture, capture->buffer, capture->used);
	if (err)
		capture->counters.lost += capture->waiting;
	else
		capture->counters.frames += capture->waiting;
	capture->counters.error = err;
	capture->used = 0;
	capture->waiting = 0;
}

/* What a descriptor that was given holds, so that a full disk costs no more than what is written then. */
static uint64_t size_of(int fd, size_t written)
{
	off_t end = lseek(fd, 0, SEEK_CUR);

	return end < 0 ? written : (uint64_t)end; /* a pipe is cut nowhere */
}

int xg_capture_open(const struct xg_capture_opts *opts, struct xg_capture **out)
{
	struct xg_capture *capture;
	struct stat there;
	int err = -ENOMEM;

	if (opts->path && strlen(opts->path) > PATH_MAX - 12)
		return -ENAMETOOLONG;
	capture = calloc(1, sizeof(*capture));
	if (!capture)
		return -ENOMEM;
	capture->fd = -1;
	capture->snaplen = opts->snaplen;
	capture->keep = opts->keep;
	capture->max_bytes = opts->max_bytes;
	capture->n_ports = opts->n_ports;
	capture->path = opts->path ? strdup(opts->path) : NULL;
	capture->buffer = malloc(BUFFER_BYTES);
	if ((opts->path && !capture->path) || !capture->buffer)
		goto free_capture;
	err = make_head(capture, opts);
	if (err)
		goto free_capture;
	if (!opts->path) {
		capture->fd = opts->fd;
		err = write_all(capture->fd, capture->head, capture->head_bytes);
		capture->size = size_of(capture->fd, capture->head_bytes);
	} else {
		if (!stat(capture->path, &there) && S_ISREG(there.st_mode)) {
			if (there.st_size)
				rotate(capture);
			else
				unlink(capture->path); /* not to take over its owner and mode */
		}
		err = begin_file(capture);
	}
	if (err)
		goto free_capture;
	pthread_mutex_init(&capture->lock, NULL);
	*out = capture;
	return 0;

free_capture:
	free(capture->head);
	free(capture->buffer);
	free(capture->path);
	free(capture);
	return err;
}

void xg_capture_counters(struct xg_capture *capture, struct xg_capture_counters *out)
{
	pthread_mutex_lock(&capture->lock);
	*out = capture->counters;
	pthread_mutex_unlock(&capture->lock);
}

void xg_capture_close(struct xg_capture *capture)
{
	if (!capture)
		return;
	pcapng_write(capture);
	if (capture->fd >= 0)
		close(capture->fd);
	pthread_mutex_destroy(&capture->lock);
	free(capture->head);
	free(capture->buffer);
	free(capture->path);
	free(capture);
}

void pcapng_lock(struct xg_capture *capture)
{
	pthread_mutex_lock(&capture->lock);
}

void pcapng_unlock(struct xg_capture *capture)
{
	pthread_mutex_unlock(&capture->lock);
}

uint32_t pcapng_keeps(const struct xg_capture *capture, uint32_t length)
{
	return length < capture->snaplen ? length : capture->snaplen;
}

static uint32_t comment_bytes(const struct pcapng_packet *packet)
{
	return packet->comment ? 4 + padded((uint32_t)strlen(packet->comment)) : 0;
}

static uint32_t packet_bytes(const struct pcapng_packet *packet)
{
	return PACKET_HEAD_BYTES + padded(packet->kept) + comment_bytes(packet) + PACKET_TAIL_BYTES;
}

uint8_t *pcapng_begin(struct xg_capture *capture, const struct pcapng_packet *packet)
{
	uint32_t bytes = packet_bytes(packet);
	uint8_t *at;

	if (capture->used + bytes > BUFFER_BYTES)
		pcapng_write(capture);
	at = capture->buffer + capture->used;
	at = put_u32(at, BLOCK_PACKET);
	at = put_u32(at, bytes);
	at = put_u32(at, packet->port);
	at = put_u32(at, (uint32_t)(packet->ts_ns >> 32));
	at = put_u32(at, (uint32_t)packet->ts_ns);
	at = put_u32(at, packet->kept);
	return put_u32(at, packet->length);
}

void pcapng_end(struct xg_capture *capture, const struct pcapng_packet *packet, uint8_t *at)
{
	uint32_t bytes = packet_bytes(packet);

	memset(at, 0, padded(packet->kept) - packet->kept);
	at += padded(packet->kept) - packet->kept;
	if (packet->comment) {
		uint32_t length = (uint32_t)strlen(packet->comment);

		at = put_u16(at, OPTION_COMMENT);
		at = put_u16(at, length);
		at = put_padded(at, packet->comment, length);
	}
	at = put_u16(at, OPTION_EPB_FLAGS);
	at = put_u16(at, 4);
	at = put_u32(at, FLAGS_INBOUND);
	at = put_u16(at, OPTION_EPB_QUEUE);
	at = put_u16(at, 4);
	at = put_u32(at, packet->queue);
	at = put_u32(at, OPTION_END);
	put_u32(at, bytes);
	capture->used += bytes;
	capture->waiting++;
}
