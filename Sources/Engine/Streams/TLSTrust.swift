import COpenSSL
import Wire

/// Whose certificates TLS connections accept. Made once: reading the system's authorities takes milliseconds.
final class TLSTrust {
    fileprivate let context: OpaquePointer

    /// `authorityPath`: a PEM file; nil: the system's authorities.
    init(authorityPath: String?) throws(Failure) {
        var detail = [CChar](repeating: 0, count: 256)
        let made = unsafe tls_client_context(authorityPath, nil, nil, &detail, detail.count)
        guard let made = unsafe made else {
            let sentence = String(decoding: detail.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let place = authorityPath.map { " of \($0)" } ?? ""
            throw Failure(.turnTLSFailed, "TLS\(place): \(sentence)")
        }
        unsafe context = made
    }

    deinit { unsafe tls_client_context_free(context) }
}

/// TLS of one connection, without its socket.
struct TLSSession: ~Copyable {
    enum Progress: Equatable {
        case done(Int)
        case later
        case closed
        case failed(String)
    }

    private let pointer: OpaquePointer

    /// Nil without memory, and for a host that cannot be in a certificate.
    init?(_ trust: TLSTrust, host: String) {
        let made = unsafe tls_stream_new(trust.context, host)
        guard let made = unsafe made else { return nil }
        unsafe pointer = made
    }

    deinit { unsafe tls_stream_free(pointer) }

    /// What the socket had. False without memory.
    func take(_ bytes: RawSpan) -> Bool {
        unsafe bytes.withUnsafeBytes { unsafe tls_stream_take(pointer, $0.baseAddress, Int32(clamping: $0.count)) } == 1
    }

    func handshake() -> Progress { progress(unsafe tls_stream_handshake(pointer)) }

    func read(_ buffer: UnsafeMutableRawBufferPointer) -> Progress {
        progress(unsafe tls_stream_read(pointer, buffer.baseAddress, Int32(clamping: buffer.count)))
    }

    func write(_ bytes: RawSpan) -> Progress {
        let result = unsafe bytes.withUnsafeBytes {
            unsafe tls_stream_write(pointer, $0.baseAddress, Int32(clamping: $0.count))
        }
        return progress(result)
    }

    /// Says that nothing more will come.
    func finish() { unsafe tls_stream_finish(pointer) }

    /// Moves what is to be sent; nothing is left after it.
    func moveOutput(to queue: inout ByteQueue) {
        withUnsafeTemporaryAllocation(byteCount: 16_640, alignment: 16) { buffer in
            while true {
                let count = unsafe tls_stream_output(pointer, buffer.baseAddress, Int32(clamping: buffer.count))
                guard count > 0 else { return }
                let part = unsafe UnsafeRawBufferPointer(rebasing: buffer[..<Int(count)])
                unsafe queue.append(part.bytes)
            }
        }
    }

    private func progress(_ result: Int32) -> Progress {
        if result > 0 { return .done(Int(result)) }
        switch Int(result) {
        case TLS_STREAM_WAITING: return .later
        case TLS_STREAM_CLOSED: return .closed
        default: return .failed(unsafe String(cString: tls_stream_problem(pointer)))
        }
    }
}
