// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fuzz.c - frames that nobody sends, through both faces of the program, and what must hold for each.
 *
 *   - no sanitizer has a finding
 *   - explaining and logging decide alike, and tell the same of the packet
 *   - the log's books balance: due = written + lost + limited, and the ring saw just these
 *   - the packet is counted once, and once more for its source if it has one
 */
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define ROOM 16384
#define HEADERS 96 /* where nearly all that is decided upon lies */
#define WHOLE_CUTS 256 /* of a long frame, cuts behind this many bytes meet nothing new */

static uint64_t counted(const char *name, uint32_t stride, uint32_t first, uint32_t count)
{
	const struct host_map *map = map_by_name(name);
	uint64_t sum = 0, one;

	for (uint32_t i = first; i < first + count; i++) {
		memcpy(&one, map->values + (size_t)i * stride, sizeof(one));
		sum += one;
	}
	return sum;
}

static uint64_t logged(enum xg_log_counter which)
{
	return counted("log_counters", sizeof(uint64_t), which, 1);
}

static uint64_t packets_counted(void)
{
	uint32_t slots = XG_VERDICT_COUNT * XG_REASON_COUNT;

	return counted("counters", sizeof(struct xg_counter), host_cfg->port * slots, slots);
}

/* What all sources sent, those that gave way to others, too. */
static uint64_t packets_of_sources(void)
{
	const struct host_map *map = map_by_name("talkers");
	const struct xg_talker_set *set = (const void *)map->values;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < map->entries; i++, set++) {
		sum += set->gone_packets;
		for (uint32_t way = 0; way < XG_TALKER_WAYS; way++)
			sum += set->talker[way].packets;
	}
	return sum;
}

static void check_log(const struct ring_use *use, const struct xg_event *explained)
{
	struct xg_event told = use->event;
	uint64_t due = logged(XG_LOG_DUE), written = logged(XG_LOG_WRITTEN);
	uint64_t lost = logged(XG_LOG_LOST), limited = logged(XG_LOG_LIMITED);

	if (due != written + lost + limited)
		stop("the log's books do not balance");
	if (use->reserved != use->submitted)
		stop("a reserved record was not submitted");
	if (use->reserved + use->refused > 1)
		stop("a packet was told twice");
	if (!use->submitted)
		return;
	told.ts_ns = 0;
	if (memcmp(&told, explained, sizeof(told)))
		stop("an event tells other than the explanation, or has bytes that nobody wrote");
}

/* Runs a frame through both faces of the program, and through the checks. */
static int run_checked(const struct frame *frame, struct xg_event *event)
{
	uint64_t before = packets_counted(), of_sources = packets_of_sources();
	struct xg_event nothing;
	struct ring_use use;
	int explaining, logging;

	explaining = run_frame(frame, event);
	use = ring_take();
	if (use.reserved + use.refused)
		stop("an explanation was logged");
	host_cfg->explain = 0;
	clock_advance(random_word() % 1000000);
	logging = run_frame(frame, &nothing);
	use = ring_take();
	if (explaining != logging)
		stop("explaining and logging decide differently");
	if (packets_counted() != before + 2)
		stop("a packet was not counted once");
	if (packets_of_sources() != of_sources + !!event->family)
		stop("a packet was not counted once for its source");
	check_log(&use, event);
	host_cfg->explain = 1;
	return explaining;
}

/* Each frame cut at each length: as a shorter frame, and as one that goes on in another buffer. */
uint64_t fuzz_cuts(const struct corpus *corpus)
{
	struct xg_event event;
	uint64_t runs = 0;

	for (uint32_t i = 0; i < corpus->count; i++) {
		uint32_t len = corpus->lens[i];

		for (uint32_t cut = 0; cut <= len; cut++) {
			struct frame frame = { .bytes = corpus->frames[i],
					       .len = cut,
					       .linear = cut };

			if (cut == WHOLE_CUTS && len > WHOLE_CUTS)
				cut = len - 1;
			run_checked(&frame, &event);
			frame.len = len;
			run_checked(&frame, &event);
			runs += 2;
		}
	}
	return runs;
}

static uint8_t telling_byte(void)
{
	static const uint8_t bytes[] = {
		0x00, 0x01, 0x02, 0x04, 0x05, 0x08, 0x0f, 0x44, 0x45, 0x46, 0x4f, 0x50, 0x55,
		0x60, 0x6f, 0x7f, 0x80, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0xfe, 0xff, 1,	6,
		17,   43,   44,	  50,	51,   58,   59,	  60,	132,  135,  139,  140,
	};

	return bytes[random_word() % sizeof(bytes)];
}

static uint32_t below(uint32_t bound)
{
	return bound ? random_word() % bound : 0;
}

static uint32_t somewhere(uint32_t len)
{
	return below(random_word() % 8 && len > HEADERS ? HEADERS : len);
}

/* A length field: what is really left behind this place, or a little more or less. */
static void write_length(uint8_t *bytes, uint32_t len, uint32_t at)
{
	uint32_t value = len - at + 8 - below(32);

	if (at + 2 > len)
		return;
	bytes[at] = value >> 8;
	bytes[at + 1] = value;
}

/* Opens a gap and fills it with what stands at it, so that headers come twice. */
static uint32_t repeat(uint8_t *bytes, uint32_t len, uint32_t at)
{
	uint32_t count = (1 + below(8)) * 4;

	if (at + count > len || len + count > ROOM)
		return len;
	memmove(bytes + at + count, bytes + at, len - at);
	return len + count;
}

static uint32_t mutate(uint8_t *bytes, uint32_t len, const struct corpus *corpus)
{
	uint32_t at = somewhere(len), other, count;

	switch (below(9)) {
	case 0:
		return below(len + 1);
	case 1:
		for (count = below(64); count && len < ROOM; count--)
			bytes[len++] = random_word();
		return len;
	case 2:
		return repeat(bytes, len, at);
	case 3:
		write_length(bytes, len, at & ~1U);
		return len;
	case 4:
		other = below(corpus->count);
		if (at < corpus->lens[other]) {
			count = corpus->lens[other] < len ? corpus->lens[other] : len;
			memcpy(bytes + at, corpus->frames[other] + at, count - at);
		}
		return len;
	case 5:
	case 6:
		if (len)
			bytes[at] = telling_byte();
		return len;
	case 7:
		if (len)
			bytes[at] ^= 1 << below(8);
		return len;
	default:
		if (len)
			bytes[at] = random_word();
		return len;
	}
}

static uint32_t next_frame(uint8_t *bytes, const struct corpus *corpus)
{
	uint32_t len, pick;

	if (below(16) == 0) {
		len = below(160);
		for (uint32_t i = 0; i < len; i++)
			bytes[i] = random_word();
		return len;
	}
	pick = below(corpus->count);
	len = corpus->lens[pick];
	memcpy(bytes, corpus->frames[pick], len);
	for (uint32_t n = below(5); n; n--)
		len = mutate(bytes, len, corpus);
	return len;
}

/* Mutated frames; some go on in another buffer. */
uint64_t fuzz_mutations(const struct corpus *corpus, uint32_t runs, uint32_t sample_every)
{
	static uint8_t bytes[ROOM];
	struct xg_event event;

	for (uint32_t run = 0; run < runs; run++) {
		struct frame frame = { .bytes = bytes, .len = next_frame(bytes, corpus) };
		bool sampled = sample_every && run % sample_every == 0;
		int action;

		frame.linear = frame.len;
		if (!sampled && below(4) == 0)
			frame.linear = below(2) ? somewhere(frame.len) : below(frame.len + 1);
		if (!sampled) {
		}
		action = run_checked(&frame, &event);
		if (sampled)
			answer(action, &frame, &event, true);
	}
	return runs;
}
