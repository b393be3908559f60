// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * main.c - commands from stdin, answers to stdout; tests/bpf/host/driver.py is the other side.
 *
 *   C  struct xg_config           a new policy: all maps are emptied, the corpus, too
 *   A  name[16], values           fills an array map
 *   T  name[16], (key, u32)...    fills a keyed map
 *   S  bytes                      adds a frame to the corpus
 *   F  struct frame_head, bytes   runs a frame; one answer
 *   Z  struct fuzz_head           fuzzes; an answer for each sample, one with the action -1 at the end
 *
 * A command is its letter and the length of what follows, each as u32. An answer is struct answer, and
 * the frame's bytes behind it where it is a sample.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sanitizer/common_interface_defs.h>

#include "host.h"

#define NAME_BYTES 16

struct command {
	uint32_t what;
	uint32_t len;
};

struct frame_head {
	uint32_t linear;
};

struct fuzz_head {
	uint64_t seed;
	uint32_t runs;
	uint32_t sample_every;
};

struct answer {
	int32_t action;
	uint32_t len;
	struct xg_event event;
};

static struct corpus corpus;
static const struct frame *running;

_Noreturn void stop(const char *why)
{
	fprintf(stderr, "host: %s\n", why);
	exit(1);
}

/* A sanitizer's report says where in the source; this says with which frame. */
static void tell_frame(void)
{
	if (!running)
		return;
	fprintf(stderr, "host: frame of %u bytes, %u of them linear: ", running->len,
		running->linear);
	for (uint32_t i = 0; i < running->len; i++)
		fprintf(stderr, "%02x", running->bytes[i]);
	fputc('\n', stderr);
}

int run_frame(const struct frame *frame, struct xg_event *event)
{
	int action;

	running = frame;
	action = run_program(frame, event);
	running = NULL;
	return action;
}

void answer(int action, const struct frame *frame, const struct xg_event *event, bool with_bytes)
{
	struct answer out = { .action = action, .len = frame->len, .event = *event };

	fwrite(&out, sizeof(out), 1, stdout);
	if (with_bytes)
		fwrite(frame->bytes, 1, frame->len, stdout);
}

static void set_config(const uint8_t *payload, uint32_t len)
{
	if (len != sizeof(*host_cfg))
		stop("a config of another size");
	for (uint32_t i = 0; i < len; i++)
		((volatile uint8_t *)host_cfg)[i] = payload[i];
	maps_reset();
	for (uint32_t i = 0; i < corpus.count; i++)
		free(corpus.frames[i]);
	free(corpus.frames);
	free(corpus.lens);
	memset(&corpus, 0, sizeof(corpus));
}

static void fill_array(const uint8_t *payload, uint32_t len)
{
	struct host_map *map = map_by_name((const char *)payload);
	uint32_t values_len = len - NAME_BYTES;

	map_allocate(map, values_len / map->value_size);
	memcpy(map->values, payload + NAME_BYTES, values_len);
}

static void fill_table(const uint8_t *payload, uint32_t len)
{
	struct host_map *map = map_by_name((const char *)payload);
	uint32_t pair = map->key_size + map->value_size;
	uint32_t count = (len - NAME_BYTES) / pair;

	map_allocate(map, count);
	map->used = count;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *from = payload + NAME_BYTES + i * pair;

		memcpy(map->keys + i * map->key_size, from, map->key_size);
		memcpy(map->values + i * map->value_size, from + map->key_size, map->value_size);
	}
}

static void add_to_corpus(const uint8_t *payload, uint32_t len)
{
	uint32_t at = corpus.count++;

	corpus.frames = realloc(corpus.frames, corpus.count * sizeof(*corpus.frames));
	corpus.lens = realloc(corpus.lens, corpus.count * sizeof(*corpus.lens));
	if (!corpus.frames || !corpus.lens)
		stop("out of memory");
	corpus.frames[at] = memcpy(xmalloc(len), payload, len);
	corpus.lens[at] = len;
}

static void one_frame(const uint8_t *payload, uint32_t len)
{
	struct frame_head head;
	struct xg_event event;
	struct frame frame;

	memcpy(&head, payload, sizeof(head));
	frame = (struct frame){ .bytes = payload + sizeof(head),
				.len = len - (uint32_t)sizeof(head),
				.linear = head.linear };
	int action = run_frame(&frame, &event);

	answer(action, &frame, &event, false);
}

static void fuzz(const uint8_t *payload)
{
	struct xg_event none = {};
	struct fuzz_head head;
	struct frame frame = {};

	memcpy(&head, payload, sizeof(head));
	random_seed(head.seed);
	frame.len = fuzz_cuts(&corpus);
	frame.len += fuzz_mutations(&corpus, head.runs, head.sample_every);
	answer(-1, &frame, &none, false);
}

static void obey(uint32_t what, const uint8_t *payload, uint32_t len)
{
	switch (what) {
	case 'C':
		set_config(payload, len);
		return;
	case 'A':
		fill_array(payload, len);
		return;
	case 'T':
		fill_table(payload, len);
		return;
	case 'S':
		add_to_corpus(payload, len);
		return;
	case 'F':
		one_frame(payload, len);
		return;
	case 'Z':
		fuzz(payload);
		return;
	}
	stop("no such command");
}

int main(void)
{
	struct command command;

	__sanitizer_set_death_callback(tell_frame);
	maps_reset();
	while (fread(&command, sizeof(command), 1, stdin) == 1) {
		uint8_t *payload = xmalloc(command.len + 1);

		if (fread(payload, 1, command.len, stdin) != command.len)
			stop("a command was cut off");
		obey(command.what, payload, command.len);
		free(payload);
	}
	fflush(stdout);
	return 0;
}
