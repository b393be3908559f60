// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* forward.c - sends each frame, unchanged, out of another port. */
#include "../xsk_internal.h"

int handle_forward(struct handler *handler, struct xg_burst *burst)
{
	return xg_burst_send(burst, NULL, handler->opts.to) < 0;
}
