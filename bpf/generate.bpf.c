// SPDX-License-Identifier: GPL-2.0-only
/*
 * generate.bpf.c - makes traffic out of frames that the kernel's live test runs (BPF_F_TEST_XDP_LIVE_FRAMES,
 * 5.18) bring: each becomes the next one of many flows, and leaves by `verdict`.
 *
 * All frames of a run are brought as long as the longest flow's, and cut to their flow's length where
 * lengths vary; the kernel undoes the cut (reset_ctx() in net/bpf/test_run.c). Frames recycle their
 * memory, so the head of another flow may lie in it: every byte that varies is written anew.
 *
 * Runs follow each other, and each is on one CPU at a time though it may move: so the books have one
 * writer, and flows keep their order.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum { HEAD_BYTES = 128, WORD_BYTES = 8 };

struct head {
	__u64 word[HEAD_BYTES / WORD_BYTES];
};

struct books {
	__u64 made; /* frames that got their verdict: exact even where a signal ends a run early */
	__u32 next; /* flow */
	__u32 zero;
};

/* XDP_TX: out of the port; XDP_PASS: up the stack, as if the port had received it. */
const volatile __u32 verdict = XDP_TX;
const volatile __u32 flows = 1;
/* Of the flows' frames, where they have several lengths; else 0, and `lengths` is not read. */
const volatile __u32 longest_bytes = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct head);
} heads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32); /* bytes without FCS */
} lengths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct books);
} books SEC(".maps");

static __always_inline int cut(struct xdp_md *ctx, __u32 flow)
{
	const __u32 *length_bytes = bpf_map_lookup_elem(&lengths, &flow);

	if (!length_bytes)
		return -1;
	if (*length_bytes == longest_bytes)
		return 0;
	return (int)bpf_xdp_adjust_tail(ctx, (int)*length_bytes - (int)longest_bytes);
}

static __always_inline void write_head(struct xdp_md *ctx, const struct head *head)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 i, k;

	for (i = 0; i < HEAD_BYTES / WORD_BYTES; i++) {
		__u64 *word = data + i * WORD_BYTES;

		if ((void *)(word + 1) > end) {
			/* The last, short word, byte by byte. */
			for (k = 0; k < WORD_BYTES - 1; k++) {
				__u8 *byte = data + i * WORD_BYTES + k;

				if ((void *)(byte + 1) > end)
					break;
				*byte = ((const __u8 *)&head->word[i])[k];
			}
			break;
		}
		*word = head->word[i];
	}
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	const struct head *head;
	struct books *book;
	__u32 at = 0;

	book = bpf_map_lookup_elem(&books, &at);
	if (!book)
		return XDP_ABORTED;
	at = book->next;
	head = bpf_map_lookup_elem(&heads, &at);
	if (!head)
		return XDP_ABORTED;
	if (longest_bytes && cut(ctx, at))
		return XDP_ABORTED;
	write_head(ctx, head);
	book->next = at + 1 < flows ? at + 1 : 0;
	book->made++;
	return verdict;
}

char LICENSE[] SEC("license") = "GPL";
