// The one-shot EVP interfaces of OpenSSL 3 allocate a context per message, and copying a keyed
// context allocates too. The digest states of the older interface are plain structures that can be
// copied by assignment, which is what one prepared key and many short messages need.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "stun_hmac.h"

#include <limits.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

enum { BLOCK = 64 };

int stun_hmac_prepare(stun_hmac_key *key, const uint8_t *password, size_t count) {
    uint8_t sha1_block[BLOCK] = {0};
    uint8_t sha256_block[BLOCK] = {0};
    uint8_t pad[BLOCK];
    int ok = 1;

    // RFC 2104 section 2: keys longer than a block are hashed first.
    if (count > BLOCK) {
        ok &= SHA1(password, count, sha1_block) != NULL;
        ok &= SHA256(password, count, sha256_block) != NULL;
    } else if (count > 0) {
        memcpy(sha1_block, password, count);
        memcpy(sha256_block, password, count);
    }

    for (int i = 0; i < BLOCK; i++) pad[i] = sha1_block[i] ^ 0x36;
    ok &= SHA1_Init(&key->sha1_inner) & SHA1_Update(&key->sha1_inner, pad, BLOCK);
    for (int i = 0; i < BLOCK; i++) pad[i] = sha1_block[i] ^ 0x5c;
    ok &= SHA1_Init(&key->sha1_outer) & SHA1_Update(&key->sha1_outer, pad, BLOCK);
    for (int i = 0; i < BLOCK; i++) pad[i] = sha256_block[i] ^ 0x36;
    ok &= SHA256_Init(&key->sha256_inner) & SHA256_Update(&key->sha256_inner, pad, BLOCK);
    for (int i = 0; i < BLOCK; i++) pad[i] = sha256_block[i] ^ 0x5c;
    ok &= SHA256_Init(&key->sha256_outer) & SHA256_Update(&key->sha256_outer, pad, BLOCK);

    OPENSSL_cleanse(pad, sizeof pad);
    OPENSSL_cleanse(sha1_block, sizeof sha1_block);
    OPENSSL_cleanse(sha256_block, sizeof sha256_block);
    return ok;
}

static void store(const uint8_t *digest, int count, uint32_t words[8]) {
    for (int i = 0; i < count; i++) {
        const uint8_t *from = digest + 4 * i;
        words[i] = (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
    }
}

void stun_hmac_sha1(const stun_hmac_key *key, const uint8_t *message, size_t count, uint16_t length,
                    uint32_t words[8]) {
    uint8_t digest[SHA_DIGEST_LENGTH];
    uint8_t header[4] = {message[0], message[1], (uint8_t)(length >> 8), (uint8_t)length};
    SHA_CTX state = key->sha1_inner;
    SHA1_Update(&state, header, sizeof header);
    SHA1_Update(&state, message + 4, count - 4);
    SHA1_Final(digest, &state);
    state = key->sha1_outer;
    SHA1_Update(&state, digest, sizeof digest);
    SHA1_Final(digest, &state);
    store(digest, 5, words);
}

void stun_hmac_sha256(const stun_hmac_key *key, const uint8_t *message, size_t count, uint16_t length,
                      uint32_t words[8]) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    uint8_t header[4] = {message[0], message[1], (uint8_t)(length >> 8), (uint8_t)length};
    SHA256_CTX state = key->sha256_inner;
    SHA256_Update(&state, header, sizeof header);
    SHA256_Update(&state, message + 4, count - 4);
    SHA256_Final(digest, &state);
    state = key->sha256_outer;
    SHA256_Update(&state, digest, sizeof digest);
    SHA256_Final(digest, &state);
    store(digest, 8, words);
}

int stun_md5(const uint8_t *bytes, size_t count, uint8_t digest[16]) {
    unsigned int length = 0;
    return EVP_Digest(bytes, count, digest, &length, EVP_md5(), NULL) == 1 && length == 16;
}

int stun_sha256(const uint8_t *bytes, size_t count, uint8_t digest[32]) {
    return SHA256(bytes, count, digest) != NULL;
}

int stun_hmac_once(int is_sha256, const uint8_t *key, size_t key_count, const uint8_t *bytes, size_t count,
                   uint8_t digest[32]) {
    unsigned int length = 0;
    if (key_count > INT_MAX) return 0;
    return HMAC(is_sha256 ? EVP_sha256() : EVP_sha1(), key_count ? key : digest, (int)key_count, bytes, count, digest,
                &length) != NULL;
}
