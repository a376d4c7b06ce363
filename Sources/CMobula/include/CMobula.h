#pragma once
// What Swift cannot reach by itself: calls that glibc hides behind feature
// macros, control messages, and the CRC32C instruction. Nothing else.
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// A new memfd that can be sealed, close-on-exec. -1 and errno on failure.
int mobula_memfd_create(const char *name);
/// Adds the F_SEAL_* bits given by the three flags. -1 and errno on failure.
int mobula_seal(int fd, int shrink_and_grow, int future_write);
/// Opens the file behind `fd` again, read-only, through /proc/self/fd.
int mobula_reopen_read_only(int fd);
/// Reserves `length` bytes from `offset`: 0, or an errno value.
int mobula_reserve(int fd, int64_t offset, int64_t length);

/// Sends `length` bytes (at least one) with one descriptor attached.
ssize_t mobula_send_descriptor(int socket, int fd, const void *bytes, size_t length);
/// Receives up to `length` bytes; `*fd` is the attached descriptor or -1.
ssize_t mobula_receive_descriptor(int socket, int *fd, void *bytes, size_t length);

/// sendfile(2) from an explicit offset, which it does not move.
ssize_t mobula_sendfile(int socket, int fd, int64_t offset, size_t count);

/// The next connection of a listening socket, close-on-exec from its first moment.
int mobula_accept(int socket);

/// CRC32C (Castagnoli) of `length` bytes, continuing from `crc` (0 at the start).
uint32_t mobula_crc32c(uint32_t crc, const void *bytes, size_t length);

/// Makes orphans below this process its children, rather than init's.
void mobula_adopt_orphans(void);

/// Names the calling thread; 15 bytes are kept.
void mobula_name_thread(const char *name);
