#pragma once
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

/* A self-signed certificate and its private key. */

enum {
    CERTIFICATE_OK = 0,
    CERTIFICATE_NO_RESOURCES = 1,
    CERTIFICATE_NO_KEY = 2,      /* no private key in the text, or an encrypted or damaged one */
    CERTIFICATE_NONE = 3,        /* no certificate in the text, or a damaged one */
    CERTIFICATE_KEY_TYPE = 4,    /* the key is not ECDSA P-256 */
    CERTIFICATE_KEY_MISMATCH = 5 /* key and certificate do not belong together */
};

/* Makes a key and a certificate valid between two times in seconds since 1970. */
int certificate_make(int64_t not_before, int64_t not_after, EVP_PKEY **key, X509 **certificate);

/* Reads both from PEM text, in either order. Never asks for a passphrase. */
int certificate_decode(const uint8_t *pem, size_t length, EVP_PKEY **key, X509 **certificate);

/* Writes the key (PKCS #8) and the certificate as PEM. Free with certificate_free_pem. NULL without memory. */
uint8_t *certificate_encode(EVP_PKEY *key, X509 *certificate, size_t *length);

/* Overwrites and frees. */
void certificate_free_pem(uint8_t *pem, size_t length);

/* Writes SHA-2 of `bits` (256, 384, 512) over the DER form; returns the number of bytes, 0 on failure. */
size_t certificate_digest(const X509 *certificate, int bits, uint8_t *output);

/* Validity in seconds since 1970; 0 if the certificate's times cannot be read. */
int certificate_validity(const X509 *certificate, int64_t *not_before, int64_t *not_after);

/* Derives `length` bytes from the private key: HKDF with SHA-256 over the private number (32 bytes, big-endian), no salt,
 * `info`. The same for the same key, wherever it was read from. 0 on failure. */
int certificate_derive(const EVP_PKEY *key, const char *info, uint8_t *output, size_t length);

void certificate_free(EVP_PKEY *key, X509 *certificate);
