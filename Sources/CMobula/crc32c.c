// CRC32C. Reflected polynomial 0x82F63B78 (RFC 3720, appendix B.4).
#include "CMobula.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The functions below take and return the state, which is the inverted CRC.

static uint32_t table[8][256];

static void make_table(void) {
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

#if !defined(__x86_64__)
__attribute__((constructor)) static void make_tables(void) { make_table(); }
#else
// The instruction has a latency of three cycles and a throughput of one, so
// three streams run side by side; each block's streams are joined by "shifting"
// a CRC over a known number of zero bytes, from tables made at start.
#define STREAM 2048
static uint32_t shift_one[4][256], shift_two[4][256];

static uint32_t shift_zeros(uint32_t crc, size_t zeros) {
  while (zeros--) crc = (crc >> 8) ^ table[0][crc & 0xFF];
  return crc;
}

static void make_shifts(void) {
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

// Folding. A message is a polynomial over GF(2), its first bit the highest power of x;
// the state after it is that polynomial times x^32, modulo P, and a state to continue
// from is added to (xor) its first 32 bits. So a block A of 128 bits that stands D bits
// before a block B can be replaced by nothing at A and A * x^D + B at B, modulo P.
//
// Bits are reflected: bit i of a 64-bit half is x^(63-i). With L the first half of A, in
// the low bits of the register, and H the second, A = L * x^64 + H, hence
//   A * x^D = L * (x^(D+64) mod P) + H * (x^D mod P),
// of degree 63 + 31 at the most: it fits in 128 bits. A carry-less product of two reflected
// halves has bit k for x^(126-k), but in a register of 128 reflected bits k means x^(127-k):
// the product comes out times x. So the constants are those for one power less, with
// x^d (d < 32, reflected) in bit 63-d.
//
// An accumulator holds four such blocks in 512 bits, all moved by the same D. Four
// accumulators hide the latency of the multiplication. What is left at the end, 64 bytes
// with the same remainder as all before, goes through the crc32 instruction.
#define WIDE __attribute__((target("avx512f,vpclmulqdq,sse4.2")))
#define INLINE static inline __attribute__((always_inline))
#define ACCUMULATORS 4
#define ROUND (64 * ACCUMULATORS)

struct fold { uint64_t low, high; };
static struct fold by_one, by_round;  // over 64 bytes, and over ROUND bytes

/// x^exponent mod P in the upper, reflected half of 64 bits.
static uint64_t power_of_x(unsigned exponent) {
  uint32_t power = 0x80000000u;
  while (exponent--) power = (power >> 1) ^ (0x82F63B78u & (0u - (power & 1)));
  return (uint64_t)power << 32;
}

static struct fold fold_over(unsigned bytes) {
  return (struct fold){power_of_x(8 * bytes + 64 - 1), power_of_x(8 * bytes - 1)};
}

__attribute__((constructor)) static void make_tables(void) {
  make_table();
  make_shifts();
  by_one = fold_over(64);
  by_round = fold_over(ROUND);
}

WIDE INLINE __m512i constants(const struct fold *fold) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold));
}

WIDE INLINE __m512i folded(__m512i block, __m512i constants, __m512i next) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(block, constants, 0x00),
                                   _mm512_clmulepi64_epi128(block, constants, 0x11), next, 0x96);
}

// Non-temporal stores do not read a line before they write it. From 64 KiB on they are the
// better choice for a target that is in no cache, as shared memory mostly is. Measured on one
// core of an EPYC (Zen 4), 32 MiB of L3, pieces of 64 KiB to 512 MiB: 18 to 28 GB/s, against
// 15 to 21 GB/s with ordinary stores and 13 to 20 GB/s of memcpy. Copying and then reading the
// target again takes the same time either way. Only a target that still is in a cache is written
// faster with ordinary stores (50 GB/s), which is why small copies, whose targets may be, use those.
#define STREAMED 65536
enum stores { no_stores, ordinary, non_temporal };

WIDE INLINE __m512i take(const uint8_t *p, uint8_t *to, enum stores stores) {
  __m512i block = _mm512_loadu_si512(p);
  if (stores == ordinary) _mm512_storeu_si512(to, block);
  if (stores == non_temporal) _mm512_stream_si512((__m512i *)to, block);
  return block;
}

/// The state after at least ROUND bytes, which are copied to `to` unless `stores` says not to.
/// For non-temporal stores `to` is aligned to 64 bytes.
WIDE INLINE uint32_t fold_and_store(uint32_t crc, uint8_t *to, const uint8_t *p, size_t n, enum stores stores) {
  const __m512i round = constants(&by_round), one = constants(&by_one);
  __m512i a[ACCUMULATORS];
  size_t i = 0;
  for (int k = 0; k < ACCUMULATORS; k++, i += 64) a[k] = take(p + i, to + i, stores);
  a[0] = _mm512_xor_si512(a[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
  for (; n - i >= ROUND; i += ROUND)
    for (int k = 0; k < ACCUMULATORS; k++)
      a[k] = folded(a[k], round, take(p + i + 64 * k, to + i + 64 * k, stores));
  __m512i last = a[0];
  for (int k = 1; k < ACCUMULATORS; k++) last = folded(last, one, a[k]);
  for (; n - i >= 64; i += 64) last = folded(last, one, take(p + i, to + i, stores));
  uint8_t rest[64 + 64];
  _mm512_storeu_si512(rest, last);
  memcpy(rest + 64, p + i, n - i);
  // From the copy, so that the CRC is that of the bytes stored even when the source changes.
  if (stores != no_stores) memcpy(to + i, rest + 64, n - i);
  if (stores == non_temporal) _mm_sfence();
  return crc_by_instruction(0, rest, 64 + (n - i));
}

WIDE static uint32_t crc_by_folding(uint32_t crc, const uint8_t *p, size_t n) {
  return fold_and_store(crc, (uint8_t *)p, p, n, no_stores);
}

WIDE static uint32_t copy_by_folding(uint32_t crc, uint8_t *to, const uint8_t *p, size_t n) {
  if (n < STREAMED) return fold_and_store(crc, to, p, n, ordinary);
  size_t head = -(uintptr_t)to & 63;
  memcpy(to, p, head);
  crc = crc_by_instruction(crc, to, head);
  return fold_and_store(crc, to + head, p + head, n - head, non_temporal);
}

static inline int can_fold(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq") &&
         __builtin_cpu_supports("sse4.2");
}
#endif

static inline uint32_t state_after(int way, uint32_t crc, const uint8_t *p, size_t n) {
#if defined(__x86_64__)
  if (way >= mobula_crc32c_folding && n >= ROUND && can_fold()) return crc_by_folding(crc, p, n);
  if (way >= mobula_crc32c_instruction && __builtin_cpu_supports("sse4.2")) return crc_by_instruction(crc, p, n);
#endif
  (void)way;
  return crc_by_table(crc, p, n);
}

uint32_t mobula_crc32c_by(int way, uint32_t crc, const void *bytes, size_t length) {
  return ~state_after(way, ~crc, bytes, length);
}

uint32_t mobula_copy_crc32c_by(int way, uint32_t crc, void *to, const void *from, size_t length) {
  crc = ~crc;
#if defined(__x86_64__)
  if (way >= mobula_crc32c_folding && length >= ROUND && can_fold()) return ~copy_by_folding(crc, to, from, length);
#endif
  // In blocks that still are in a near cache when they are read again: four rounds of the three streams.
  uint8_t *target = to;
  const uint8_t *source = from;
  while (length > 0) {
    size_t block = length < 24576 ? length : 24576;
    memcpy(target, source, block);
    crc = state_after(way, crc, target, block);
    target += block;
    source += block;
    length -= block;
  }
  return ~crc;
}

uint32_t mobula_crc32c(uint32_t crc, const void *bytes, size_t length) {
  return mobula_crc32c_by(mobula_crc32c_folding, crc, bytes, length);
}

uint32_t mobula_copy_crc32c(uint32_t crc, void *to, const void *from, size_t length) {
  return mobula_copy_crc32c_by(mobula_crc32c_folding, crc, to, from, length);
}
