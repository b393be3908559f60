// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * object.c - an ELF image becomes maps and programs; see xg.h.
 *
 * libbpf speaks through one callback for the whole process. It is set once, and each thread points
 * it at the object that it is working on; what is said outside of that is dropped.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "xg.h"

struct text {
	char *bytes; /* '\0'-terminated; NULL: empty */
	size_t len;
	size_t room;
	int debug; /* also what libbpf says of each of its steps */
};

/* A map by the name in its source: bpf_map__reuse_fd() gives a map the name of the kept one. */
struct named_map {
	char *name;
	struct bpf_map *map;
};

struct xg_object {
	struct bpf_object *bpf;
	struct named_map *maps;
	size_t n_maps;
	struct text log;
	int loaded;
};

static _Thread_local struct text *listener;

/* Out of memory cuts the log short and fails nothing: a log is never worth more than the work. */
static void text_vappend(struct text *text, const char *format, va_list args)
{
	va_list again;
	int len;

	va_copy(again, args);
	len = vsnprintf(NULL, 0, format, again);
	va_end(again);
	if (len < 0)
		return;
	if (text->room - text->len <= (size_t)len) {
		size_t room = 2 * text->room + (size_t)len + 1;
		char *bytes = realloc(text->bytes, room);

		if (!bytes)
			return;
		text->bytes = bytes;
		text->room = room;
	}
	vsnprintf(text->bytes + text->len, text->room - text->len, format, args);
	text->len += (size_t)len;
}

static void text_append(struct text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void text_append(struct text *text, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	text_vappend(text, format, args);
	va_end(args);
}

static int hear_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	if (listener && (level != LIBBPF_DEBUG || listener->debug))
		text_vappend(listener, format, args);
	return 0;
}

static void listen_for(struct text *log)
{
	static atomic_flag set = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&set))
		libbpf_set_print(hear_libbpf);
	listener = log;
}

static void free_maps(struct xg_object *object)
{
	size_t i;

	for (i = 0; i < object->n_maps; i++)
		free(object->maps[i].name);
	free(object->maps);
}

/* On error what was taken is free_maps()'s to give back. */
static int name_maps(struct xg_object *object)
{
	struct bpf_map *map = NULL;
	size_t n = 0;

	while ((map = bpf_object__next_map(object->bpf, map)))
		n++;
	object->maps = calloc(n + 1, sizeof(*object->maps));
	if (!object->maps)
		return -ENOMEM;
	while ((map = bpf_object__next_map(object->bpf, map))) {
		char *name;

		if (bpf_map__is_internal(map))
			continue;
		name = strdup(bpf_map__name(map));
		if (!name)
			return -ENOMEM;
		object->maps[object->n_maps++] = (struct named_map){ .name = name, .map = map };
	}
	return 0;
}

static struct bpf_map *find_map(const struct xg_object *object, const char *name)
{
	size_t i;

	for (i = 0; i < object->n_maps; i++) {
		if (strcmp(object->maps[i].name, name) == 0)
			return object->maps[i].map;
	}
	return NULL;
}

int xg_object_open(const void *elf, size_t len_bytes, const char *name, const char *btf_path,
		   struct xg_object **out)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = name, .btf_custom_path = btf_path);
	struct xg_object *object;
	int err;

	object = calloc(1, sizeof(*object));
	if (!object)
		return -ENOMEM;
	listen_for(&object->log);
	object->bpf = bpf_object__open_mem(elf, len_bytes, &opts);
	err = object->bpf ? 0 : -errno;
	listen_for(NULL);
	if (err)
		goto free_object;
	err = name_maps(object);
	if (err)
		goto close_bpf;
	*out = object;
	return 0;

close_bpf:
	free_maps(object);
	bpf_object__close(object->bpf);
free_object:
	free(object->log.bytes);
	free(object);
	return err;
}

void xg_object_keep_debug(struct xg_object *object)
{
	object->log.debug = 1;
}

const char *xg_object_log(const struct xg_object *object)
{
	return object->log.bytes ? object->log.bytes : "";
}

/*
 * Offset and size of a global, as BTF tells them. libbpf has filled in both at open, where the
 * compiler leaves zeros. -ENOENT: no such symbol in that section.
 */
static int find_global(const struct bpf_object *bpf, const char *section, const char *symbol,
		       const struct btf_var_secinfo **out)
{
	const struct btf *btf = bpf_object__btf(bpf);
	const struct btf_var_secinfo *var;
	const struct btf_type *type;
	int id, i;

	if (!btf)
		return -ENOENT;
	id = btf__find_by_name_kind(btf, section, BTF_KIND_DATASEC);
	if (id < 0)
		return id;
	type = btf__type_by_id(btf, (__u32)id);
	var = btf_var_secinfos(type);
	for (i = 0; i < btf_vlen(type); i++, var++) {
		const struct btf_type *of = btf__type_by_id(btf, var->type);
		const char *name = of ? btf__name_by_offset(btf, of->name_off) : NULL;

		if (name && strcmp(name, symbol) == 0) {
			*out = var;
			return 0;
		}
	}
	return -ENOENT;
}

int xg_object_set_rodata(struct xg_object *object, const char *symbol, const void *data,
			 size_t len_bytes)
{
	const struct btf_var_secinfo *var;
	const char *image;
	struct bpf_map *map;
	char *changed;
	size_t room;
	int err;

	if (object->loaded)
		return -EBUSY;
	err = find_global(object->bpf, ".rodata", symbol, &var);
	if (err)
		return err;
	if (var->size != len_bytes)
		return -EMSGSIZE;
	map = bpf_object__find_map_by_name(object->bpf, ".rodata");
	if (!map)
		return -ENOENT;
	image = bpf_map__initial_value(map, &room);
	if (!image || var->offset > room || room - var->offset < len_bytes)
		return -ENOENT;
	/* The section is set as a whole; other constants (strings, tables) share it. */
	changed = malloc(room);
	if (!changed)
		return -ENOMEM;
	memcpy(changed, image, room);
	memcpy(changed + var->offset, data, len_bytes);
	err = bpf_map__set_initial_value(map, changed, room);
	free(changed);
	return err;
}

int xg_object_map_set_entries(struct xg_object *object, const char *name, uint32_t entries)
{
	struct bpf_map *map = find_map(object, name);

	if (!map)
		return -ENOENT;
	if (object->loaded)
		return -EBUSY;
	return bpf_map__set_max_entries(map, entries);
}

static int same(struct text *log, const char *map, const char *what, uint32_t has, uint32_t wants)
{
	if (has == wants)
		return 1;
	text_append(log, "map '%s': %s: wanted %u, got %u\n", map, what, wants, has);
	return 0;
}

int xg_object_map_reuse(struct xg_object *object, const char *name, int fd)
{
	struct bpf_map *map = find_map(object, name);
	struct text *log = &object->log;
	struct xg_map_info has;
	int err, ok = 1;

	if (!map)
		return -ENOENT;
	if (object->loaded)
		return -EBUSY;
	err = xg_map_info(fd, &has);
	if (err)
		return err;
	/*
	 * bpf_map__reuse_fd() takes over whatever it is given: the program would learn by
	 * misreading.
	 */
	ok &= same(log, name, "type", has.type, bpf_map__type(map));
	ok &= same(log, name, "key bytes", has.key_bytes, bpf_map__key_size(map));
	ok &= same(log, name, "value bytes", has.value_bytes, bpf_map__value_size(map));
	ok &= same(log, name, "flags", has.flags, bpf_map__map_flags(map));
	/*
	 * What the program declares is a placeholder for some maps; only too few entries do harm.
	 */
	if (has.max_entries < bpf_map__max_entries(map))
		ok &= same(log, name, "max entries", has.max_entries, bpf_map__max_entries(map));
	if (!ok)
		return -EMEDIUMTYPE;
	listen_for(log);
	err = bpf_map__reuse_fd(map, fd);
	listen_for(NULL);
	return err;
}

int xg_object_prog_set_flags(struct xg_object *object, const char *name, uint32_t flags)
{
	struct bpf_program *prog = bpf_object__find_program_by_name(object->bpf, name);

	if (!prog)
		return -ENOENT;
	if (object->loaded)
		return -EBUSY;
	return bpf_program__set_flags(prog, flags);
}

int xg_object_load(struct xg_object *object)
{
	int err;

	if (object->loaded)
		return -EBUSY;
	listen_for(&object->log);
	err = bpf_object__load(object->bpf);
	listen_for(NULL);
	/* libbpf refuses a second load, after a failed one, too. */
	object->loaded = 1;
	return err;
}

const char *xg_object_map_name(const struct xg_object *object, uint32_t index)
{
	return index < object->n_maps ? object->maps[index].name : NULL;
}

static int lent(int fd)
{
	/* libbpf says -1, -EINVAL or -ENOENT by version where there is no fd yet. */
	return fd < 0 ? -EBADF : fd;
}

int xg_object_map_fd(const struct xg_object *object, const char *name)
{
	const struct bpf_map *map = find_map(object, name);

	return map ? lent(bpf_map__fd(map)) : -ENOENT;
}

int xg_object_prog_fd(const struct xg_object *object, const char *name)
{
	const struct bpf_program *prog = bpf_object__find_program_by_name(object->bpf, name);

	return prog ? lent(bpf_program__fd(prog)) : -ENOENT;
}

void xg_object_close(struct xg_object *object)
{
	if (!object)
		return;
	free_maps(object);
	bpf_object__close(object->bpf);
	free(object->log.bytes);
	free(object);
}
