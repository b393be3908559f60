/* Files of addresses that a fuzzer makes, read with little room; see test_netset.py. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xg_netset.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static const char *const pieces[] = {
	"10.0.0.1", "255.255.255.255", "0.0.0.0", "::", "::1", "2001:db8::ffff", "::ffff:1.2.3.4",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8:1234:5678:9abc:def0:12.34.56.78",
	"/", "/0", "/8", "/24", "/32", "/64", "/128", "/129", "/999", "-", " - ", "#", " ", "\t",
	"\n", "\n", "\n", "\r\n", ":", ".", "1", "0", "f",
};

static uint64_t state;

static uint32_t below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 20) % n);
}

static void *column(size_t rows, size_t size)
{
	void *out = malloc(rows * size);

	CHECK(out);
	return out;
}

/* Exactly as long as it says, so that a sanitizer sees each byte too far. */
static struct xg_netset columns(uint32_t room)
{
	return (struct xg_netset){
		.v4_addr = column(room, 4), .v4_bits = column(room, 1),
		.v6_hi = column(room, 8), .v6_lo = column(room, 8), .v6_bits = column(room, 1),
		.odd_line = column(room, 8), .odd_offset = column(room, 8),
		.room = room, .line = 1,
	};
}

static void drop(struct xg_netset *set)
{
	free(set->v4_addr);
	free(set->v4_bits);
	free(set->v6_hi);
	free(set->v6_lo);
	free(set->v6_bits);
	free(set->odd_line);
	free(set->odd_offset);
}

static uint64_t ones(unsigned int n)
{
	return n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

/* What may be said of rows whatever the text is; a sum that room must not change. */
static uint64_t checked(const struct xg_netset *set, size_t len_bytes, uint64_t *lines)
{
	uint64_t sum = 0;

	CHECK(set->n4 <= set->room && set->n6 <= set->room && set->n_odd <= set->room);
	for (uint32_t i = 0; i < set->n4; i++) {
		CHECK(set->v4_bits[i] <= 32);
		CHECK((set->v4_addr[i] & ones(32u - set->v4_bits[i])) == 0);
		sum += set->v4_addr[i] * UINT64_C(31) + set->v4_bits[i];
	}
	for (uint32_t i = 0; i < set->n6; i++) {
		unsigned int bits = set->v6_bits[i];

		CHECK(bits <= 128);
		CHECK((set->v6_lo[i] & ones(128 - bits)) == 0);
		CHECK(bits >= 64 || (set->v6_hi[i] & ones(64 - bits)) == 0);
		sum += (set->v6_hi[i] ^ set->v6_lo[i]) * 37 + bits;
	}
	for (uint32_t i = 0; i < set->n_odd; i++) {
		CHECK(set->odd_line[i] > *lines && set->odd_line[i] < set->line);
		CHECK(set->odd_offset[i] < len_bytes && set->odd_offset[i] < set->offset);
		*lines = set->odd_line[i];
		sum += set->odd_line[i] * 41 + set->odd_offset[i];
	}
	return sum;
}

static uint64_t read_all(const char *text, size_t len_bytes, uint32_t room)
{
	struct xg_netset set = columns(room);
	uint64_t sum = 0, lines = 0;

	while (set.offset < len_bytes) {
		uint64_t before = set.offset;

		set.n4 = set.n6 = set.n_odd = 0;
		CHECK(xg_netset_read(text, len_bytes, &set) == 0);
		CHECK(set.offset > before && set.offset <= len_bytes);
		sum += checked(&set, len_bytes, &lines);
	}
	drop(&set);
	return sum;
}

static void one_case(void)
{
	char made[4096];
	size_t len = 0;
	char *text;

	for (uint32_t n = below(60); n > 0; n--) {
		const char *piece = pieces[below(sizeof(pieces) / sizeof(*pieces))];

		memcpy(made + len, piece, strlen(piece));
		len += strlen(piece);
	}
	if (len && below(2)) /* a byte of any value anywhere */
		made[below((uint32_t)len)] = (char)below(256);
	if (len && below(4) == 0) /* half-written */
		len = below((uint32_t)len);
	text = malloc(len ? len : 1);
	CHECK(text);
	memcpy(text, made, len);
	CHECK(read_all(text, len, XG_NETSET_LINE_ROWS) == read_all(text, len, 4096));
	free(text);
}

int main(int argc, char **argv)
{
	uint32_t cases = argc > 1 ? (uint32_t)atoi(argv[1]) : 1000;

	state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	for (uint32_t n = 0; n < cases; n++)
		one_case();
	printf("%u cases\n", cases);
	return 0;
}
