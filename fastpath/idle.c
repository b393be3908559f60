// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * idle.c - to spin or to sleep, when the RX ring is empty.
 *
 * Where the driver's receive work runs on another core, looking again for some microseconds is
 * cheaper than a sleep, which costs this side a system call and the other side a wake-up. Where it
 * runs on this very core, looking keeps the frames from coming (measured on veth: 0.2 million a
 * second against 2.7). Nobody tells which of both it is, but spinning does: it pays, or it does not.
 *
 * So the number of rounds is learnt. A spin that found a frame doubles it, one that did not halves
 * it twice, and one that is down to nothing sleeps at once, and tries a short spin again now and
 * then.
 */
#include "xsk_internal.h"

enum {
	/*
	 * Looking takes the cache line of the producer's index away from who writes it, with every
	 * frame in generic mode. So there are pauses between two looks: 64, about 3 us where
	 * measured, brought 3.9 million frames a second in generic mode where 8 brought 2.9.
	 */
	PAUSES = 64,
	/* About 90 us: longer than the gap between two batches of a loaded driver. */
	SPIN_MAX = 32,
	SPIN_MIN = 4,
	/* Sleeps between two tries. At 2.7 million frames a second a try costs 1 % so. */
	SLEEPS_A_TRY = 64,
};

uint32_t idle_rounds(struct idle *idle)
{
	if (idle->busy_poll)
		return 0;
	if (idle->spin)
		return idle->spin;
	return ++idle->sleeps % SLEEPS_A_TRY ? 0 : SPIN_MIN;
}

void idle_spun(struct idle *idle, int found)
{
	if (!found)
		idle->spin = idle->spin / 4 < SPIN_MIN ? 0 : idle->spin / 4;
	else if (idle->spin < SPIN_MAX)
		idle->spin = idle->spin ? idle->spin * 2 : SPIN_MIN;
}

static void pause_once(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

void idle_relax(void)
{
	for (int i = 0; i < PAUSES; i++)
		pause_once();
}
