/* count.c: tells callgrind what to count. A shared library for bench/micro/operations.py.
 *
 * Outside of valgrind both functions do nothing.
 */
#include <valgrind/callgrind.h>

void begin(void) { CALLGRIND_ZERO_STATS; }

/* Writes what was counted since begin() into a file of its own, under this name. */
void end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
