// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * json.c - events as JSON lines, for logs that run at the rate of the events.
 *
 * Writers take the place to write at and return the place behind; room for a whole line is made
 * sure of once, before the line is begun. printf() would take most of the time, so nothing here
 * calls it.
 */
#include <errno.h>
#include <string.h>

#include "xg.h"

#define NS_PER_SECOND 1000000000ULL

#define XG_TEXT(NAME, name, doc) #name,
static const char *const verdict_texts[] = { XG_VERDICTS(XG_TEXT) };
static const char *const reason_texts[] = { XG_REASONS(XG_TEXT) };
static const char *const frag_texts[] = { "no", "first", "later" };

/* A second since the epoch and its text; most events share it with the one before. */
struct clock {
	uint64_t second;
	char text[19];
};

static char *put_bytes(char *out, const char *bytes, size_t len)
{
	memcpy(out, bytes, len);
	return out + len;
}

#define PUT(out, literal) put_bytes(out, literal, sizeof(literal) - 1)

static char *put_number(char *out, uint32_t value)
{
	char digits[10];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	return put_bytes(out, digits + at, sizeof(digits) - at);
}

/* width digits, zeros in front. */
static char *put_padded(char *out, uint32_t value, int width)
{
	int i;

	for (i = width - 1; i >= 0; i--) {
		out[i] = (char)('0' + value % 10);
		value /= 10;
	}
	return out + width;
}

static char *put_number_or_null(char *out, int known, uint32_t value)
{
	return known ? put_number(out, value) : PUT(out, "null");
}

static char *put_text_or_null(char *out, const char *text, size_t len)
{
	if (!text)
		return PUT(out, "null");
	*out++ = '"';
	out = put_bytes(out, text, len);
	*out++ = '"';
	return out;
}

static char *put_name(char *out, const char *const *texts, size_t n, uint32_t at)
{
	const char *text = at < n ? texts[at] : NULL;

	return put_text_or_null(out, text, text ? strlen(text) : 0);
}

int xg_ipv4_text(const uint8_t addr[4], char out[XG_IPV4_TEXT_BYTES])
{
	char *at = out;
	int i;

	for (i = 0; i < 4; i++) {
		if (i)
			*at++ = '.';
		at = put_number(at, addr[i]);
	}
	*at = '\0';
	return (int)(at - out);
}

static char *put_hex(char *out, uint32_t group)
{
	static const char digits[] = "0123456789abcdef";

	if (group > 0xfff)
		*out++ = digits[group >> 12];
	if (group > 0xff)
		*out++ = digits[group >> 8 & 15];
	if (group > 0xf)
		*out++ = digits[group >> 4 & 15];
	*out++ = digits[group & 15];
	return out;
}

/*
 * The run of zero groups that "::" stands for: the longest, of equal ones the first, two at least.
 */
static void longest_zeros(const uint32_t groups[8], int *first, int *past)
{
	int i, start = 0;

	*first = *past = -1;
	for (i = 0; i < 8; i++) {
		if (groups[i]) {
			start = i + 1;
		} else if (i + 1 - start > *past - *first && i > start) {
			*first = start;
			*past = i + 1;
		}
	}
}

/* RFC 5952, section 4. IPv4-mapped addresses, too, in groups: the bytes that were on the wire. */
int xg_ipv6_text(const uint8_t addr[16], char out[XG_IPV6_TEXT_BYTES])
{
	uint32_t groups[8];
	char *at = out;
	int i, first, past;

	for (i = 0; i < 8; i++)
		groups[i] = (uint32_t)addr[2 * i] << 8 | addr[2 * i + 1];
	longest_zeros(groups, &first, &past);
	for (i = 0; i < 8; i++) {
		if (i == first) {
			*at++ = ':';
			*at++ = ':';
			i = past - 1;
			continue;
		}
		if (i && i != past)
			*at++ = ':';
		at = put_hex(at, groups[i]);
	}
	*at = '\0';
	return (int)(at - out);
}

static char *put_address(char *out, uint8_t family, const uint8_t addr[16])
{
	char text[XG_IPV6_TEXT_BYTES];

	switch (family) {
	case 4:
		return put_text_or_null(out, text, (size_t)xg_ipv4_text(addr, text));
	case 6:
		return put_text_or_null(out, text, (size_t)xg_ipv6_text(addr, text));
	}
	return PUT(out, "null");
}

/*
 * The civil date of a day since 1970-01-01, by eras of 400 years of 146,097 days that begin on a
 * first of March, so that the leap day comes last.
 */
static void put_date(char *out, uint64_t day)
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

static void set_clock(struct clock *clock, uint64_t second)
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

static char *put_time(char *out, struct clock *clock, uint64_t realtime_ns)
{
	if (clock->second != realtime_ns / NS_PER_SECOND)
		set_clock(clock, realtime_ns / NS_PER_SECOND);
	*out++ = '"';
	out = put_bytes(out, clock->text, sizeof(clock->text));
	*out++ = '.';
	out = put_padded(out, (uint32_t)(realtime_ns % NS_PER_SECOND), 9);
	return PUT(out, "Z\"");
}

/* Who sent what to whom: the half of a line that the packet's headers fill. */
static char *put_packet(char *out, const struct xg_event *event)
{
	int has_ports = event->has & XG_HAS_PORTS;
	int has_icmp = event->has & XG_HAS_ICMP;

	out = PUT(out, ",\"family\":");
	out = put_number_or_null(out, event->family, event->family);
	out = PUT(out, ",\"src\":");
	out = put_address(out, event->family, event->src);
	out = PUT(out, ",\"dst\":");
	out = put_address(out, event->family, event->dst);
	out = PUT(out, ",\"proto\":");
	out = put_number_or_null(out, event->has & XG_HAS_PROTO, event->proto);
	out = PUT(out, ",\"sport\":");
	out = put_number_or_null(out, has_ports, event->sport);
	out = PUT(out, ",\"dport\":");
	out = put_number_or_null(out, has_ports, event->dport);
	out = PUT(out, ",\"tcp_flags\":");
	out = put_number_or_null(out, event->has & XG_HAS_TCP_FLAGS, event->tcp_flags);
	out = PUT(out, ",\"icmp_type\":");
	out = put_number_or_null(out, has_icmp, event->icmp_type);
	out = PUT(out, ",\"icmp_code\":");
	out = put_number_or_null(out, has_icmp, event->icmp_code);
	out = PUT(out, ",\"frag\":");
	out = put_name(out, frag_texts, sizeof(frag_texts) / sizeof(*frag_texts), event->frag);
	out = PUT(out, ",\"ttl\":");
	out = put_number_or_null(out, event->family, event->ttl);
	out = PUT(out, ",\"dscp\":");
	out = put_number_or_null(out, event->family, event->dscp);
	out = PUT(out, ",\"vlan\":");
	out = put_number_or_null(out, event->vlan != XG_VLAN_NONE, event->vlan);
	out = PUT(out, ",\"ethertype\":");
	out = put_number_or_null(out, event->has & XG_HAS_ETHERTYPE, event->ethertype);
	out = PUT(out, ",\"len\":");
	return put_number(out, event->len_bytes);
}

struct name {
	const char *text;
	size_t len;
};

static struct name name_of(const char *const *texts, uint32_t n, uint32_t slot)
{
	struct name name = { .text = slot < n ? texts[slot] : NULL };

	name.len = name.text ? strlen(name.text) : 0;
	return name;
}

ptrdiff_t xg_events_json(const struct xg_event *events, uint32_t n, const struct xg_names *names,
			 int64_t realtime_offset_ns, char *out, size_t room_bytes,
			 uint32_t *consumed)
{
	struct clock clock;
	char *at = out;
	uint32_t i;

	set_clock(&clock, 0);
	for (i = 0; i < n; i++) {
		const struct xg_event *event = &events[i];
		struct name port = name_of(names->ports, names->n_ports, event->port);
		struct name rule = name_of(names->rules, names->n_rules, event->rule);

		if (room_bytes - (size_t)(at - out) < XG_JSON_LINE_BYTES + port.len + rule.len)
			break;
		at = PUT(at, "{\"ts\":");
		if (event->ts_ns)
			at = put_time(at, &clock, event->ts_ns + (uint64_t)realtime_offset_ns);
		else
			at = PUT(at, "null");
		at = PUT(at, ",\"port\":");
		at = put_text_or_null(at, port.text, port.len);
		at = PUT(at, ",\"queue\":");
		at = put_number(at, event->queue);
		at = put_packet(at, event);
		at = PUT(at, ",\"verdict\":");
		at = put_name(at, verdict_texts, XG_VERDICT_COUNT, event->verdict);
		at = PUT(at, ",\"reason\":");
		at = put_name(at, reason_texts, XG_REASON_COUNT, event->reason);
		at = PUT(at, ",\"rule\":");
		at = put_text_or_null(at, rule.text, rule.len);
		at = PUT(at, "}\n");
	}
	if (n && !i)
		return -ENOSPC;
	*consumed = i;
	return at - out;
}
