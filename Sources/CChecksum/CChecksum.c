// CRC32C: reflected polynomial 0x82F63B78, initial value and final inversion of all bits.
#include "CChecksum.h"
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

typedef uint32_t (*crc_function)(uint32_t state, const uint8_t *bytes, size_t count);

static uint64_t load64(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

// MARK: Tables (slicing by 8)

static uint32_t tables[8][256];

static void fill_tables(void) {
    for (uint32_t index = 0; index < 256; index++) {
        uint32_t value = index;
        for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ (0x82F63B78u & (0u - (value & 1)));
        tables[0][index] = value;
    }
    for (uint32_t index = 0; index < 256; index++)
        for (int table = 1; table < 8; table++) {
            uint32_t before = tables[table - 1][index];
            tables[table][index] = (before >> 8) ^ tables[0][before & 0xFF];
        }
}

static uint32_t crc_tables(uint32_t state, const uint8_t *bytes, size_t count) {
    for (; count >= 8; count -= 8, bytes += 8) {
        uint32_t low = state ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                                (uint32_t)bytes[3] << 24);
        state = tables[7][low & 0xFF] ^ tables[6][low >> 8 & 0xFF] ^ tables[5][low >> 16 & 0xFF] ^
                tables[4][low >> 24] ^ tables[3][bytes[4]] ^ tables[2][bytes[5]] ^ tables[1][bytes[6]] ^
                tables[0][bytes[7]];
    }
    for (; count > 0; count--) state = (state >> 8) ^ tables[0][(state ^ *bytes++) & 0xFF];
    return state;
}

// MARK: x86-64: SSE4.2, three streams at once, joined by carry-less multiplication

#if defined(__x86_64__)
// The crc32 instruction takes 3 cycles and a new one can start in every cycle, so three streams
// run side by side. To join them, a stream's CRC is moved over the n words behind it, that is
// multiplied by x^(64 n) modulo the polynomial: shift[n] holds x^(64 n - 33), since the reflected
// product is one bit short and the crc32 instruction that reduces it multiplies by x^32.
enum { longest_lane = 64 };
static uint32_t shift[2 * longest_lane + 1];

__attribute__((target("sse4.2"))) static void fill_shift(void) {
    uint64_t value = 1; // x^31, reflected
    for (int words = 1; words <= 2 * longest_lane; words++) {
        shift[words] = (uint32_t)value;
        value = _mm_crc32_u64(value, 0);
    }
}

__attribute__((target("sse4.2,pclmul"))) static uint64_t moved(uint64_t crc, size_t words) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)(crc & 0xFFFFFFFF)),
                                           _mm_cvtsi64_si128((long long)shift[words]), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc_sse42(uint32_t state, const uint8_t *bytes, size_t count) {
    uint64_t first = state;
    while (count >= 3 * 8 * 4) {
        size_t words = count / 24;
        if (words > longest_lane) words = longest_lane;
        const uint8_t *second_lane = bytes + 8 * words, *third_lane = second_lane + 8 * words;
        uint64_t second = 0, third = 0;
        for (size_t word = 0; word < words; word++) {
            first = _mm_crc32_u64(first, load64(bytes + 8 * word));
            second = _mm_crc32_u64(second, load64(second_lane + 8 * word));
            third = _mm_crc32_u64(third, load64(third_lane + 8 * word));
        }
        first = moved(first, 2 * words) ^ moved(second, words) ^ third;
        bytes += 24 * words;
        count -= 24 * words;
    }
    for (; count >= 8; count -= 8, bytes += 8) first = _mm_crc32_u64(first, load64(bytes));
    uint32_t rest = (uint32_t)first;
    for (; count > 0; count--) rest = _mm_crc32_u8(rest, *bytes++);
    return rest;
}
#endif

// MARK: ARMv8

#if defined(__aarch64__)
__attribute__((target("crc"))) static uint32_t crc_armv8(uint32_t state, const uint8_t *bytes, size_t count) {
    for (; count >= 8; count -= 8, bytes += 8) state = __crc32cd(state, load64(bytes));
    for (; count > 0; count--) state = __crc32cb(state, *bytes++);
    return state;
}
#endif

// MARK: Choice

static crc_function chosen = crc_tables;

__attribute__((constructor)) static void choose(void) {
    fill_tables();
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        fill_shift();
        chosen = crc_sse42;
    }
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & HWCAP_CRC32) chosen = crc_armv8;
#endif
}

uint32_t reconnect_crc32c(uint32_t crc, const void *bytes, size_t count) { return ~chosen(~crc, bytes, count); }

uint32_t reconnect_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
    return ~crc_tables(~crc, bytes, count);
}

uint32_t reconnect_crc32c_sctp(const void *packet, size_t count) {
    static const uint8_t zeros[4];
    if (count < 12) return 0;
    uint32_t state = chosen(0xFFFFFFFFu, packet, 8);
    state = chosen(state, zeros, 4);
    return ~chosen(state, (const uint8_t *)packet + 12, count - 12);
}

int reconnect_crc32c_is_accelerated(void) { return chosen != crc_tables; }
