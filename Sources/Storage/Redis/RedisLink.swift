import CHiredis
import COpenSSL
import CSystem

/// Settings of TLS connections, shared by those to one server.
final class TLSContext {
    let pointer: OpaquePointer

    init(_ settings: RedisAddress.TLS) throws(RedisDownReason) {
        var detail = [CChar](repeating: 0, count: 256)
        let made = unsafe tls_client_context(
            settings.authorities, settings.certificate, settings.key, &detail, detail.count)
        guard let made = unsafe made else {
            throw .tls(String(decoding: detail.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
        }
        pointer = unsafe made
    }

    deinit { unsafe tls_client_context_free(pointer) }
}

/// A socket on its way to a server or connected to it, TLS on it if wanted, and the parser of what comes. Closed with
/// its last reference.
final class RedisLink {
    enum Progress {
        case done(Int)
        case later
        case closed
        case failed(String)
    }

    let fd: Int32
    private var tls: OpaquePointer?
    private let reader: OpaquePointer
    /// TLS may have to write before it can read.
    private(set) var wantsWrite = false

    init(connectingTo endpoint: cs_endpoint, maximumReplyBytes: Int) throws(RedisDownReason) {
        guard let reader = unsafe reply_reader_create(maximumReplyBytes) else {
            throw .cannotConnect(String(systemError: Int32(CS_ENOMEM)))
        }
        let fd = unsafe withUnsafePointer(to: endpoint) { unsafe cs_stream_connect($0) }
        guard fd >= 0 else {
            unsafe reply_reader_destroy(reader)
            throw .cannotConnect(String(systemError: -fd))
        }
        self.fd = fd
        unsafe self.reader = reader
    }

    deinit {
        if let tls = unsafe tls { unsafe tls_client_free(tls) }
        unsafe reply_reader_destroy(reader)
        cs_close(fd)
    }

    /// nil if the connection is there.
    func connectFailure() -> String? {
        let error = cs_stream_result(fd)
        return error == 0 ? nil : String(systemError: error)
    }

    /// False without memory, or for a host that cannot be in a certificate.
    func startTLS(_ context: TLSContext, host: String) -> Bool {
        unsafe tls = tls_client_new(context.pointer, fd, host)
        return unsafe tls != nil
    }

    func handshake() -> Progress {
        guard let tls = unsafe tls else { return .done(0) }
        return unsafe progress(tls, tls_client_handshake(tls))
    }

    func write(_ bytes: UnsafeRawBufferPointer) -> Progress {
        if let tls = unsafe tls {
            return unsafe progress(tls, tls_client_write(tls, bytes.baseAddress, Int32(clamping: bytes.count)))
        }
        let sent = unsafe cs_stream_send(fd, bytes.baseAddress, UInt64(bytes.count))
        wantsWrite = sent == -Int64(CS_EAGAIN)
        if sent >= 0 { return .done(Int(sent)) }
        return wantsWrite ? .later : .failed(String(systemError: Int32(clamping: -sent)))
    }

    func read(_ bytes: UnsafeMutableRawBufferPointer) -> Progress {
        if let tls = unsafe tls {
            return unsafe progress(tls, tls_client_read(tls, bytes.baseAddress, Int32(clamping: bytes.count)))
        }
        let count = unsafe cs_stream_receive(fd, bytes.baseAddress, UInt64(bytes.count))
        if count > 0 { return .done(Int(count)) }
        if count == 0 { return .closed }
        return count == -Int64(CS_EAGAIN) ? .later : .failed(String(systemError: Int32(clamping: -count)))
    }

    private func progress(_ tls: OpaquePointer, _ result: Int32) -> Progress {
        wantsWrite = Int(result) == TLS_CLIENT_WANTS_WRITE
        switch Int(result) {
        case TLS_CLIENT_CLOSED: return .closed
        case TLS_CLIENT_WANTS_READ, TLS_CLIENT_WANTS_WRITE: return .later
        case TLS_CLIENT_FAILED: return .failed(unsafe String(cString: tls_client_problem(tls)))
        default: return .done(Int(result))
        }
    }

    // MARK: Replies

    /// False if what came cannot be Redis.
    func feed(_ bytes: UnsafeRawBufferPointer) -> Bool {
        unsafe reply_reader_feed(reader, bytes.baseAddress, bytes.count) == 0
    }

    enum Parsed {
        case reply(RedisReply)
        case incomplete
        case violation(String)
    }

    func nextReply() -> Parsed {
        var reply: UnsafeMutablePointer<reply_t>?
        let result = unsafe reply_reader_next(reader, &reply)
        guard result >= 0 else { return .violation(unsafe String(cString: reply_reader_problem(reader))) }
        guard result > 0, let reply = unsafe reply else { return .incomplete }
        defer { unsafe reply_free(reply) }
        return .reply(unsafe RedisReply(copying: reply.pointee))
    }

    var problem: String { unsafe String(cString: reply_reader_problem(reader)) }
}

extension RedisReply {
    /// Nests no deeper than the parser allows: seven levels.
    fileprivate init(copying reply: reply_t) {
        let bytes = unsafe UnsafeRawBufferPointer(start: reply.bytes, count: reply.length)
        switch unsafe reply.type {
        case REPLY_INTEGER: self = unsafe .integer(reply.integer)
        case REPLY_STATUS: self = unsafe .status(String(decoding: bytes, as: UTF8.self))
        case REPLY_BYTES: self = unsafe .bytes(Array(bytes))
        case REPLY_ERROR: self = unsafe .error(RedisError(line: String(decoding: bytes, as: UTF8.self)))
        case REPLY_ARRAY:
            var elements: [RedisReply] = []
            for index in unsafe 0..<reply.count {
                guard let element = unsafe reply.elements[index] else { continue }
                elements.append(unsafe RedisReply(copying: element.pointee))
            }
            self = .array(elements)
        default: self = .null
        }
    }
}
