#include "seal.h"

#include <limits.h>
#include <stdlib.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

struct seal_context {
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *encryption;
    EVP_MAC_CTX *mac;
    EVP_KDF_CTX *kdf;
};

static char digest_name[] = "SHA256";

void seal_context_free(seal_context_t *context) {
    if (!context) return;
    EVP_KDF_CTX_free(context->kdf);
    EVP_MAC_CTX_free(context->mac);
    EVP_CIPHER_CTX_free(context->encryption);
    EVP_CIPHER_free(context->cipher);
    free(context);
}

seal_context_t *seal_context_new(void) {
    seal_context_t *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    context->encryption = EVP_CIPHER_CTX_new();
    // The contexts keep what they need of the algorithms they were made from.
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    if (mac) context->mac = EVP_MAC_CTX_new(mac);
    if (kdf) context->kdf = EVP_KDF_CTX_new(kdf);
    EVP_MAC_free(mac);
    EVP_KDF_free(kdf);
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name, 0),
        OSSL_PARAM_construct_end(),
    };
    if (!context->cipher || !context->encryption || !context->kdf || !context->mac ||
        !EVP_MAC_CTX_set_params(context->mac, parameters)) {
        seal_context_free(context);
        return NULL;
    }
    return context;
}

bool seal_encrypt(seal_context_t *context, const uint8_t key[SEAL_KEY_SIZE], const uint8_t nonce[SEAL_NONCE_SIZE],
                  const uint8_t *extra, size_t extra_length, const uint8_t *plaintext, size_t length,
                  uint8_t *output) {
    EVP_CIPHER_CTX *encryption = context->encryption;
    int written = 0;
    int last = 0;
    if (length > INT_MAX || extra_length > INT_MAX) return false;
    // NIST SP 800-38D section 8.2.2: a random nonce of 96 bits, the size that GCM takes without hashing it.
    return EVP_EncryptInit_ex(encryption, context->cipher, NULL, key, nonce) == 1 &&
           (extra_length == 0 || EVP_EncryptUpdate(encryption, NULL, &written, extra, (int)extra_length) == 1) &&
           EVP_EncryptUpdate(encryption, output, &written, plaintext, (int)length) == 1 &&
           EVP_EncryptFinal_ex(encryption, output + written, &last) == 1 && (size_t)(written + last) == length &&
           EVP_CIPHER_CTX_ctrl(encryption, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_SIZE, output + length) == 1;
}

bool seal_decrypt(seal_context_t *context, const uint8_t key[SEAL_KEY_SIZE], const uint8_t nonce[SEAL_NONCE_SIZE],
                  const uint8_t *extra, size_t extra_length, const uint8_t *sealed, size_t length, uint8_t *output) {
    EVP_CIPHER_CTX *encryption = context->encryption;
    uint8_t tag[SEAL_TAG_SIZE];
    int written = 0;
    int last = 0;
    if (length < SEAL_TAG_SIZE || length > INT_MAX || extra_length > INT_MAX) return false;
    length -= SEAL_TAG_SIZE;
    for (int index = 0; index < SEAL_TAG_SIZE; index++) tag[index] = sealed[length + (size_t)index];
    bool is_authentic =
        EVP_DecryptInit_ex(encryption, context->cipher, NULL, key, nonce) == 1 &&
        EVP_CIPHER_CTX_ctrl(encryption, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG_SIZE, tag) == 1 &&
        (extra_length == 0 || EVP_DecryptUpdate(encryption, NULL, &written, extra, (int)extra_length) == 1) &&
        EVP_DecryptUpdate(encryption, output, &written, sealed, (int)length) == 1 &&
        EVP_DecryptFinal_ex(encryption, output + written, &last) == 1 && (size_t)(written + last) == length;
    // NIST SP 800-38D section 7.2: nothing of the plaintext is given out if the tag is not right.
    if (!is_authentic) OPENSSL_cleanse(output, length);
    return is_authentic;
}

bool seal_hmac(seal_context_t *context, const uint8_t *key, size_t key_length, const uint8_t *message, size_t length,
               uint8_t code[SEAL_HASH_SIZE]) {
    // RFC 2104 section 2: short keys are filled up with zeros. OpenSSL takes no key at all for "the one before".
    static const uint8_t zero[1] = {0};
    size_t written = 0;
    if (key_length == 0) {
        key = zero;
        key_length = 1;
    }
    return EVP_MAC_init(context->mac, key, key_length, NULL) == 1 &&
           (length == 0 || EVP_MAC_update(context->mac, message, length) == 1) &&
           EVP_MAC_final(context->mac, code, &written, SEAL_HASH_SIZE) == 1 && written == SEAL_HASH_SIZE;
}

bool seal_hkdf(seal_context_t *context, const uint8_t *salt, size_t salt_length, const uint8_t *secret,
               size_t secret_length, const uint8_t *info, size_t info_length, uint8_t *output, size_t length) {
    OSSL_PARAM parameters[5];
    size_t count = 0;
    EVP_KDF_CTX_reset(context->kdf);
    parameters[count++] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest_name, 0);
    parameters[count++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)secret, secret_length);
    // RFC 5869 section 2.2: without a salt it is zeros, which is what HMAC makes of none.
    if (salt_length) {
        parameters[count++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_length);
    }
    if (info_length) {
        parameters[count++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_length);
    }
    parameters[count] = OSSL_PARAM_construct_end();
    bool is_done = EVP_KDF_derive(context->kdf, output, length, parameters) == 1;
    // Forgets the secret.
    EVP_KDF_CTX_reset(context->kdf);
    return is_done;
}
