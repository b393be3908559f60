// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* python.c - hands each burst to a function of the caller's, such as Python's through cffi. */
#include "../xsk_internal.h"

int handle_python(struct handler *handler, struct xg_burst *burst)
{
	return handler->opts.call(handler->opts.context, burst);
}
