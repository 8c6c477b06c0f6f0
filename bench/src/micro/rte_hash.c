/* DPDK's rte_hash with the keys of a file: adds each once, then looks them up in bulk, in the file's
 * order, and prints the cycles of the time-stamp counter that one look-up took, a line for each run.
 *
 * Arguments behind EAL's: FILE KEY_BYTES ENTRIES. A line on standard input starts a run; the end of
 * it ends the program. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>

#define BULK 32

static int fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	return 1;
}

int main(int argc, char **argv)
{
	int parsed = rte_eal_init(argc, argv);
	if (parsed < 0)
		return fail("rte_eal_init");
	argc -= parsed;
	argv += parsed;
	if (argc != 4)
		return fail("usage: FILE KEY_BYTES ENTRIES");
	size_t size = strtoul(argv[2], NULL, 10);
	FILE *file = fopen(argv[1], "rb");
	if (!file || fseek(file, 0, SEEK_END))
		return fail("keys: cannot be opened");
	size_t count = (size_t)ftell(file) / size;
	rewind(file);
	unsigned char *keys = malloc(count * size);
	if (!keys || fread(keys, size, count, file) != count)
		return fail("keys: cannot be read");
	struct rte_hash_parameters parameters = {
		.name = "connections",
		.entries = (uint32_t)strtoul(argv[3], NULL, 10),
		.key_len = (uint32_t)size,
		.hash_func = rte_hash_crc,
		.socket_id = SOCKET_ID_ANY,
	};
	struct rte_hash *hash = rte_hash_create(&parameters);
	if (!hash)
		return fail("rte_hash_create");
	for (size_t i = 0; i < count; i++)
		if (rte_hash_add_key_data(hash, keys + i * size, (void *)(i + 1)))
			return fail("rte_hash_add_key_data");
	char line[8];
	while (fgets(line, sizeof line, stdin)) {
		uint64_t found = 0;
		uint64_t start = rte_rdtsc_precise();
		for (size_t i = 0; i + BULK <= count; i += BULK) {
			const void *bulk[BULK];
			void *data[BULK];
			uint64_t hits;
			for (size_t j = 0; j < BULK; j++)
				bulk[j] = keys + (i + j) * size;
			if (rte_hash_lookup_bulk_data(hash, bulk, BULK, &hits, data) < 0)
				return fail("rte_hash_lookup_bulk_data");
			found += (uint64_t)__builtin_popcountll(hits);
		}
		uint64_t cycles = rte_rdtsc_precise() - start;
		size_t asked = count / BULK * BULK;
		if (found != asked)
			return fail("keys were not found");
		printf("%.3f\n", (double)cycles / (double)(asked ? asked : 1));
		fflush(stdout);
	}
	return 0;
}
