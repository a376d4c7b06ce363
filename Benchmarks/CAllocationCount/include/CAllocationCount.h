#pragma once
// What counts are made of: allocations, by taking malloc's place in the executable that links
// this, and system calls, by seccomp filters. For benchmarks alone.
#include <stdint.h>

/// Allocations that the calling thread has made: malloc, calloc, realloc and their aligned kin.
uint64_t mobula_allocations_here(void);
/// Bytes that these asked for.
uint64_t mobula_allocated_bytes_here(void);
/// Allocations of the whole process.
uint64_t mobula_allocations(void);

/// From now on a system call of the calling thread, other than `write` to descriptor 1 and
/// `exit_group`, kills the process with SIGSYS. -1 and errno on failure.
int mobula_forbid_system_calls(void);

/// Counts system calls of one thread, and of the threads that it starts.
struct mobula_call_counter;
/// Begins to count those of the calling thread, which can't be ended. NULL and errno on failure.
struct mobula_call_counter *mobula_count_system_calls(void);
/// How many there were of this number; of all with -1.
uint64_t mobula_system_calls(const struct mobula_call_counter *counter, int number);
/// Numbers are below this.
#define MOBULA_LARGEST_CALL 512
/// The name of a usual one; NULL for others.
const char *mobula_name_of_system_call(int number);
/// Minor page faults of the calling thread.
int64_t mobula_page_faults_here(void);
/// Bytes of private anonymous memory that is resident in this process. -1 when it is not known.
int64_t mobula_private_bytes(void);
