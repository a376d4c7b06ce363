#define _GNU_SOURCE
#include "CMobula.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

int mobula_memfd_create(const char *name) {
  return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int mobula_seal(int fd, int shrink_and_grow, int future_write) {
  int seals = 0;
  if (shrink_and_grow) seals |= F_SEAL_SHRINK | F_SEAL_GROW;
  if (future_write) seals |= F_SEAL_FUTURE_WRITE;
  return fcntl(fd, F_ADD_SEALS, seals);
}

int mobula_reopen_read_only(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_RDONLY | O_CLOEXEC);
}

int mobula_reserve(int fd, int64_t offset, int64_t length) {
  int result;
  do { result = fallocate(fd, 0, offset, length) == 0 ? 0 : errno; } while (result == EINTR);
  return result;
}

ssize_t mobula_send_descriptor(int socket, int fd, const void *bytes, size_t length) {
  struct iovec iov = {.iov_base = (void *)bytes, .iov_len = length};
  union { char buffer[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1,
                           .msg_control = control.buffer, .msg_controllen = sizeof control.buffer};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof(int));
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t mobula_receive_descriptor(int socket, int *fd, void *bytes, size_t length) {
  *fd = -1;
  struct iovec iov = {.iov_base = bytes, .iov_len = length};
  union { char buffer[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1,
                           .msg_control = control.buffer, .msg_controllen = sizeof control.buffer};
  ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count < 0) return count;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int)))
      memcpy(fd, CMSG_DATA(header), sizeof(int));
  }
  return count;
}

ssize_t mobula_sendfile(int socket, int fd, int64_t offset, size_t count) {
  off_t from = offset;
  return sendfile(socket, fd, &from, count);
}

int mobula_accept(int socket) { return accept4(socket, NULL, NULL, SOCK_CLOEXEC); }

void mobula_adopt_orphans(void) { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

void mobula_name_thread(const char *name) { prctl(PR_SET_NAME, name); }

// CRC32C. Reflected polynomial 0x82F63B78 (RFC 3720, appendix B.4).

static uint32_t table[8][256];

__attribute__((constructor)) static void make_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
    table[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xFF];
}

static uint32_t crc_by_table(uint32_t crc, const uint8_t *p, size_t n) {
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    word ^= crc;
    crc = table[7][word & 0xFF] ^ table[6][(word >> 8) & 0xFF] ^ table[5][(word >> 16) & 0xFF] ^
          table[4][(word >> 24) & 0xFF] ^ table[3][(word >> 32) & 0xFF] ^ table[2][(word >> 40) & 0xFF] ^
          table[1][(word >> 48) & 0xFF] ^ table[0][word >> 56];
  }
  while (n--) crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xFF];
  return crc;
}

#if defined(__x86_64__)
// The instruction has a latency of three cycles and a throughput of one, so
// three streams run side by side; each block's streams are joined by "shifting"
// a CRC over a known number of zero bytes, from tables made at start.
#define STREAM 2048
static uint32_t shift_one[4][256], shift_two[4][256];

static uint32_t shift_zeros(uint32_t crc, size_t zeros) {
  while (zeros--) crc = (crc >> 8) ^ table[0][crc & 0xFF];
  return crc;
}

__attribute__((constructor(200))) static void make_shifts(void) {
  make_table();
  uint32_t one[32], two[32];
  for (int bit = 0; bit < 32; bit++) {
    one[bit] = shift_zeros(1u << bit, STREAM);
    two[bit] = shift_zeros(one[bit], STREAM);
  }
  for (int byte = 0; byte < 4; byte++)
    for (uint32_t value = 0; value < 256; value++) {
      uint32_t a = 0, b = 0;
      for (int bit = 0; bit < 8; bit++)
        if (value >> bit & 1) { a ^= one[byte * 8 + bit]; b ^= two[byte * 8 + bit]; }
      shift_one[byte][value] = a;
      shift_two[byte][value] = b;
    }
}

static inline uint32_t shifted(uint32_t t[4][256], uint32_t crc) {
  return t[0][crc & 0xFF] ^ t[1][(crc >> 8) & 0xFF] ^ t[2][(crc >> 16) & 0xFF] ^ t[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *p, size_t n) {
  uint64_t a = crc;
  while (n >= 3 * STREAM) {
    uint64_t b = 0, c = 0, x, y, z;
    for (size_t i = 0; i < STREAM; i += 8) {
      memcpy(&x, p + i, 8);
      memcpy(&y, p + STREAM + i, 8);
      memcpy(&z, p + 2 * STREAM + i, 8);
      a = __builtin_ia32_crc32di(a, x);
      b = __builtin_ia32_crc32di(b, y);
      c = __builtin_ia32_crc32di(c, z);
    }
    a = shifted(shift_two, (uint32_t)a) ^ shifted(shift_one, (uint32_t)b) ^ (uint32_t)c;
    p += 3 * STREAM;
    n -= 3 * STREAM;
  }
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    a = __builtin_ia32_crc32di(a, word);
  }
  while (n--) a = __builtin_ia32_crc32qi((uint32_t)a, *p++);
  return (uint32_t)a;
}
#endif

uint32_t mobula_crc32c(uint32_t crc, const void *bytes, size_t length) {
  crc = ~crc;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return ~crc_by_instruction(crc, bytes, length);
#endif
  return ~crc_by_table(crc, bytes, length);
}
