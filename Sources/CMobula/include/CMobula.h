#pragma once
// What Swift cannot reach by itself: calls that glibc hides behind feature
// macros, control messages, and checksums by the CPU's own means. Nothing else.
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// A new memfd that can be sealed, close-on-exec. -1 and errno on failure.
int mobula_memfd_create(const char *name);
/// From now on the memfd neither shrinks nor grows, and nobody adds other seals. -1 and errno on failure.
int mobula_seal(int fd);
/// Opens the file behind `fd` again, read-only, through /proc/self/fd.
int mobula_reopen_read_only(int fd);
/// Reserves `length` bytes from `offset`: 0, or an errno value.
int mobula_reserve(int fd, int64_t offset, int64_t length);

/// Punches a hole of `length` bytes at `offset`: 0, or an errno value.
int mobula_give_back(int fd, int64_t offset, int64_t length);
/// A descriptor that becomes readable when the process has ended (pidfd_open). -1 and errno on failure.
int mobula_open_process(int pid);
/// The same for the process that connected a Unix socket, as the kernel knows it. -1 where it can't tell (before 6.5).
int mobula_peer_process(int socket);
/// Sends a signal to the process behind such a descriptor (pidfd_send_signal), and to no other. -1 and errno on failure.
int mobula_signal_process(int process, int signal);
/// An event descriptor, non-blocking. -1 and errno on failure.
int mobula_bell(void);
/// Takes what was written to an event descriptor; never blocks, whoever else has it.
void mobula_take_bell(int bell);
/// A descriptor that waits for many (epoll). -1 and errno on failure.
int mobula_watcher(void);
/// Waits for `fd` to become readable, too; it is told by its tag. -1 and errno on failure.
int mobula_watch(int watcher, int fd, uint64_t tag);
int mobula_unwatch(int watcher, int fd);
/// A descriptor that tells of files in a folder that are written to (inotify). -1 and errno on failure.
int mobula_watch_writes(const char *folder);
/// Waits, but not longer than so many milliseconds, until files of a watched folder were written to, and puts their names
/// into `names`, each ended by a zero: how many bytes those are in all. 0 when none were; -1 and errno on failure.
ssize_t mobula_written_files(int watch, char *names, size_t length, int milliseconds);
/// From now on each line that is printed is written out at once, also to a file.
void mobula_write_out_lines(void);
/// Writes out what was printed. Returns 0, or why some of it could not be, also of what was written before.
int mobula_flush_output(void);
/// The tags, at most `count` (and 64) of them, of what is readable, after at most so many milliseconds (-1: any time).
int mobula_wait(int watcher, uint64_t *tags, int count, int milliseconds);
/// Who is at the other end of a Unix socket. -1 and errno on failure.
int mobula_peer(int socket, int *pid, unsigned *uid);
/// The most descriptors of one packet.
#define MOBULA_LARGEST_ATTACHMENT 4
/// Sends one packet of `length` bytes (at least one) with the first `count` descriptors of `fds` attached.
ssize_t mobula_send_packet(int socket, const int *fds, size_t count, const void *bytes, size_t length);
/// Receives one packet, without blocking unless `waits`, and returns its whole length, also where that is
/// more than the `length` bytes kept. `fds` (of MOBULA_LARGEST_ATTACHMENT) takes the descriptors that
/// came, close-on-exec, and `*count` their number; `*incomplete` says that more were attached than that.
ssize_t mobula_receive_packet(int socket, int *fds, size_t *count, int *incomplete, void *bytes, size_t length,
                              int waits);

/// sendfile(2) from an explicit offset, which it does not move.
ssize_t mobula_sendfile(int socket, int fd, int64_t offset, size_t count);

/// The next connection of a listening socket, close-on-exec from its first moment.
int mobula_accept(int socket);

/// CRC32C (Castagnoli) of `length` bytes, continuing from `crc` (0 at the start).
uint32_t mobula_crc32c(uint32_t crc, const void *bytes, size_t length);
/// Copies `length` bytes that do not overlap their target, and returns the CRC32C
/// of what was written, continuing from `crc`.
uint32_t mobula_copy_crc32c(uint32_t crc, void *to, const void *from, size_t length);

/// The ways to compute a CRC32C, slowest first. A CPU that lacks one takes the one before.
enum { mobula_crc32c_table, mobula_crc32c_instruction, mobula_crc32c_folding };
/// `mobula_crc32c` in a given way; for tests, since one machine otherwise takes one way.
uint32_t mobula_crc32c_by(int way, uint32_t crc, const void *bytes, size_t length);
/// `mobula_copy_crc32c` in a given way.
uint32_t mobula_copy_crc32c_by(int way, uint32_t crc, void *to, const void *from, size_t length);

/// CRC-32/ISO-HDLC and CRC-64/NVME of `length` bytes, continuing from `crc` (0 at the start).
uint32_t mobula_crc32(uint32_t crc, const void *bytes, size_t length);
uint64_t mobula_crc64nvme(uint64_t crc, const void *bytes, size_t length);
/// As those, in a given way (`mobula_crc32c_instruction` is not one of theirs); for tests.
uint32_t mobula_crc32_by(int way, uint32_t crc, const void *bytes, size_t length);
uint64_t mobula_crc64nvme_by(int way, uint64_t crc, const void *bytes, size_t length);

/// To the `posix_spawn_file_actions_t` at `actions`: close every descriptor from `first` on. 0, or an errno value.
int mobula_spawn_close_from(void *actions, int first);

/// The Swift runtime's own, which no module shows: a mangled name in words, to be freed; NULL for what is none.
char *swift_demangle(const char *name, size_t length, char *buffer, size_t *size, uint32_t flags);

/// Makes orphans below this process its children, rather than init's.
void mobula_adopt_orphans(void);

/// Names the calling thread; 15 bytes are kept.
void mobula_name_thread(const char *name);
