#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Authenticated encryption and key derivation for texts of a few dozen bytes: AES-256-GCM, HMAC-SHA256, HKDF-SHA256.
 * What OpenSSL allocates is made once and used for every call. Not thread-safe. */

typedef struct seal_context seal_context_t;

enum { SEAL_KEY_SIZE = 32, SEAL_NONCE_SIZE = 12, SEAL_TAG_SIZE = 16, SEAL_HASH_SIZE = 32 };

/* NULL without memory, or if OpenSSL has none of the algorithms. */
seal_context_t *seal_context_new(void);
/* Overwrites the keys it has seen. NULL is fine. */
void seal_context_free(seal_context_t *context);

/* Encrypts `length` bytes and authenticates `extra` with them: `length` + SEAL_TAG_SIZE bytes of output. */
bool seal_encrypt(seal_context_t *context, const uint8_t key[SEAL_KEY_SIZE], const uint8_t nonce[SEAL_NONCE_SIZE],
                  const uint8_t *extra, size_t extra_length, const uint8_t *plaintext, size_t length, uint8_t *output);

/* The reverse; `length` is the tag's included. False and an output of zeros if anything differs. */
bool seal_decrypt(seal_context_t *context, const uint8_t key[SEAL_KEY_SIZE], const uint8_t nonce[SEAL_NONCE_SIZE],
                  const uint8_t *extra, size_t extra_length, const uint8_t *sealed, size_t length, uint8_t *output);

/* RFC 2104 with SHA-256. An empty key counts as one zero byte, which gives the same code. */
bool seal_hmac(seal_context_t *context, const uint8_t *key, size_t key_length, const uint8_t *message, size_t length,
               uint8_t code[SEAL_HASH_SIZE]);

/* RFC 5869 with SHA-256, extract and expand; `length` at most 255 * 32. */
bool seal_hkdf(seal_context_t *context, const uint8_t *salt, size_t salt_length, const uint8_t *secret,
               size_t secret_length, const uint8_t *info, size_t info_length, uint8_t *output, size_t length);
