// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * opens.c - calls of `xdpgw snoop openat` as JSON lines.
 *
 * A path is bytes that its process chose: nothing of it reaches the line but valid UTF-8 and
 * escapes.
 */
#include <errno.h>

#include <linux/fcntl.h>

#include "text.h"
#include "xg.h"

#define FLAG(name) { name, #name }

/* Those of several bits before those that they are made of. O_RDONLY is none of them. */
static const struct {
	uint64_t bits;
	const char *name;
} flag_names[] = {
	FLAG(O_WRONLY),	  FLAG(O_RDWR),	   FLAG(O_TMPFILE), FLAG(O_SYNC),      FLAG(O_CREAT),
	FLAG(O_EXCL),	  FLAG(O_NOCTTY),  FLAG(O_TRUNC),   FLAG(O_APPEND),    FLAG(O_NONBLOCK),
	FLAG(O_DSYNC),	  FLAG(FASYNC),	   FLAG(O_DIRECT),  FLAG(O_LARGEFILE), FLAG(O_DIRECTORY),
	FLAG(O_NOFOLLOW), FLAG(O_NOATIME), FLAG(O_CLOEXEC), FLAG(O_PATH),
};

static const struct word call_words[] = { WORD("openat"), WORD("openat2") };

static char *put_flags(char *out, uint64_t flags)
{
	char *start = out;
	size_t i;

	if ((flags & O_ACCMODE) == O_RDONLY)
		out = PUT(out, "O_RDONLY");
	for (i = 0; i < sizeof(flag_names) / sizeof(*flag_names); i++) {
		if ((flags & flag_names[i].bits) != flag_names[i].bits)
			continue;
		flags &= ~flag_names[i].bits;
		if (out != start)
			*out++ = '|';
		out = put_bytes(out, flag_names[i].name, strlen(flag_names[i].name));
	}
	if (flags) {
		if (out != start)
			*out++ = '|';
		out = put_number(out, flags);
	}
	return out;
}

int xg_open_flags_text(uint64_t flags, char out[XG_FLAGS_TEXT_BYTES])
{
	char *end = put_flags(out, flags);

	*end = '\0';
	return (int)(end - out);
}

/* Bytes of the UTF-8 sequence (RFC 3629) that a byte begins; 0: none. */
static size_t utf8_claimed(uint8_t first)
{
	if (first < 0x80)
		return 1;
	if (first < 0xc2)
		return 0;
	if (first < 0xe0)
		return 2;
	if (first < 0xf0)
		return 3;
	return first < 0xf5 ? 4 : 0;
}

/* Bytes of the sequence that stands whole and right at `text`; 0: none does. */
static size_t utf8_bytes(const uint8_t *text, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = utf8_claimed(text[0]);
	uint32_t value;
	size_t i;

	if (n < 2)
		return n;
	if (n > len)
		return 0;
	value = text[0] & (0x7fU >> n);
	for (i = 1; i < n; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (text[i] & 0x3f);
	}
	if (value < least[n] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	return n;
}

static char *put_unit(char *out, uint32_t unit)
{
	static const char digits[] = "0123456789abcdef";
	int shift;

	out = PUT(out, "\\u");
	for (shift = 12; shift >= 0; shift -= 4)
		*out++ = digits[unit >> shift & 15];
	return out;
}

/* A string of any bytes, as Python's os.fsdecode() and json.loads() agree about it. */
static char *put_escaped(char *out, const uint8_t *text, size_t len)
{
	size_t at = 0, n;

	*out++ = '"';
	while (at < len) {
		n = utf8_bytes(text + at, len - at);
		if (!n) {
			out = put_unit(out, 0xdc00 | text[at++]);
		} else if (text[at] < ' ' || text[at] == '"' || text[at] == '\\') {
			out = put_unit(out, text[at++]);
		} else {
			out = put_bytes(out, (const char *)text + at, n);
			at += n;
		}
	}
	*out++ = '"';
	return out;
}

static char *put_call(char *out, const struct xg_open *open)
{
	int known = open->has & XG_OPEN_HAS_FLAGS;
	int makes = known && (open->flags & O_CREAT || (open->flags & O_TMPFILE) == O_TMPFILE);
	size_t len = open->path_bytes < XG_PATH_BYTES ? open->path_bytes : XG_PATH_BYTES;

	out = PUT(out, ",\"call\":");
	out = put_word(out, call_words, sizeof(call_words) / sizeof(*call_words), open->call);
	out = PUT(out, ",\"dirfd\":");
	out = put_number_or_null(out, (int32_t)open->dirfd >= 0, open->dirfd);
	out = PUT(out, ",\"path\":");
	out = open->has & XG_OPEN_HAS_PATH ? put_escaped(out, open->path, len) : PUT(out, "null");
	out = PUT(out, ",\"cut\":");
	out = open->has & XG_OPEN_HAS_CUT_PATH ? PUT(out, "true") : PUT(out, "false");
	out = PUT(out, ",\"flags\":");
	if (known) {
		*out++ = '"';
		out = put_flags(out, open->flags);
		*out++ = '"';
	} else {
		out = PUT(out, "null");
	}
	out = PUT(out, ",\"mode\":");
	return put_number_or_null(out, makes, open->mode);
}

ptrdiff_t xg_opens_json(const struct xg_open *opens, uint32_t n, int64_t realtime_offset_ns,
			char *out, size_t room_bytes, uint32_t *consumed)
{
	struct clock clock;
	char *at = out;
	uint32_t i;

	set_clock(&clock, 0);
	for (i = 0; i < n; i++) {
		const struct xg_open *open = &opens[i];

		if (room_bytes - (size_t)(at - out) < XG_OPEN_LINE_BYTES)
			break;
		at = PUT(at, "{\"ts\":");
		at = put_time(at, &clock, open->ts_ns + (uint64_t)realtime_offset_ns);
		at = PUT(at, ",\"pid\":");
		at = put_number(at, open->pid);
		at = PUT(at, ",\"tid\":");
		at = put_number(at, open->tid);
		at = PUT(at, ",\"uid\":");
		at = put_number(at, open->uid);
		at = PUT(at, ",\"comm\":");
		at = put_escaped(at, open->comm, strnlen((const char *)open->comm, XG_COMM_BYTES));
		at = put_call(at, open);
		at = PUT(at, ",\"fd\":");
		at = put_number_or_null(at, !open->error, open->fd);
		at = PUT(at, ",\"errno\":");
		at = put_number_or_null(at, open->error, open->error);
		at = PUT(at, ",\"took_ns\":");
		at = put_number(at, open->took_ns);
		at = PUT(at, "}\n");
	}
	if (n && !i)
		return -ENOSPC;
	*consumed = i;
	return at - out;
}
