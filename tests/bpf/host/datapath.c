// SPDX-License-Identifier: GPL-2.0-only
/* datapath.c - the program under test, word for word, and where the host finds its maps. */
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "host.h"

/* `cfg` is written before the program is loaded, which here is after: it cannot be const. */
#define const
#include "maps.h"
#undef const

#include XG_SOURCE

volatile struct xg_config *const host_cfg = &cfg;

#define LENGTH(member) (sizeof(*(member)) / sizeof(int))
#define MAP(variable) \
	{ .name = #variable, \
	  .map = &variable, \
	  .type = LENGTH(variable.type), \
	  .key_size = sizeof(*variable.key), \
	  .value_size = sizeof(*variable.value), \
	  .entries = LENGTH(variable.max_entries) }

/* All but the ring. */
struct host_map host_maps[] = {
	MAP(lines),	    MAP(rules),		MAP(mac_src),	      MAP(mac_dst),
	MAP(counters),	    MAP(rule_counters), MAP(log_counters),    MAP(log_buckets),
	MAP(sources),	    MAP(explained),	MAP(fragments),	      MAP(allowed),
	MAP(blocks),	    MAP(block_lengths), MAP(block_filter),    MAP(limits),
	MAP(limit_buckets), MAP(limit_lines),	MAP(limit_offenders), MAP(talkers),
};

const size_t host_map_count = sizeof(host_maps) / sizeof(host_maps[0]);
