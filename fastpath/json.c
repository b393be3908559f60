// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * json.c - events as JSON lines, for logs that run at the rate of the events.
 */
#include <errno.h>
#include <string.h>

#include "text.h"
#include "xg.h"

#define XG_WORD(NAME, name, doc) WORD(#name),
static const struct word verdict_words[] = { XG_VERDICTS(XG_WORD) };
static const struct word reason_words[] = { XG_REASONS(XG_WORD) };
static const struct word frag_words[] = { WORD("no"), WORD("first"), WORD("later") };

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
	if (family != 4 && family != 6)
		return PUT(out, "null");
	*out++ = '"';
	out += family == 4 ? xg_ipv4_text(addr, out) : xg_ipv6_text(addr, out);
	*out++ = '"';
	return out;
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
	out = put_word(out, frag_words, sizeof(frag_words) / sizeof(*frag_words), event->frag);
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
		at = put_word(at, verdict_words, XG_VERDICT_COUNT, event->verdict);
		at = PUT(at, ",\"reason\":");
		at = put_word(at, reason_words, XG_REASON_COUNT, event->reason);
		at = PUT(at, ",\"rule\":");
		at = put_text_or_null(at, rule.text, rule.len);
		at = PUT(at, "}\n");
	}
	if (n && !i)
		return -ENOSPC;
	*consumed = i;
	return at - out;
}
