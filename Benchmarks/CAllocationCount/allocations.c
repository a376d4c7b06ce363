#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "CAllocationCount.h"

// glibc's own, under the names that are there for those who take malloc's place.
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

static _Atomic uint64_t everywhere;
// Lie in the executable's own TLS block: to reach them allocates nothing.
static _Thread_local uint64_t here;
static _Thread_local uint64_t bytes_here;

static void count(size_t size) {
  atomic_fetch_add_explicit(&everywhere, 1, memory_order_relaxed);
  here++;
  bytes_here += size;
}

void *malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
  count(number * size);
  return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
  count(size);
  return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
  count(size);
  void *found = __libc_memalign(alignment, size);
  if (found == NULL) return ENOMEM;
  *memory = found;
  return 0;
}

void free(void *memory) { __libc_free(memory); }

uint64_t mobula_allocations_here(void) { return here; }
uint64_t mobula_allocated_bytes_here(void) { return bytes_here; }
uint64_t mobula_allocations(void) { return atomic_load_explicit(&everywhere, memory_order_relaxed); }

int64_t mobula_page_faults_here(void) {
  struct rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_minflt + usage.ru_majflt : -1;
}

int64_t mobula_private_bytes(void) {
  long size, resident, shared;
  FILE *file = fopen("/proc/self/statm", "re");
  if (file == NULL) return -1;
  int found = fscanf(file, "%ld %ld %ld", &size, &resident, &shared);
  fclose(file);
  return found == 3 ? (int64_t)(resident - shared) * sysconf(_SC_PAGESIZE) : -1;
}
