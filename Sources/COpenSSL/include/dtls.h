#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/ssl.h>

/* One DTLS connection of OpenSSL without sockets: datagrams are handed in and fetched. Not thread-safe;
 * an SSL_CTX may be shared by connections of several threads. */

typedef struct dtls_connection dtls_connection_t;

typedef enum {
    DTLS_IDLE,
    DTLS_HANDSHAKING,
    DTLS_CONNECTED,
    DTLS_CLOSED_BY_US,
    DTLS_CLOSED_BY_PEER,
    DTLS_FAILED
} dtls_state_t;

typedef enum {
    DTLS_FAILURE_NONE,
    DTLS_FAILURE_FINGERPRINT,
    DTLS_FAILURE_NO_CERTIFICATE,
    DTLS_FAILURE_ALERT,
    DTLS_FAILURE_TIMEOUT,
    DTLS_FAILURE_CLOSED_BY_PEER,
    DTLS_FAILURE_PROTOCOL,
    DTLS_FAILURE_RESOURCES
} dtls_failure_t;

/* The largest number of bytes that sealing adds: header 13, explicit nonce 8, tag 16. */
enum { DTLS_RECORD_OVERHEAD = 37 };
/* The largest plaintext of a record: bounds the write buffer of a connection. */
enum { DTLS_MAXIMUM_PLAINTEXT = 4096 };

/* Settings shared by connections. NULL if OpenSSL refuses. */
SSL_CTX *dtls_context_new(X509 *certificate, EVP_PKEY *key);

/* `mtu` bounds the UDP payloads of the handshake. NULL without memory. */
dtls_connection_t *dtls_new(SSL_CTX *context, bool is_server, size_t mtu, uint32_t first_timeout_us);
void dtls_free(dtls_connection_t *connection);

void dtls_clear_fingerprints(dtls_connection_t *connection);
/* Accepts a peer certificate whose SHA-2 of `bits` is this. False if there are too many. */
bool dtls_expect_fingerprint(dtls_connection_t *connection, int bits, const uint8_t *digest, size_t length);
/* SHA-256 of the certificate the peer has shown. */
bool dtls_peer_fingerprint(const dtls_connection_t *connection, uint8_t digest[32]);

dtls_state_t dtls_state(const dtls_connection_t *connection);
dtls_failure_t dtls_failure(const dtls_connection_t *connection);
uint8_t dtls_alert(const dtls_connection_t *connection);
/* OpenSSL's reason string of the failure, or NULL. Static. */
const char *dtls_failure_text(const dtls_connection_t *connection);
void dtls_fail(dtls_connection_t *connection, dtls_failure_t failure);

void dtls_start(dtls_connection_t *connection);

typedef enum { DTLS_TAKEN, DTLS_DROPPED, DTLS_REJECTED } dtls_receipt_t;
dtls_receipt_t dtls_receive(dtls_connection_t *connection, const void *datagram, size_t length);
/* The plaintext of one record: its length, or 0 if there is none, or if it cannot fit. */
size_t dtls_read(dtls_connection_t *connection, void *buffer, size_t capacity);
/* Writes one record as a datagram; its length, or 0. */
size_t dtls_seal(dtls_connection_t *connection, const void *plaintext, size_t length, void *buffer, size_t capacity);
/* Takes the next datagram to send; its length, or 0 if there is none or it does not fit. */
size_t dtls_poll_transmit(dtls_connection_t *connection, void *buffer, size_t capacity);

/* How long until dtls_handle_timeout; false if never. */
bool dtls_timeout_us(dtls_connection_t *connection, int64_t *microseconds);
void dtls_handle_timeout(dtls_connection_t *connection);

bool dtls_export_keys(dtls_connection_t *connection, const char *label, size_t label_length, uint8_t *keys, size_t length);
const char *dtls_version(const dtls_connection_t *connection);
const char *dtls_cipher(const dtls_connection_t *connection);
void dtls_close(dtls_connection_t *connection);
void dtls_release_buffers(dtls_connection_t *connection);
