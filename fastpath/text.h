/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * text.h - what JSON lines are put together of.
 *
 * Writers take the place to write at and return the place behind; room for a whole line is made
 * sure of once, before the line is begun. printf() would take most of the time, so nothing here
 * calls it.
 */
#ifndef XG_TEXT_H
#define XG_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NS_PER_SECOND 1000000000ULL

/* A second since the epoch and its text; most events share it with the one before. */
struct clock {
	uint64_t second;
	char text[19];
};

static inline char *put_bytes(char *out, const char *bytes, size_t len)
{
	memcpy(out, bytes, len);
	return out + len;
}

#define PUT(out, literal) put_bytes(out, literal, sizeof(literal) - 1)

/*
 * A word of a fixed list. All of it is copied, what is too much is written over or belongs to nobody: a
 * call for as many bytes as it has takes longer than the rest of the line.
 */
struct word {
	char text[15];
	uint8_t len;
};

#define WORD(literal) { literal, sizeof(literal) - 1 }

/* The n-th word in quotation marks, null where there is none such. Needs 18 bytes of room. */
static inline char *put_word(char *out, const struct word *words, size_t n, uint32_t at)
{
	if (at >= n)
		return PUT(out, "null");
	*out++ = '"';
	memcpy(out, words[at].text, sizeof(words[at].text));
	out += words[at].len;
	*out++ = '"';
	return out;
}

/* 00 to 99: half of the divisions, and most numbers of an event need none. */
static const char two_digits[] =
	"00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445"
	"46474849505152535455565758596061626364656667686970717273747576777879808182838485868788899091"
	"9293949596979899";

static inline char *put_number(char *out, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);

	if (value < 10) {
		*out = (char)('0' + value);
		return out + 1;
	}
	if (value < 100)
		return put_bytes(out, two_digits + 2 * value, 2);
	if (value < 1000) {
		*out = (char)('0' + value / 100);
		return put_bytes(out + 1, two_digits + 2 * (value % 100), 2);
	}
	if (value < 10000) {
		out = put_bytes(out, two_digits + 2 * (value / 100), 2);
		return put_bytes(out, two_digits + 2 * (value % 100), 2);
	}
	while (value > 9) {
		at -= 2;
		memcpy(digits + at, two_digits + 2 * (value % 100), 2);
		value /= 100;
	}
	if (value)
		digits[--at] = (char)('0' + value);
	return put_bytes(out, digits + at, sizeof(digits) - at);
}

/* width digits, zeros in front. */
static inline char *put_padded(char *out, uint32_t value, int width)
{
	int i = width;

	while (i >= 2) {
		i -= 2;
		memcpy(out + i, two_digits + 2 * (value % 100), 2);
		value /= 100;
	}
	if (i)
		*out = (char)('0' + value % 10);
	return out + width;
}

static inline char *put_number_or_null(char *out, int known, uint64_t value)
{
	return known ? put_number(out, value) : PUT(out, "null");
}

static inline char *put_text_or_null(char *out, const char *text, size_t len)
{
	if (!text)
		return PUT(out, "null");
	*out++ = '"';
	out = put_bytes(out, text, len);
	*out++ = '"';
	return out;
}

/*
 * The civil date of a day since 1970-01-01, by eras of 400 years of 146,097 days that begin on a
 * first of March, so that the leap day comes last.
 */
static inline void put_date(char *out, uint64_t day)
{
	uint64_t from_march_0 = day + 719468;
	uint64_t era = from_march_0 / 146097;
	uint32_t of_era = (uint32_t)(from_march_0 % 146097);
	uint32_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint32_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	uint32_t month_from_march = (5 * of_year + 2) / 153;
	uint32_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
	uint32_t year = (uint32_t)(400 * era) + year_of_era + (month <= 2);

	out = put_padded(out, year, 4);
	*out++ = '-';
	out = put_padded(out, month, 2);
	*out++ = '-';
	put_padded(out, of_year - (153 * month_from_march + 2) / 5 + 1, 2);
}

static inline void set_clock(struct clock *clock, uint64_t second)
{
	uint32_t of_day = (uint32_t)(second % 86400);
	char *out = clock->text + 10;

	clock->second = second;
	put_date(clock->text, second / 86400);
	*out++ = 'T';
	out = put_padded(out, of_day / 3600, 2);
	*out++ = ':';
	out = put_padded(out, of_day / 60 % 60, 2);
	*out++ = ':';
	put_padded(out, of_day % 60, 2);
}

static inline char *put_time(char *out, struct clock *clock, uint64_t realtime_ns)
{
	if (clock->second != realtime_ns / NS_PER_SECOND)
		set_clock(clock, realtime_ns / NS_PER_SECOND);
	*out++ = '"';
	out = put_bytes(out, clock->text, sizeof(clock->text));
	*out++ = '.';
	out = put_padded(out, (uint32_t)(realtime_ns % NS_PER_SECOND), 9);
	return PUT(out, "Z\"");
}

#endif
