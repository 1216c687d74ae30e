#define _GNU_SOURCE
#include "COpenSSL.h"

#include <limits.h>
#include <string.h>
#include <time.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>

static int set_random_serial(X509 *certificate) {
    /* RFC 5280 section 4.1.2.2: positive and at most 20 octets. */
    BIGNUM *number = BN_new();
    int ok = number != NULL && BN_rand(number, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
             BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
    BN_free(number);
    return ok;
}

static X509 *make_self_signed(EVP_PKEY *key, int64_t not_before, int64_t not_after) {
    X509 *certificate = X509_new();
    if (certificate == NULL) return NULL;
    X509_NAME *name = X509_get_subject_name(certificate);
    if (X509_set_version(certificate, X509_VERSION_3) && set_random_serial(certificate) &&
        ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)not_before) != NULL &&
        ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)not_after) != NULL &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"WebRTC", -1, -1, 0) &&
        X509_set_issuer_name(certificate, name) && X509_set_pubkey(certificate, key) &&
        X509_sign(certificate, key, EVP_sha256()) > 0) {
        return certificate;
    }
    X509_free(certificate);
    return NULL;
}

int certificate_make(int64_t not_before, int64_t not_after, EVP_PKEY **key, X509 **certificate) {
    ERR_clear_error();
    EVP_PKEY *made = EVP_EC_gen("P-256");
    X509 *signed_certificate = made != NULL ? make_self_signed(made, not_before, not_after) : NULL;
    ERR_clear_error();
    if (signed_certificate == NULL) {
        EVP_PKEY_free(made);
        return CERTIFICATE_NO_RESOURCES;
    }
    *key = made;
    *certificate = signed_certificate;
    return CERTIFICATE_OK;
}

/* Without it OpenSSL would ask at the terminal for the passphrase of an encrypted key. */
static int no_passphrase(char *buffer, int size, int writing, void *context) {
    (void)buffer, (void)size, (void)writing, (void)context;
    return -1;
}

static int is_p256(EVP_PKEY *key) {
    char group[64] = "";
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, group, sizeof group, NULL) &&
           strcmp(group, SN_X9_62_prime256v1) == 0;
}

int certificate_decode(const uint8_t *pem, size_t length, EVP_PKEY **key, X509 **certificate) {
    ERR_clear_error();
    if (length == 0 || length > INT_MAX) return CERTIFICATE_NO_KEY;
    BIO *key_text = BIO_new_mem_buf(pem, (int)length);
    BIO *certificate_text = BIO_new_mem_buf(pem, (int)length);
    EVP_PKEY *read_key = NULL;
    X509 *read_certificate = NULL;
    int status = CERTIFICATE_OK;
    if (key_text == NULL || certificate_text == NULL) {
        status = CERTIFICATE_NO_RESOURCES;
    } else if ((read_key = PEM_read_bio_PrivateKey(key_text, NULL, no_passphrase, NULL)) == NULL) {
        status = CERTIFICATE_NO_KEY;
    } else if ((read_certificate = PEM_read_bio_X509(certificate_text, NULL, no_passphrase, NULL)) == NULL) {
        status = CERTIFICATE_NONE;
    } else if (!is_p256(read_key)) {
        status = CERTIFICATE_KEY_TYPE;
    } else if (X509_check_private_key(read_certificate, read_key) != 1) {
        status = CERTIFICATE_KEY_MISMATCH;
    }
    BIO_free(key_text);
    BIO_free(certificate_text);
    ERR_clear_error();
    if (status != CERTIFICATE_OK) {
        certificate_free(read_key, read_certificate);
        return status;
    }
    *key = read_key;
    *certificate = read_certificate;
    return CERTIFICATE_OK;
}

uint8_t *certificate_encode(EVP_PKEY *key, X509 *certificate, size_t *length) {
    ERR_clear_error();
    uint8_t *copy = NULL;
    char *text = NULL;
    BIO *output = BIO_new(BIO_s_mem());
    if (output == NULL) return NULL;
    if (PEM_write_bio_PKCS8PrivateKey(output, key, NULL, NULL, 0, NULL, NULL) &&
        PEM_write_bio_X509(output, certificate)) {
        long size = BIO_get_mem_data(output, &text);
        if (size > 0 && (copy = OPENSSL_malloc((size_t)size)) != NULL) {
            memcpy(copy, text, (size_t)size);
            *length = (size_t)size;
        }
    }
    /* A memory BIO is overwritten when it grows (BUF_MEM_grow_clean) and when it is freed. */
    BIO_free(output);
    ERR_clear_error();
    return copy;
}

void certificate_free_pem(uint8_t *pem, size_t length) { OPENSSL_clear_free(pem, length); }

size_t certificate_digest(const X509 *certificate, int bits, uint8_t *output) {
    const EVP_MD *hash = bits == 256 ? EVP_sha256() : bits == 384 ? EVP_sha384() : bits == 512 ? EVP_sha512() : NULL;
    unsigned int length = 0;
    if (hash == NULL || certificate == NULL || !X509_digest(certificate, hash, output, &length)) return 0;
    return length;
}

static int seconds_since_1970(const ASN1_TIME *time, int64_t *seconds) {
    struct tm parts;
    if (time == NULL || !ASN1_TIME_to_tm(time, &parts)) return 0;
    *seconds = timegm(&parts);
    return 1;
}

int certificate_validity(const X509 *certificate, int64_t *not_before, int64_t *not_after) {
    return seconds_since_1970(X509_get0_notBefore(certificate), not_before) &&
           seconds_since_1970(X509_get0_notAfter(certificate), not_after);
}

/* The private number of a P-256 key has 32 bytes; its DER form would depend on what else was stored with it. */
static int private_number(const EVP_PKEY *key, uint8_t output[32]) {
    BIGNUM *number = NULL;
    int ok = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &number) && BN_bn2binpad(number, output, 32) == 32;
    BN_clear_free(number);
    return ok;
}

int certificate_derive(const EVP_PKEY *key, const char *info, uint8_t *output, size_t length) {
    uint8_t number[32];
    ERR_clear_error();
    EVP_KDF *algorithm = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = algorithm != NULL ? EVP_KDF_CTX_new(algorithm) : NULL;
    int ok = 0;
    if (context != NULL && key != NULL && private_number(key, number)) {
        OSSL_PARAM parameters[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
            OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, number, sizeof number),
            OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
            OSSL_PARAM_construct_end(),
        };
        ok = EVP_KDF_derive(context, output, length, parameters) > 0;
    }
    OPENSSL_cleanse(number, sizeof number);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(algorithm);
    ERR_clear_error();
    return ok;
}

void certificate_free(EVP_PKEY *key, X509 *certificate) {
    EVP_PKEY_free(key);
    X509_free(certificate);
}
