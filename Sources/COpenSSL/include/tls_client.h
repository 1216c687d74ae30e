#pragma once
#include <stddef.h>
#include <stdint.h>
#include <openssl/ssl.h>

/* TLS 1.2 and later over a connected non-blocking socket, as a client that verifies the server's certificate and name. */

/* Settings for connections. `authorities`: a PEM file of certificates to trust; NULL: the system's. `certificate` and
   `key`: PEM files of a client certificate; NULL: none. On failure NULL, and a sentence in `detail`. */
SSL_CTX *tls_client_context(const char *authorities, const char *certificate, const char *key, char *detail,
                            size_t capacity);
void tls_client_context_free(SSL_CTX *context);

typedef struct tls_client tls_client_t;

/* `host`, a name or an IP address in numbers, must be in the server's certificate. The socket stays the caller's.
   NULL without memory. */
tls_client_t *tls_client_new(SSL_CTX *context, int fd, const char *host);
void tls_client_free(tls_client_t *client);

enum { TLS_CLIENT_CLOSED = 0, TLS_CLIENT_WANTS_READ = -1, TLS_CLIENT_WANTS_WRITE = -2, TLS_CLIENT_FAILED = -3 };

/* 1 when finished, or one of the above. */
int tls_client_handshake(tls_client_t *client);
/* The number of bytes, or one of the above. A write that wants something must be repeated with the same bytes, and
   maybe more after them. */
int tls_client_read(tls_client_t *client, void *bytes, int count);
int tls_client_write(tls_client_t *client, const void *bytes, int count);

/* What failed; lives as long as the client. */
const char *tls_client_problem(const tls_client_t *client);
