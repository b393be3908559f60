/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rows.h - from what lookups found to the rule that decides.
 *
 * Four things keep the cost from growing with rules:
 *   - Up to 31 rules are the lookup's result itself, and there are no rows.
 *   - Up to 512 rules are dense: a row is one line of bits, and lines are ANDed whole.
 *   - A row has a summary, a bit for each word of 64 rules, and only words whose summaries meet are
 *     looked at (Baboescu and Varghese, SIGCOMM 2001). Control places rules so that they seldom do:
 *     those that leave the same dimensions open, and those of neighbouring addresses, share words.
 *     Words are in the order of their first rule, so that the search ends at the first word that
 *     cannot better what was found.
 *   - What few flows find is found again and again: each CPU keeps the rule of some combinations of
 *     rows. Which rule a combination finds never changes while the image lives, as a set that changes
 *     gives addresses other rows.
 *
 * `limit` rules do not decide: they have words of their own, behind the others and in their order, and
 * those before the deciding rule are asked once that is known.
 */
#ifndef XG_ROWS_H
#define XG_ROWS_H

#include "limit.h"
#include "lookup.h"

#define WORDS_AT_ONCE 4

enum match_result {
	MATCH_NONE = -1,
	MATCH_ERROR = -2,
};

/* What the lookups of a packet found, and how far the search is. As short as can be: so is the stack. */
struct found {
	__u32 row[XG_DIM_DST4 + 1]; /* lines of rows, of dimensions that have one */
	union {
		__u32 meta; /* class, then line of its row */
		__u32 bits; /* narrow: the rules */
	};
	__u32 any; /* all values ORed: XG_REF_NODE is set where one is none */
	__u64 left; /* words of the summary that were not searched */
	__u64 limits; /* of one word, those that the packet satisfies and that were not asked yet */
	__u32 best; /* the first rule found so far */
	__u8 summary; /* word of the summaries to be searched */
	__u8 word; /* that `limits` is of */
};

/*
 * How many bits are set, for which BPF has no instruction. Without a branch, as branches would make
 * 64 numbers on 64 paths, each with a rest of the program of its own to the verifier. `opaque` keeps
 * clang from seeing what is counted, of which it might make branches or a table again.
 */
static __always_inline __u32 ones(__u64 bits)
{
	opaque(bits);
	bits -= bits >> 1 & 0x5555555555555555;
	bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
	bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return bits * 0x0101010101010101 >> 56;
}

/* Position of the lowest bit set. */
static __always_inline __u32 lowest_bit(__u64 bits)
{
	return ones((bits & -bits) - 1) & 63;
}

/* Those words of a row's summary that stand in the row: neither empty nor full. */
static __always_inline __u64 standing(const struct xg_row *row, __u32 summary)
{
	return row->some[summary] & ~row->all[summary];
}

/*
 * The summary that is searched, read anew each time: the verifier would go on in three ways for each comparison
 * with a number that it has in a register, and never come back to one.
 */
static __always_inline __u32 summary_of(const struct found *found)
{
	return *(const volatile __u8 *)&found->summary & 3;
}

/* found->word of the row at a line, of which `bit` of the summary says that it is not empty; 0 if there is no line. */
static __always_inline __u64 row_word(const struct found *found, __u32 at, __u64 bit)
{
	const struct xg_row *row = line_at(at);
	const struct xg_line *line = (const void *)row;
	__u32 n = XG_ROW_HEAD;

	if (!row)
		return 0;
	if (cfg.dense)
		return line->word[found->word % XG_LINE_WORDS];
	if (row->all[summary_of(found)] & bit)
		return ~0ULL;
	n += ones(standing(row, summary_of(found)) & (bit - 1));
	if (cfg.words > 64 && summary_of(found) > 0)
		n += ones(standing(row, 0));
	if (cfg.words > 128 && summary_of(found) > 1)
		n += ones(standing(row, 1));
	line = line_at(at + n / XG_LINE_WORDS);
	return line ? line->word[n % XG_LINE_WORDS] : 0;
}

/* The number of the rule at a position. */
static __always_inline __u32 rule_at(__u32 position)
{
	const __u16 *numbers;

	if (!cfg.order)
		return position;
	numbers = line_at(cfg.order + position / XG_LINE_RULES);
	return numbers ? numbers[position % XG_LINE_RULES] : XG_NO_RULE;
}

/* One word of each row, by dimension. */
#define WORD(DIM) \
	if (cfg.use[XG_DIM_##DIM] == XG_USE_ROW) \
	bits &= row_word(found, found->row[XG_DIM_##DIM], bit)

#define EACH_ROW(X) \
	X(ON); \
	X(VLAN); \
	X(ETHERTYPE); \
	X(PROTO); \
	X(SPORT); \
	X(DPORT); \
	X(TCP_FLAGS); \
	X(ICMP); \
	X(LEN); \
	X(TTL); \
	X(DSCP); \
	X(FRAG); \
	X(MAC_SRC); \
	X(MAC_DST); \
	X(SRC4); \
	X(DST4)

/* The rules of a word that the packet satisfies; `bit` is the word's in the summary. */
static __always_inline __u64 word_of(const struct found *found, __u64 bit)
{
	__u64 bits = ~0ULL;

	if (cfg.meta)
		bits &= row_word(found, found->meta, bit);
	EACH_ROW(WORD);
	return bits;
}

/*
 * Searches the words of found->summary that are found->left for a rule before found->best, and puts it there.
 * Returns whether some are left still. A function of its own, and of few turns, so that it is verified once and
 * soon. What was found is kept in memory, as the summary is, and for the same reason.
 */
__noinline int search(struct found *found)
{
	__u64 some;

	if (!found)
		return 0;
	some = found->left;
	for (int i = 0; i < WORDS_AT_ONCE && some; i++) {
		__u64 bit = some & -some, bits;
		__u32 word = summary_of(found) * 64 + lowest_bit(bit);

		opaque(word);
		if (word >= XG_ROW_WORDS || cfg.first[word] >= found->best)
			return 0;
		bits = word_of(found, bit);
		if (bits) {
			__u32 number = rule_at(word * 64 + lowest_bit(bits));

			if (number < found->best)
				found->best = number;
		}
		some ^= bit;
		opaque(some);
	}
	found->left = some;
	return !!some;
}

/* ANDs the words of a dense row. Returns -1 if there is no such row. */
static __always_inline int and_line(__u32 at, __u64 bits[XG_DENSE_WORDS])
{
	const struct xg_line *line = line_at(at);

	if (!line)
		return -1;
#pragma unroll
	for (int w = 0; w < XG_DENSE_WORDS; w++)
		if (w < cfg.deciding)
			bits[w] &= line->word[w];
	return 0;
}

#define AND_LINE(DIM) \
	if (cfg.use[XG_DIM_##DIM] == XG_USE_ROW && and_line(found->row[XG_DIM_##DIM], bits)) \
	return MATCH_ERROR

/*
 * The first rule that is no limit, of dense rows. A function of its own, so that its bits are on the stack of nobody
 * else.
 */
__noinline int match_dense(struct found *found)
{
	__u64 bits[XG_DENSE_WORDS], first = 0;
	__u32 position = 0;

	if (!found)
		return MATCH_ERROR;
	__builtin_memset(bits, 0xff, sizeof(bits));
	if (cfg.meta && and_line(found->meta, bits))
		return MATCH_ERROR;
	EACH_ROW(AND_LINE);
#pragma unroll
	for (int w = 0; w < XG_DENSE_WORDS; w++) {
		if (first || w >= cfg.deciding)
			break;
		first = bits[w];
		position = w * 64;
	}
	return first ? (int)rule_at(position + lowest_bit(first)) : MATCH_NONE;
}

/* ANDs the summaries of a row. Returns -1 if there is no such row. */
static __always_inline int summarize(__u32 at, __u64 some[XG_SUMMARIES])
{
	const struct xg_row *row = line_at(at);

	if (!row)
		return -1;
	for (__u32 s = 0; s < XG_SUMMARIES && s * 64 < cfg.words; s++)
		some[s] &= row->some[s];
	return 0;
}

#define SUMMARIZE(DIM) \
	if (cfg.use[XG_DIM_##DIM] == XG_USE_ROW && summarize(found->row[XG_DIM_##DIM], some)) \
	return MATCH_ERROR

/*
 * Where on this CPU the rule of a combination of rows is, or would be. Nothing guards it: a CPU judges one
 * packet after the other, as the kernel runs XDP programs with bottom halves off.
 */
#define MIX_IN(DIM) \
	if (cfg.use[XG_DIM_##DIM] == XG_USE_ROW) \
	hash = (hash ^ found->row[XG_DIM_##DIM]) * GOLDEN_RATIO

static __always_inline struct xg_known *known_of(const struct found *found)
{
	__u64 hash = found->meta * GOLDEN_RATIO;
	__u32 at;

	EACH_ROW(MIX_IN);
	at = hash >> 32 & (XG_KNOWN_SLOTS - 1);
	return bpf_map_lookup_elem(&known, &at);
}

#define COMPARE(DIM) \
	if (cfg.use[XG_DIM_##DIM] == XG_USE_ROW && n < XG_KNOWN_ROWS) \
	differ |= known->row[n++] ^ found->row[XG_DIM_##DIM]

static __always_inline bool is_known(const struct xg_known *known, const struct found *found)
{
	__u32 n = 0, differ = 0;

	if (cfg.meta)
		differ = known->row[n++] ^ found->meta;
	EACH_ROW(COMPARE);
	return !differ;
}

#define KEEP(DIM) \
	if (cfg.use[XG_DIM_##DIM] == XG_USE_ROW && n < XG_KNOWN_ROWS) \
	known->row[n++] = found->row[XG_DIM_##DIM]

static __always_inline void make_known(struct xg_known *known, const struct found *found)
{
	__u32 n = 0;

	if (cfg.meta)
		known->row[n++] = found->meta;
	EACH_ROW(KEEP);
	known->number = found->best;
}

/* `explain` judges as if every limit had room. */
static __always_inline bool asks_limits(void)
{
	return cfg.limits && !cfg.explain;
}

/* Words of a summary that are below a word of the row. */
static __always_inline __u64 words_below(__u32 summary, __u32 word)
{
	if (word >= (summary + 1) * 64)
		return ~0ULL;
	return word > summary * 64 ? (1ULL << (word & 63)) - 1 : 0;
}

/*
 * The first of found->limits, before the rule found->best, that the packet is over the rate of; MATCH_NONE if
 * none.
 */
__noinline int first_over(struct xdp_md *ctx, struct found *found, __u64 packet)
{
	if (!found)
		return MATCH_ERROR;
	for (int i = 0; i < 64 && found->limits; i++) {
		__u64 bits = found->limits, lowest = bits & -bits;
		__u32 number = lowest_bit(bits);
		const struct xg_rule *rule;

		opaque(lowest);
		found->limits = bits ^ lowest;
		if (!cfg.narrow)
			number = rule_at(found->word * 64 + number);
		if (number >= found->best)
			return MATCH_NONE;
		rule = bpf_map_lookup_elem(&rules, &number);
		if (rule && over_rate(ctx, rule->target, packet))
			return number;
	}
	return MATCH_NONE;
}

/* Moves the limits of the next word that is found->left to found->limits. False: none is left. */
__noinline int next_limits(struct found *found)
{
	__u64 bit;

	if (!found || !found->left)
		return 0;
	bit = found->left & -found->left;
	opaque(bit);
	found->left ^= bit;
	found->word = summary_of(found) * 64 + lowest_bit(bit);
	found->limits = word_of(found, bit);
	return 1;
}

/* As first_over(), of the limits in rows whose summaries leave these words. */
static __always_inline int limit_rows(struct xdp_md *ctx, struct found *found,
				      const __u64 some[XG_SUMMARIES], __u64 packet)
{
	for (__u32 s = 0; s < XG_SUMMARIES; s++) {
		if ((s + 1) * 64 <= cfg.deciding || s * 64 >= cfg.words)
			continue;
		found->summary = s;
		found->left = some[s] & words_below(s, cfg.words) & ~words_below(s, cfg.deciding);
		for (int i = 0; i < XG_MAX_LIMITS / 64 && next_limits(found); i++) {
			int over = first_over(ctx, found, packet);

			if (over != MATCH_NONE)
				return over;
		}
	}
	return MATCH_NONE;
}

/* Puts the first rule that is no limit into found->best. */
static __always_inline void search_rows(struct found *found, const __u64 some[XG_SUMMARIES])
{
	for (__u32 s = 0; s < XG_SUMMARIES && s * 64 < cfg.deciding; s++) {
		int more;

		found->summary = s;
		found->left = some[s] & words_below(s, cfg.deciding);
		more = !!found->left;
		for (int i = 0; i < 64 && more; i += WORDS_AT_ONCE)
			more = search(found);
	}
}

/* The rule that rows find. */
static __always_inline int match_rows(struct xdp_md *ctx, const struct pkt *pkt,
				      struct found *found)
{
	__u64 some[XG_SUMMARIES] = { ~0ULL, ~0ULL, ~0ULL };
	struct xg_known *known = NULL;
	int over;

	if (cfg.dense) {
		int number = match_dense(found);

		if (number == MATCH_ERROR || !asks_limits())
			return number;
		if (number >= 0)
			found->best = number;
		over = limit_rows(ctx, found, some, limit_packet(pkt));
		return over == MATCH_NONE ? number : over;
	}
	if (cfg.meta && summarize(found->meta, some))
		return MATCH_ERROR;
	EACH_ROW(SUMMARIZE);
	if (cfg.known &&
	    (some[0] | (cfg.words > 64 ? some[1] : 0) | (cfg.words > 128 ? some[2] : 0)))
		known = known_of(found);
	if (known && is_known(known, found)) {
		found->best = known->number;
	} else {
		search_rows(found, some);
		if (known)
			make_known(known, found);
	}
	if (asks_limits()) {
		over = limit_rows(ctx, found, some, limit_packet(pkt));
		if (over != MATCH_NONE)
			return over;
	}
	return found->best < XG_NO_RULE ? found->best : MATCH_NONE;
}

/* The rule that a lookup's result is. */
static __always_inline int match_narrow(struct xdp_md *ctx, const struct pkt *pkt,
					struct found *found)
{
	__u32 deciding = found->bits;

	if (cfg.limits)
		deciding &= cfg.narrow_deciding;
	if (asks_limits()) {
		int over;

		found->best = deciding ? lowest_bit(deciding) : XG_NO_RULE;
		found->limits = found->bits & cfg.narrow_limits;
		over = first_over(ctx, found, limit_packet(pkt));
		if (over != MATCH_NONE)
			return over;
	}
	return deciding ? lowest_bit(deciding) : MATCH_NONE;
}

#endif
