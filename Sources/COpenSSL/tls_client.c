#include "tls_client.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_client {
    SSL *ssl;
    char problem[160];
};

static const char *first_reason(void) {
    unsigned long error = ERR_get_error();
    const char *reason = error ? ERR_reason_error_string(error) : NULL;
    ERR_clear_error();
    return reason ? reason : "unknown error";
}

/* An encrypted key is an unusable one: nobody is there to be asked. */
static int no_passphrase(char *buffer, int size, int writing, void *context) {
    (void)buffer;
    (void)size;
    (void)writing;
    (void)context;
    return -1;
}

SSL_CTX *tls_client_context(const char *authorities, const char *certificate, const char *key, char *detail,
                            size_t capacity) {
    ERR_clear_error();
    const char *what = "cannot make a context";
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context) goto failed;
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) goto failed;
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
    what = "cannot read the trusted certificates";
    if ((authorities ? SSL_CTX_load_verify_locations(context, authorities, NULL)
                     : SSL_CTX_set_default_verify_paths(context)) != 1)
        goto failed;
    if (certificate) {
        what = "cannot read the client certificate";
        if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1) goto failed;
    }
    if (key) {
        what = "cannot use the client certificate's key";
        if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) goto failed;
        if (SSL_CTX_check_private_key(context) != 1) goto failed;
    }
    return context;
failed:
    snprintf(detail, capacity, "%s: %s", what, first_reason());
    SSL_CTX_free(context);
    return NULL;
}

void tls_client_context_free(SSL_CTX *context) { SSL_CTX_free(context); }

tls_client_t *tls_client_new(SSL_CTX *context, int fd, const char *host) {
    tls_client_t *client = calloc(1, sizeof *client);
    if (!client) return NULL;
    client->ssl = SSL_new(context);
    if (!client->ssl || SSL_set_fd(client->ssl, fd) != 1) goto failed;
    ASN1_OCTET_STRING *number = a2i_IPADDRESS(host);
    if (number) {
        ASN1_OCTET_STRING_free(number);
        if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(client->ssl), host) != 1) goto failed;
    } else {
        /* RFC 6066 section 3: literal addresses are not permitted in the server name extension. */
        if (SSL_set_tlsext_host_name(client->ssl, host) != 1 || SSL_set1_host(client->ssl, host) != 1) goto failed;
        SSL_set_hostflags(client->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    }
    SSL_set_connect_state(client->ssl);
    return client;
failed:
    ERR_clear_error();
    tls_client_free(client);
    return NULL;
}

void tls_client_free(tls_client_t *client) {
    if (!client) return;
    SSL_free(client->ssl);
    free(client);
}

static int outcome(tls_client_t *client, int result) {
    if (result > 0) return result;
    int system_error = errno;
    switch (SSL_get_error(client->ssl, result)) {
    case SSL_ERROR_WANT_READ: return TLS_CLIENT_WANTS_READ;
    case SSL_ERROR_WANT_WRITE: return TLS_CLIENT_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN: return TLS_CLIENT_CLOSED;
    case SSL_ERROR_SYSCALL:
        snprintf(client->problem, sizeof client->problem, "%s",
                 system_error ? strerror(system_error) : "closed without notice");
        return TLS_CLIENT_FAILED;
    default: {
        long verification = SSL_get_verify_result(client->ssl);
        snprintf(client->problem, sizeof client->problem, "%s",
                 verification != X509_V_OK ? X509_verify_cert_error_string(verification) : first_reason());
        ERR_clear_error();
        return TLS_CLIENT_FAILED;
    }
    }
}

int tls_client_handshake(tls_client_t *client) {
    ERR_clear_error();
    errno = 0;
    return outcome(client, SSL_do_handshake(client->ssl));
}

int tls_client_read(tls_client_t *client, void *bytes, int count) {
    ERR_clear_error();
    errno = 0;
    return outcome(client, SSL_read(client->ssl, bytes, count));
}

int tls_client_write(tls_client_t *client, const void *bytes, int count) {
    ERR_clear_error();
    errno = 0;
    return outcome(client, SSL_write(client->ssl, bytes, count));
}

const char *tls_client_problem(const tls_client_t *client) { return client->problem; }
