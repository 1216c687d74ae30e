#pragma once
#include <stddef.h>
#include <stdint.h>
#include <openssl/sha.h>

/// HMAC (RFC 2104) with the key already mixed in: one of these is made per password, and
/// authenticating a message then allocates nothing and hashes no key block.
typedef struct {
    SHA_CTX sha1_inner;
    SHA_CTX sha1_outer;
    SHA256_CTX sha256_inner;
    SHA256_CTX sha256_outer;
} stun_hmac_key;

/// Prepares `key` from a password of any length. 1, or 0 if the digest library refused.
int stun_hmac_prepare(stun_hmac_key *key, const uint8_t *password, size_t count);

/// HMAC-SHA1 over the first `count` (at least 4) bytes of a STUN message, in which the header's
/// length field reads `length`. Five words in host order.
void stun_hmac_sha1(const stun_hmac_key *key, const uint8_t *message, size_t count, uint16_t length,
                    uint32_t words[8]);

/// The same with HMAC-SHA256. Eight words in host order.
void stun_hmac_sha256(const stun_hmac_key *key, const uint8_t *message, size_t count, uint16_t length,
                      uint32_t words[8]);

/// MD5 of `count` bytes: the long-term key of RFC 8489 section 18.5.1.1. 1, or 0 where MD5 is not allowed.
int stun_md5(const uint8_t *bytes, size_t count, uint8_t digest[16]);

/// SHA-256 of `count` bytes. 1, or 0 on failure.
int stun_sha256(const uint8_t *bytes, size_t count, uint8_t digest[32]);

/// HMAC-SHA1 (20 bytes) or, with `is_sha256`, HMAC-SHA256 (32 bytes) of `count` bytes. 1, or 0 on failure.
int stun_hmac_once(int is_sha256, const uint8_t *key, size_t key_count, const uint8_t *bytes, size_t count,
                   uint8_t digest[32]);
