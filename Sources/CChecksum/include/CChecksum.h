#pragma once
#include <stddef.h>
#include <stdint.h>

/// CRC32C (Castagnoli) of `count` bytes, continuing from `crc` (0 at the start), in hardware where
/// the CPU has it.
uint32_t reconnect_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The same through tables, on every CPU. For tests and as the fallback.
uint32_t reconnect_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/// CRC32C of an SCTP packet as if its checksum field (bytes 8 to 11) were zero. 0 if `count` < 12.
uint32_t reconnect_crc32c_sctp(const void *packet, size_t count);

/// True if the CPU's own instructions are used.
int reconnect_crc32c_is_accelerated(void);
