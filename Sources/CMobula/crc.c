// CRC-32/ISO-HDLC (zlib's) and CRC-64/NVME, the other two checksums that S3 keeps of objects.
// Both are reflected, begin with all bits set, and are inverted at the end.
#include "CMobula.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYNOMIAL_32 0xEDB88320u
#define POLYNOMIAL_64 0x9A6C9329AC4BC9B5u

static uint32_t table_32[16][256];
static uint64_t table_64[16][256];

// Sixteen bytes a step: each byte's table holds what it is after those behind it have been shifted in.
#define DEFINE_TABLE(bits, type)                                                                                 \
  static void make_table_##bits(void) {                                                                          \
    for (unsigned i = 0; i < 256; i++) {                                                                         \
      type crc = i;                                                                                              \
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (POLYNOMIAL_##bits & (0 - (crc & 1)));                \
      table_##bits[0][i] = crc;                                                                                  \
    }                                                                                                            \
    for (unsigned i = 0; i < 256; i++)                                                                           \
      for (int k = 1; k < 16; k++)                                                                               \
        table_##bits[k][i] = (table_##bits[k - 1][i] >> 8) ^ table_##bits[0][table_##bits[k - 1][i] & 0xFF];     \
  }                                                                                                              \
  static type by_table_##bits(type crc, const uint8_t *p, size_t n) {                                            \
    for (; n >= 16; n -= 16, p += 16) {                                                                          \
      uint64_t a, b;                                                                                             \
      memcpy(&a, p, 8);                                                                                          \
      memcpy(&b, p + 8, 8);                                                                                      \
      a ^= crc;                                                                                                  \
      crc = 0;                                                                                                   \
      for (int k = 0; k < 8; k++) {                                                                              \
        crc ^= table_##bits[15 - k][(a >> (8 * k)) & 0xFF] ^ table_##bits[7 - k][(b >> (8 * k)) & 0xFF];         \
      }                                                                                                          \
    }                                                                                                            \
    while (n--) crc = (crc >> 8) ^ table_##bits[0][(crc ^ *p++) & 0xFF];                                         \
    return crc;                                                                                                  \
  }
DEFINE_TABLE(32, uint32_t)
DEFINE_TABLE(64, uint64_t)

#if defined(__x86_64__)
// Folding, as crc32c.c explains it, in registers of 128 bits, which CPUs without AVX-512 have, too. The state is
// added to the first 32 or 64 bits; what is left at the end goes through the table.
#define NARROW __attribute__((target("pclmul,sse2")))
#define ACCUMULATORS 4
#define ROUND (16 * ACCUMULATORS)

struct fold { uint64_t low, high; };
static struct fold one_32, round_32, one_64, round_64;  // over 16 bytes, and over ROUND bytes

/// x^exponent mod P, reflected, in the upper bits of 64.
static uint64_t power_of_x(unsigned exponent, int bits) {
  uint64_t power = 1ull << 63;
  // A polynomial of 32 bits in the upper half moves as one of 64 does.
  uint64_t polynomial = bits == 32 ? (uint64_t)POLYNOMIAL_32 << 32 : POLYNOMIAL_64;
  uint64_t last = bits == 32 ? 1ull << 32 : 1;
  while (exponent--) power = power & last ? ((power ^ last) >> 1) ^ polynomial : power >> 1;
  return power;
}

static struct fold fold_over(unsigned bytes, int bits) {
  return (struct fold){power_of_x(8 * bytes + 64 - 1, bits), power_of_x(8 * bytes - 1, bits)};
}

__attribute__((constructor)) static void make_tables(void) {
  make_table_32();
  make_table_64();
  one_32 = fold_over(16, 32);
  round_32 = fold_over(ROUND, 32);
  one_64 = fold_over(16, 64);
  round_64 = fold_over(ROUND, 64);
}

NARROW static inline __m128i folded(__m128i block, __m128i by, __m128i next) {
  __m128i low = _mm_clmulepi64_si128(block, by, 0x00), high = _mm_clmulepi64_si128(block, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

NARROW static inline __m128i load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }

/// Folds all whole blocks of at least ROUND bytes into 16 bytes at `rest` with the same remainder.
///
/// Returns how many bytes those blocks were.
NARROW static size_t fold_blocks(uint64_t state, const uint8_t *p, size_t n, const struct fold *by_one,
                                 const struct fold *by_round, uint8_t *rest) {
  const __m128i one = load(by_one), round = load(by_round);
  __m128i a[ACCUMULATORS];
  size_t i = 0;
  for (int k = 0; k < ACCUMULATORS; k++, i += 16) a[k] = load(p + i);
  a[0] = _mm_xor_si128(a[0], _mm_cvtsi64_si128((long long)state));
  for (; n - i >= ROUND; i += ROUND)
    for (int k = 0; k < ACCUMULATORS; k++) a[k] = folded(a[k], round, load(p + i + 16 * k));
  __m128i last = a[0];
  for (int k = 1; k < ACCUMULATORS; k++) last = folded(last, one, a[k]);
  for (; n - i >= 16; i += 16) last = folded(last, one, load(p + i));
  _mm_storeu_si128((__m128i *)rest, last);
  return i;
}

static inline int can_fold(void) { return __builtin_cpu_supports("pclmul"); }
#else
__attribute__((constructor)) static void make_tables(void) {
  make_table_32();
  make_table_64();
}
#endif

uint32_t mobula_crc32_by(int way, uint32_t crc, const void *bytes, size_t length) {
  const uint8_t *p = bytes;
  uint32_t state = ~crc;
#if defined(__x86_64__)
  if (way >= mobula_crc32c_folding && length >= ROUND && can_fold()) {
    uint8_t rest[16];
    size_t done = fold_blocks(state, p, length, &one_32, &round_32, rest);
    state = by_table_32(0, rest, sizeof rest);
    p += done;
    length -= done;
  }
#endif
  (void)way;
  return ~by_table_32(state, p, length);
}

uint64_t mobula_crc64nvme_by(int way, uint64_t crc, const void *bytes, size_t length) {
  const uint8_t *p = bytes;
  uint64_t state = ~crc;
#if defined(__x86_64__)
  if (way >= mobula_crc32c_folding && length >= ROUND && can_fold()) {
    uint8_t rest[16];
    size_t done = fold_blocks(state, p, length, &one_64, &round_64, rest);
    state = by_table_64(0, rest, sizeof rest);
    p += done;
    length -= done;
  }
#endif
  (void)way;
  return ~by_table_64(state, p, length);
}

uint32_t mobula_crc32(uint32_t crc, const void *bytes, size_t length) {
  return mobula_crc32_by(mobula_crc32c_folding, crc, bytes, length);
}

uint64_t mobula_crc64nvme(uint64_t crc, const void *bytes, size_t length) {
  return mobula_crc64nvme_by(mobula_crc32c_folding, crc, bytes, length);
}
