#pragma once
#include <stddef.h>
#include <stdint.h>
#include <openssl/ssl.h>

/* The client's side of TLS 1.2 and later, without a socket: bytes that came are handed in, those to send are fetched. The
   context is one of tls_client_context(). */

typedef struct tls_stream tls_stream_t;

/* `host`, a name or an IP address in numbers, must be in the server's certificate. NULL without memory, or for what
   cannot be in one. */
tls_stream_t *tls_stream_new(SSL_CTX *context, const char *host);
void tls_stream_free(tls_stream_t *stream);

enum { TLS_STREAM_WAITING = 0, TLS_STREAM_FAILED = -1, TLS_STREAM_CLOSED = -2 };

/* Takes what the socket had. 0 without memory. */
int tls_stream_take(tls_stream_t *stream, const void *bytes, int count);
/* 1 when finished, or one of the above. */
int tls_stream_handshake(tls_stream_t *stream);
/* The number of bytes, or one of the above. */
int tls_stream_read(tls_stream_t *stream, void *bytes, int count);
/* The number of bytes that were taken, which is all after the handshake, or one of the above. */
int tls_stream_write(tls_stream_t *stream, const void *bytes, int count);
/* Says that nothing more will come. */
void tls_stream_finish(tls_stream_t *stream);

/* Fetches what is to be sent; the number of bytes, 0: nothing. */
int tls_stream_output(tls_stream_t *stream, void *bytes, int count);

/* What failed, in the middle of a sentence; lives as long as the stream. */
const char *tls_stream_problem(const tls_stream_t *stream);
