#include "COpenSSL.h"

#include <pthread.h>
#include <string.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

/* A datagram on its way out. */
typedef struct datagram {
    struct datagram *next;
    size_t length;
    uint8_t bytes[];
} datagram_t;

typedef struct {
    int bits;
    size_t length;
    uint8_t digest[64];
} fingerprint_t;

enum {
    MAXIMUM_FINGERPRINTS = 8,
    /* Bounds the memory that a peer's endless retransmissions can claim while nobody fetches. */
    MAXIMUM_QUEUED_DATAGRAMS = 64,
    /* Records that come before their keys. OpenSSL keeps up to 100, each with a buffer of 16 KiB. */
    MAXIMUM_EARLY_RECORDS = 32,
    MAXIMUM_CERTIFICATE_CHAIN = 16 * 1024,
};

struct dtls_connection {
    SSL *ssl;
    BIO *bio;
    dtls_state_t state;
    dtls_failure_t failure;
    uint8_t alert;
    const char *failure_text;

    /* The datagram being received, borrowed from the caller of dtls_receive. */
    const uint8_t *input;
    size_t input_length;

    /* Where dtls_seal wants the record, borrowed from its caller. */
    uint8_t *output;
    size_t output_capacity;
    size_t output_length;

    datagram_t *first, *last;
    size_t queued;

    size_t mtu;
    uint32_t first_timeout_us;
    uint32_t early_records;
    bool released;

    fingerprint_t *expected;
    size_t expected_count;
    uint8_t peer_digest[32];
    bool has_peer_digest;
    bool mismatch;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static BIO_METHOD *datagram_method;
static int connection_index = -1;

/* SSL_get_error looks into the thread's error queue, which the host may use too: it must be empty before
 * each call. Clearing an empty queue costs as much as decrypting 200 bytes. */
static void clear_errors(void) {
    if (ERR_peek_error() != 0) ERR_clear_error();
}

/* --- the BIO ------------------------------------------------------------------------------- */

static bool enqueue(dtls_connection_t *connection, const uint8_t *bytes, size_t length) {
    if (connection->queued >= MAXIMUM_QUEUED_DATAGRAMS) return false;
    datagram_t *datagram = OPENSSL_malloc(sizeof *datagram + length);
    if (datagram == NULL) return false;
    datagram->next = NULL;
    datagram->length = length;
    memcpy(datagram->bytes, bytes, length);
    if (connection->last != NULL) {
        connection->last->next = datagram;
    } else {
        connection->first = datagram;
    }
    connection->last = datagram;
    connection->queued++;
    return true;
}

static void drop_queue(dtls_connection_t *connection) {
    while (connection->first != NULL) {
        datagram_t *datagram = connection->first;
        connection->first = datagram->next;
        OPENSSL_free(datagram);
    }
    connection->last = NULL;
    connection->queued = 0;
}

static int bio_write(BIO *bio, const char *bytes, int length) {
    dtls_connection_t *connection = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (connection == NULL || length <= 0) return 0;
    if (connection->output == NULL) {
        /* A datagram without room is a lost datagram: its sender's timer repeats it. */
        enqueue(connection, (const uint8_t *)bytes, (size_t)length);
        return length;
    }
    /* The sealed record is the last thing written; what was written before it goes on its own. */
    if (connection->output_length > 0) enqueue(connection, connection->output, connection->output_length);
    connection->output_length = 0;
    if ((size_t)length <= connection->output_capacity) {
        memcpy(connection->output, bytes, (size_t)length);
        connection->output_length = (size_t)length;
    }
    return length;
}

static int bio_read(BIO *bio, char *buffer, int capacity) {
    dtls_connection_t *connection = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (connection == NULL || buffer == NULL || capacity <= 0) return 0;
    if (connection->input == NULL) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t length = connection->input_length < (size_t)capacity ? connection->input_length : (size_t)capacity;
    memcpy(buffer, connection->input, length);
    connection->input = NULL;
    connection->input_length = 0;
    return (int)length;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
    case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
        return 1;
    case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD:
        return 48; /* IPv6 and UDP */
    default:
        return 0;
    }
}

static int bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static void set_up(void) {
    /* The loop thread may outlive main(): OpenSSL must not tear itself down at exit under its feet. */
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
    connection_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "datagram");
    if (method == NULL) return;
    if (BIO_meth_set_write(method, bio_write) && BIO_meth_set_read(method, bio_read) &&
        BIO_meth_set_ctrl(method, bio_control) && BIO_meth_set_create(method, bio_create)) {
        datagram_method = method;
    } else {
        BIO_meth_free(method);
    }
}

/* --- the peer's certificate ---------------------------------------------------------------- */

/* Replaces the validation of a chain: WebRTC certificates are self-signed, and what counts is that
 * the fingerprint is the one from signaling (RFC 8122 section 6.2). Runs inside the handshake, so a
 * wrong certificate ends it before Finished. */
static int verify_certificate(X509_STORE_CTX *store, void *argument) {
    (void)argument;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    dtls_connection_t *connection = ssl != NULL ? SSL_get_ex_data(ssl, connection_index) : NULL;
    X509 *certificate = X509_STORE_CTX_get0_cert(store);
    if (connection == NULL || certificate == NULL) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
        return 0;
    }
    connection->has_peer_digest = certificate_digest(certificate, 256, connection->peer_digest) == 32;
    int matches = 0;
    for (size_t index = 0; index < connection->expected_count; index++) {
        const fingerprint_t *expected = &connection->expected[index];
        uint8_t digest[64];
        size_t length = certificate_digest(certificate, expected->bits, digest);
        matches |= length > 0 && length == expected->length && CRYPTO_memcmp(digest, expected->digest, length) == 0;
    }
    connection->mismatch = !matches;
    X509_STORE_CTX_set_error(store, matches ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return matches;
}

void dtls_clear_fingerprints(dtls_connection_t *connection) {
    OPENSSL_free(connection->expected);
    connection->expected = NULL;
    connection->expected_count = 0;
}

bool dtls_expect_fingerprint(dtls_connection_t *connection, int bits, const uint8_t *digest, size_t length) {
    if (length > sizeof connection->expected->digest || connection->expected_count >= MAXIMUM_FINGERPRINTS) return false;
    fingerprint_t *grown =
        OPENSSL_realloc(connection->expected, (connection->expected_count + 1) * sizeof *connection->expected);
    if (grown == NULL) return false;
    connection->expected = grown;
    fingerprint_t *added = &grown[connection->expected_count++];
    added->bits = bits;
    added->length = length;
    memcpy(added->digest, digest, length);
    return true;
}

bool dtls_peer_fingerprint(const dtls_connection_t *connection, uint8_t digest[32]) {
    if (!connection->has_peer_digest) return false;
    memcpy(digest, connection->peer_digest, sizeof connection->peer_digest);
    return true;
}

/* --- making -------------------------------------------------------------------------------- */

SSL_CTX *dtls_context_new(X509 *certificate, EVP_PKEY *key) {
    pthread_once(&once, set_up);
    clear_errors();
    if (datagram_method == NULL || connection_index < 0) return NULL;
    SSL_CTX *context = SSL_CTX_new(DTLS_method());
    if (context == NULL) return NULL;
    SSL_CTX_set_security_level(context, 2);
    SSL_CTX_set_options(context, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_clear_options(context, SSL_OP_COOKIE_EXCHANGE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_max_cert_list(context, MAXIMUM_CERTIFICATE_CHAIN);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, verify_certificate, NULL);
    /* RFC 8827 section 6.5: ephemeral keys and authenticated encryption. The upper version stays open,
     * so that a later OpenSSL brings DTLS 1.3 by itself. */
    int ok = SSL_CTX_set_min_proto_version(context, DTLS1_2_VERSION) && SSL_CTX_set_max_proto_version(context, 0) &&
             SSL_CTX_set_max_send_fragment(context, DTLS_MAXIMUM_PLAINTEXT) &&
             SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:"
                                              "ECDHE-ECDSA-AES256-GCM-SHA384") &&
             SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") &&
             SSL_CTX_set1_sigalgs_list(context, "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:"
                                                "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA+SHA256:RSA+SHA384") &&
             /* RFC 8827 section 6.5 wants DTLS-SRTP in every WebRTC handshake: pion and aiortc end one without it, also
              * where only data channels follow. This call answers 0 for success. */
             SSL_CTX_set_tlsext_use_srtp(context, "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80") == 0 &&
             SSL_CTX_use_certificate(context, certificate) && SSL_CTX_use_PrivateKey(context, key);
    clear_errors();
    if (ok) return context;
    SSL_CTX_free(context);
    return NULL;
}

/* The first timeout comes from the measured round trip. OpenSSL gives up after twelve timeouts:
 * doubling up to five seconds leaves the end to the handshake's deadline. */
static unsigned int next_timeout(SSL *ssl, unsigned int current_us) {
    enum { LONGEST_US = 5 * 1000 * 1000 };
    dtls_connection_t *connection = SSL_get_ex_data(ssl, connection_index);
    uint32_t first = connection != NULL ? connection->first_timeout_us : 1000 * 1000;
    if (current_us == 0) return first;
    return current_us >= LONGEST_US / 2 ? LONGEST_US : current_us * 2;
}

dtls_connection_t *dtls_new(SSL_CTX *context, bool is_server, size_t mtu, uint32_t first_timeout_us) {
    clear_errors();
    dtls_connection_t *connection = OPENSSL_zalloc(sizeof *connection);
    if (connection == NULL) return NULL;
    connection->state = DTLS_IDLE;
    connection->mtu = mtu < 256 ? 256 : mtu > 4000 ? 4000 : mtu;
    connection->first_timeout_us = first_timeout_us;
    connection->ssl = SSL_new(context);
    connection->bio = BIO_new(datagram_method);
    if (connection->ssl == NULL || connection->bio == NULL || !SSL_set_ex_data(connection->ssl, connection_index, connection)) {
        BIO_free(connection->bio);
        SSL_free(connection->ssl);
        OPENSSL_free(connection);
        clear_errors();
        return NULL;
    }
    BIO_set_data(connection->bio, connection);
    SSL_set_bio(connection->ssl, connection->bio, connection->bio);
    /* The handshake is collected in a buffer of 4096 bytes that is flushed as one datagram. */
    SSL_set_mtu(connection->ssl, (long)connection->mtu);
    DTLS_set_timer_cb(connection->ssl, next_timeout);
    if (is_server) {
        SSL_set_accept_state(connection->ssl);
    } else {
        SSL_set_connect_state(connection->ssl);
    }
    return connection;
}

void dtls_free(dtls_connection_t *connection) {
    if (connection == NULL) return;
    BIO_set_data(connection->bio, NULL);
    SSL_free(connection->ssl);
    drop_queue(connection);
    dtls_clear_fingerprints(connection);
    OPENSSL_free(connection);
}

/* --- states -------------------------------------------------------------------------------- */

dtls_state_t dtls_state(const dtls_connection_t *connection) { return connection->state; }
dtls_failure_t dtls_failure(const dtls_connection_t *connection) { return connection->failure; }
uint8_t dtls_alert(const dtls_connection_t *connection) { return connection->alert; }
const char *dtls_failure_text(const dtls_connection_t *connection) { return connection->failure_text; }

void dtls_fail(dtls_connection_t *connection, dtls_failure_t failure) {
    if (connection->state > DTLS_CONNECTED) return;
    connection->state = DTLS_FAILED;
    connection->failure = failure;
}

static void fail_with_queued_error(dtls_connection_t *connection) {
    unsigned long error = ERR_peek_error();
    int reason = ERR_GET_REASON(error);
    dtls_failure_t failure = DTLS_FAILURE_PROTOCOL;
    if (connection->mismatch) {
        failure = DTLS_FAILURE_FINGERPRINT;
    } else if (error == 0 || reason == ERR_R_MALLOC_FAILURE || ERR_GET_LIB(error) == ERR_LIB_RAND) {
        failure = DTLS_FAILURE_RESOURCES;
    } else if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
        if (reason >= SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255) {
            failure = DTLS_FAILURE_ALERT;
            connection->alert = (uint8_t)(reason - SSL_AD_REASON_OFFSET);
        } else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
            failure = DTLS_FAILURE_NO_CERTIFICATE;
        } else if (reason == SSL_R_READ_TIMEOUT_EXPIRED) {
            failure = DTLS_FAILURE_TIMEOUT;
        }
    }
    connection->failure_text = ERR_reason_error_string(error);
    dtls_fail(connection, failure);
}

/* Handles what SSL_do_handshake or SSL_peek answered. */
static void settle(dtls_connection_t *connection, int result) {
    if (result > 0) return;
    switch (SSL_get_error(connection->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return;
    case SSL_ERROR_ZERO_RETURN:
        if (connection->state == DTLS_HANDSHAKING) {
            dtls_fail(connection, DTLS_FAILURE_CLOSED_BY_PEER);
        } else {
            SSL_shutdown(connection->ssl); /* answers the peer's close_notify with ours */
            connection->state = DTLS_CLOSED_BY_PEER;
        }
        return;
    default:
        fail_with_queued_error(connection);
    }
}

static void advance(dtls_connection_t *connection) {
    clear_errors();
    if (connection->state == DTLS_HANDSHAKING) {
        int result = SSL_do_handshake(connection->ssl);
        if (result == 1) {
            connection->state = DTLS_CONNECTED;
        } else {
            settle(connection, result);
        }
        clear_errors();
    }
    if (connection->state == DTLS_CONNECTED) {
        /* Looks at the next record without taking it: the datagram is decrypted now, in OpenSSL's buffer,
         * and alerts and repeated handshake messages are handled. */
        char byte;
        int result = SSL_peek(connection->ssl, &byte, 1);
        if (result <= 0) {
            settle(connection, result);
            clear_errors();
        }
    }
}

/* --- datagrams ----------------------------------------------------------------------------- */

void dtls_start(dtls_connection_t *connection) {
    if (connection->state != DTLS_IDLE) return;
    connection->state = DTLS_HANDSHAKING;
    advance(connection);
}

/* OpenSSL 3.0 writes a DTLS record to where its buffer should be, without a look whether there is one.
 * Reading makes both buffers. */
static void take_back_buffers(dtls_connection_t *connection) {
    if (!connection->released) return;
    connection->released = false;
    advance(connection);
}

/* RFC 6347 section 4.1: type 1, version 2, epoch 2, sequence number 6, length 2. */
static uint32_t encrypted_records(const uint8_t *bytes, size_t length) {
    uint32_t count = 0;
    while (length >= 13) {
        size_t record = 13 + ((size_t)bytes[11] << 8 | bytes[12]);
        if (bytes[3] != 0 || bytes[4] != 0) count++;
        if (record > length) break;
        bytes += record;
        length -= record;
    }
    return count;
}

dtls_receipt_t dtls_receive(dtls_connection_t *connection, const void *datagram, size_t length) {
    const uint8_t *bytes = datagram;
    if (connection->state != DTLS_HANDSHAKING && connection->state != DTLS_CONNECTED) return DTLS_DROPPED;
    /* RFC 9443 section 3: 20 to 63 is DTLS. A record header has 13 bytes; DTLS 1.3 has shorter ones. */
    if (length < 3 || bytes[0] < 20 || bytes[0] > 63) return DTLS_DROPPED;
    if (connection->state == DTLS_HANDSHAKING) {
        if (connection->early_records >= MAXIMUM_EARLY_RECORDS) return DTLS_DROPPED;
        connection->early_records += encrypted_records(bytes, length);
    }
    take_back_buffers(connection);
    connection->input = bytes;
    connection->input_length = length;
    dtls_state_t before = connection->state;
    advance(connection);
    bool taken = connection->input == NULL;
    connection->input = NULL;
    connection->input_length = 0;
    if (!taken) return DTLS_DROPPED;
    if (before == DTLS_CONNECTED && connection->state == DTLS_CONNECTED && SSL_pending(connection->ssl) == 0) {
        return DTLS_REJECTED;
    }
    return DTLS_TAKEN;
}

size_t dtls_read(dtls_connection_t *connection, void *buffer, size_t capacity) {
    if (connection->state != DTLS_CONNECTED) return 0;
    clear_errors();
    int pending = SSL_pending(connection->ssl);
    if (pending == 0) {
        if (!SSL_has_pending(connection->ssl)) return 0;
        advance(connection);
        if (connection->state != DTLS_CONNECTED) return 0;
        pending = SSL_pending(connection->ssl);
    }
    if (pending <= 0 || (size_t)pending > capacity) return 0;
    size_t length = 0;
    int result = SSL_read_ex(connection->ssl, buffer, capacity, &length);
    if (result != 1) {
        settle(connection, result);
        clear_errors();
        return 0;
    }
    return length;
}

size_t dtls_seal(dtls_connection_t *connection, const void *plaintext, size_t length, void *buffer, size_t capacity) {
    if (connection->state != DTLS_CONNECTED || length == 0 || length > DTLS_MAXIMUM_PLAINTEXT ||
        capacity < length + DTLS_RECORD_OVERHEAD) {
        return 0;
    }
    take_back_buffers(connection);
    if (connection->state != DTLS_CONNECTED) return 0;
    clear_errors();
    connection->output = buffer;
    connection->output_capacity = capacity;
    connection->output_length = 0;
    size_t written = 0;
    int result = SSL_write_ex(connection->ssl, plaintext, length, &written);
    size_t sealed = connection->output_length;
    connection->output = NULL;
    connection->output_capacity = 0;
    connection->output_length = 0;
    if (result == 1) return sealed;
    settle(connection, result);
    clear_errors();
    return 0;
}

size_t dtls_poll_transmit(dtls_connection_t *connection, void *buffer, size_t capacity) {
    datagram_t *datagram = connection->first;
    if (datagram == NULL || datagram->length > capacity) return 0;
    size_t length = 0, limit = connection->mtu < capacity ? connection->mtu : capacity;
    /* RFC 6347 section 4.1.1: several records may share a datagram. OpenSSL sends a flight again one record at a time;
     * a peer that got ChangeCipherSpec and lost Finished may take the data behind them for a violation (NSS does). */
    do {
        memcpy((uint8_t *)buffer + length, datagram->bytes, datagram->length);
        length += datagram->length;
        connection->first = datagram->next;
        connection->queued--;
        OPENSSL_free(datagram);
        datagram = connection->first;
    } while (datagram != NULL && length + datagram->length <= limit);
    if (connection->first == NULL) connection->last = NULL;
    return length;
}

/* --- time ---------------------------------------------------------------------------------- */

bool dtls_timeout_us(dtls_connection_t *connection, int64_t *microseconds) {
    struct timeval left;
    if (connection->state != DTLS_HANDSHAKING && connection->state != DTLS_CONNECTED) return false;
    if (!DTLSv1_get_timeout(connection->ssl, &left)) return false;
    *microseconds = (int64_t)left.tv_sec * 1000000 + left.tv_usec;
    return true;
}

void dtls_handle_timeout(dtls_connection_t *connection) {
    if (connection->state != DTLS_HANDSHAKING && connection->state != DTLS_CONNECTED) return;
    take_back_buffers(connection);
    clear_errors();
    if (DTLSv1_handle_timeout(connection->ssl) < 0) fail_with_queued_error(connection);
    clear_errors();
}

/* --- the rest ------------------------------------------------------------------------------ */

bool dtls_export_keys(dtls_connection_t *connection, const char *label, size_t label_length, uint8_t *keys, size_t length) {
    if (connection->state != DTLS_CONNECTED) return false;
    clear_errors();
    int result = SSL_export_keying_material(connection->ssl, keys, length, label, label_length, NULL, 0, 0);
    clear_errors();
    return result == 1;
}

const char *dtls_version(const dtls_connection_t *connection) { return SSL_get_version(connection->ssl); }

const char *dtls_cipher(const dtls_connection_t *connection) {
    const SSL_CIPHER *cipher = SSL_get_current_cipher(connection->ssl);
    return cipher != NULL ? SSL_CIPHER_standard_name(cipher) : NULL;
}

void dtls_close(dtls_connection_t *connection) {
    if (connection->state > DTLS_CONNECTED) return;
    take_back_buffers(connection);
    clear_errors();
    /* OpenSSL sends no close_notify before the end of the handshake. */
    if (connection->state == DTLS_CONNECTED) SSL_shutdown(connection->ssl);
    connection->state = DTLS_CLOSED_BY_US;
    clear_errors();
}

void dtls_release_buffers(dtls_connection_t *connection) {
    if (connection->state != DTLS_CONNECTED || connection->released || SSL_has_pending(connection->ssl)) return;
    connection->released = SSL_free_buffers(connection->ssl) == 1;
}
