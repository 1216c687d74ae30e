import COpenSSL
import CSystem
import Glibc
import Wire

@testable import Engine

/// A certificate that signs itself, and its key.
final class TestCertificate {
    private var key: OpaquePointer?
    private var certificate: OpaquePointer?

    /// `names` as OpenSSL wants them: "DNS:example.org,IP:192.0.2.1".
    init(_ names: String, from: Int = -60, until: Int = 86_400) {
        var other: OpaquePointer?
        precondition(certificate_make(Int64(time(nil)) - 60, Int64(time(nil)) + 60, &key, &other) == 0)
        certificate_free(nil, other)
        certificate = X509_new()
        X509_set_version(certificate, 2)
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), Int.random(in: 1...1_000_000_000))
        X509_gmtime_adj(X509_getm_notBefore(certificate), from)
        X509_gmtime_adj(X509_getm_notAfter(certificate), until)
        X509_set_pubkey(certificate, key)
        let name = X509_get_subject_name(certificate)
        X509_NAME_add_entry_by_txt(name, "CN", 0x1000, "test \(Int.random(in: 0..<1_000_000))", -1, -1, 0)
        X509_set_issuer_name(certificate, name)
        add(NID_subject_alt_name, names)
        add(NID_basic_constraints, "critical,CA:TRUE")
        X509_sign(certificate, key, EVP_sha256())
    }

    deinit { certificate_free(key, certificate) }

    private func add(_ kind: Int32, _ value: String) {
        var context = X509V3_CTX()
        X509V3_set_ctx(&context, certificate, certificate, nil, nil, 0)
        let made = X509V3_EXT_conf_nid(nil, &context, kind, value)
        precondition(made != nil)
        X509_add_ext(certificate, made, -1)
        X509_EXTENSION_free(made)
    }

    func install(_ context: OpaquePointer) {
        precondition(SSL_CTX_use_certificate(context, certificate) == 1)
        precondition(SSL_CTX_use_PrivateKey(context, key) == 1)
    }

    /// Trusts this certificate and no other.
    func trust() throws -> TLSTrust {
        var count = 0
        let pem = certificate_encode(key, certificate, &count)!
        defer { certificate_free_pem(pem, count) }
        var template = Array("/tmp/tls-test-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        precondition(descriptor >= 0 && write(descriptor, pem, count) == count)
        close(descriptor)
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { unlink(path) }
        return try TLSTrust(authorityPath: path)
    }
}

/// A TLS server on the loopback interface that answers each connection with the bytes it sends.
final class EchoTLSServer {
    private let listener = RawSocket.listening()
    private let context: OpaquePointer
    private var socket: RawSocket?
    private var tls: OpaquePointer?
    private var rest: [UInt8] = []
    private(set) var isOpen = false
    private(set) var isClosed = false
    /// What the client says whom it calls.
    private(set) var calledName: String?
    private(set) var version = ""
    /// Reads and answers only then.
    var isAwake = true

    init(_ certificate: TestCertificate, maximumVersion: Int = 0) {
        context = SSL_CTX_new(TLS_server_method())
        if maximumVersion != 0 {
            SSL_CTX_set_cipher_list(context, "DEFAULT:@SECLEVEL=0")
            SSL_CTX_ctrl(context, 123, 0, nil)  // SSL_CTRL_SET_MIN_PROTO_VERSION
            SSL_CTX_ctrl(context, 124, maximumVersion, nil)  // SSL_CTRL_SET_MAX_PROTO_VERSION
        }
        certificate.install(context)
    }

    deinit {
        SSL_free(tls)
        SSL_CTX_free(context)
    }

    var address: SocketAddress { listener.local }

    func turn() {
        if socket == nil, let accepted = listener.accepted() {
            socket = accepted.socket
            tls = SSL_new(context)
            SSL_set_fd(tls, accepted.socket.descriptor)
            SSL_set_accept_state(tls)
        }
        guard let tls, !isClosed, isAwake else { return }
        ERR_clear_error()
        if !isOpen {
            let result = SSL_do_handshake(tls)
            isOpen = result == 1
            guard isOpen else {
                if SSL_get_error(tls, result) != SSL_ERROR_WANT_READ { end() }
                return
            }
            calledName = SSL_get_servername(tls, TLSEXT_NAMETYPE_host_name).map { String(cString: $0) }
            version = String(cString: SSL_get_version(tls))
        }
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while rest.isEmpty {
            let count = SSL_read(tls, &buffer, Int32(buffer.count))
            guard count > 0 else {
                if SSL_get_error(tls, count) != SSL_ERROR_WANT_READ { end() }
                break
            }
            rest += buffer.prefix(Int(count))
            write(tls)
        }
        write(tls)
    }

    private func write(_ tls: OpaquePointer) {
        while !rest.isEmpty {
            let count = SSL_write(tls, rest, Int32(rest.count))
            guard count > 0 else { return }
            rest.removeFirst(Int(count))
        }
    }

    /// Says goodbye as TLS wants it.
    func end() {
        guard !isClosed else { return }
        isClosed = true
        SSL_shutdown(tls)
        socket?.finish()
    }
}
