#include "tls_stream.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_stream {
    SSL *ssl;
    BIO *in;  /* both belong to the SSL */
    BIO *out;
    int started;
    int is_other;
    char problem[256];
};

tls_stream_t *tls_stream_new(SSL_CTX *context, const char *host) {
    tls_stream_t *stream = calloc(1, sizeof *stream);
    if (!stream) return NULL;
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    stream->ssl = SSL_new(context);
    if (!stream->ssl || !in || !out) {
        BIO_free(in);
        BIO_free(out);
        goto failed;
    }
    SSL_set_bio(stream->ssl, in, out);
    stream->in = in;
    stream->out = out;
    BIO_set_mem_eof_return(in, -1);
    SSL_set_verify(stream->ssl, SSL_VERIFY_PEER, NULL);
    ASN1_OCTET_STRING *number = a2i_IPADDRESS(host);
    if (number) {
        ASN1_OCTET_STRING_free(number);
        if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(stream->ssl), host) != 1) goto failed;
    } else {
        /* RFC 6066 section 3: literal addresses are not permitted in the server name extension. */
        if (SSL_set_tlsext_host_name(stream->ssl, host) != 1 || SSL_set1_host(stream->ssl, host) != 1) goto failed;
        SSL_set_hostflags(stream->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    }
    SSL_set_connect_state(stream->ssl);
    return stream;
failed:
    ERR_clear_error();
    tls_stream_free(stream);
    return NULL;
}

void tls_stream_free(tls_stream_t *stream) {
    if (!stream) return;
    SSL_free(stream->ssl);
    free(stream);
}

int tls_stream_take(tls_stream_t *stream, const void *bytes, int count) {
    /* RFC 8446 section 5.1: every record begins with its type and a version whose first byte is 3. A server's first
       one is its part of the handshake, or an alert. */
    for (int i = 0; i < count && stream->started < 2; i++) {
        uint8_t byte = ((const uint8_t *)bytes)[i];
        if (stream->started == 0 ? byte != 22 && byte != 21 : byte != 3) stream->is_other = 1;
        stream->started++;
    }
    int taken = BIO_write(stream->in, bytes, count);
    if (taken == count) return 1;
    snprintf(stream->problem, sizeof stream->problem, "no memory");
    return 0;
}

static void say(tls_stream_t *stream, const char *text) { snprintf(stream->problem, sizeof stream->problem, "%s", text); }

static void say_verification(tls_stream_t *stream, long result) {
    switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: say(stream, "its certificate is for another name"); break;
    case X509_V_ERR_CERT_HAS_EXPIRED: say(stream, "its certificate has expired"); break;
    case X509_V_ERR_CERT_NOT_YET_VALID: say(stream, "its certificate is not valid yet"); break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_UNTRUSTED: {
        snprintf(stream->problem, sizeof stream->problem, "its certificate is signed by an unknown authority (%s)",
                 X509_verify_cert_error_string(result));
        break;
    }
    default:
        snprintf(stream->problem, sizeof stream->problem, "its certificate is refused (%s)",
                 X509_verify_cert_error_string(result));
    }
}

static int outcome(tls_stream_t *stream, int result) {
    if (result > 0) return result;
    switch (SSL_get_error(stream->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return TLS_STREAM_WAITING;
    case SSL_ERROR_ZERO_RETURN: return TLS_STREAM_CLOSED;
    default: break;
    }
    if (stream->problem[0]) return TLS_STREAM_FAILED;
    long verification = SSL_get_verify_result(stream->ssl);
    unsigned long error = ERR_get_error();
    const char *reason = error ? ERR_reason_error_string(error) : NULL;
    if (verification != X509_V_OK) {
        say_verification(stream, verification);
    } else if (stream->is_other) {
        say(stream, "what it answers is not TLS");
    } else {
        switch (ERR_GET_REASON(error)) {
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: say(stream, "it speaks no TLS of version 1.2 or later"); break;
        default: say(stream, reason ? reason : "unknown error");
        }
    }
    ERR_clear_error();
    return TLS_STREAM_FAILED;
}

int tls_stream_handshake(tls_stream_t *stream) {
    ERR_clear_error();
    return outcome(stream, SSL_do_handshake(stream->ssl));
}

int tls_stream_read(tls_stream_t *stream, void *bytes, int count) {
    ERR_clear_error();
    return outcome(stream, SSL_read(stream->ssl, bytes, count));
}

int tls_stream_write(tls_stream_t *stream, const void *bytes, int count) {
    ERR_clear_error();
    return outcome(stream, SSL_write(stream->ssl, bytes, count));
}

void tls_stream_finish(tls_stream_t *stream) {
    ERR_clear_error();
    (void)SSL_shutdown(stream->ssl);
    ERR_clear_error();
}

int tls_stream_output(tls_stream_t *stream, void *bytes, int count) {
    if (BIO_ctrl_pending(stream->out) == 0) return 0;
    int taken = BIO_read(stream->out, bytes, count);
    return taken > 0 ? taken : 0;
}

const char *tls_stream_problem(const tls_stream_t *stream) { return stream->problem; }
