// SPDX-License-Identifier: GPL-2.0-only
/*
 * generate.bpf.c - makes traffic out of frames that the kernel's live test runs (BPF_F_TEST_XDP_LIVE_FRAMES,
 * 5.18) bring: each becomes the next one of many flows, and leaves by `verdict`.
 *
 * Frames of such a run recycle their memory, so the head of another flow may lie in it: every byte that
 * varies is written anew. The counter is per CPU, as a run stays on one.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum { HEAD_BYTES = 128, WORD_BYTES = 8 };

struct head {
	__u64 word[HEAD_BYTES / WORD_BYTES];
};

/* XDP_TX: out of the port; XDP_PASS: up the stack, as if the port had received it. */
const volatile __u32 verdict = XDP_TX;
const volatile __u32 flows = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct head);
} heads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} next_flow SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct head *head;
	__u32 at = 0, i;
	__u64 *next;

	next = bpf_map_lookup_elem(&next_flow, &at);
	if (!next)
		return XDP_ABORTED;
	at = *next;
	*next = at + 1 < flows ? at + 1 : 0;
	head = bpf_map_lookup_elem(&heads, &at);
	if (!head)
		return XDP_ABORTED;
	for (i = 0; i < HEAD_BYTES / WORD_BYTES; i++) {
		__u64 *word = data + i * WORD_BYTES;

		if ((void *)(word + 1) > end) {
			/* The last, short word, byte by byte. */
			for (__u32 k = 0; k < WORD_BYTES - 1; k++) {
				__u8 *byte = data + i * WORD_BYTES + k;

				if ((void *)(byte + 1) > end)
					break;
				*byte = head->word[i] >> (8 * k);
			}
			break;
		}
		*word = head->word[i];
	}
	return verdict;
}

char LICENSE[] SEC("license") = "GPL";
