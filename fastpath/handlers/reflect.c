// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * reflect.c - swaps the MAC addresses and sends each frame back where it came from: by the socket that
 * it came by, or by another one on the same queue.
 */
#include <string.h>

#include "../xsk_internal.h"

enum { MAC_BYTES = 6 };

int handle_reflect(struct handler *handler, struct xg_burst *burst)
{
	uint8_t mac[MAC_BYTES];
	uint32_t i;

	for (i = 0; i < burst->n; i++) {
		uint8_t *frame = burst->area + burst->addr[i];

		memcpy(mac, frame, MAC_BYTES);
		memcpy(frame, frame + MAC_BYTES, MAC_BYTES);
		memcpy(frame + MAC_BYTES, mac, MAC_BYTES);
	}
	return xg_burst_send(burst, NULL, handler->opts.to ? handler->opts.to : burst->from) < 0;
}
