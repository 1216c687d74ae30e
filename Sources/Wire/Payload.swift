/// The header of a ``Payload``.
@frozen
public struct PayloadHeader: Sendable {
    @usableFromInline var count: Int
    @usableFromInline let limit: Int
    @usableFromInline
    init(count: Int, limit: Int) {
        self.count = count
        self.limit = limit
    }
}

/// The bytes of one message in one allocation. Filled by one owner, then handed on and only read:
/// host to send queue, or reassembly to event queue, without a copy in between. (Swift does not let a ManagedBuffer be
/// Sendable: types that carry a finished payload to another thread say so themselves.)
public final class Payload: ManagedBuffer<PayloadHeader, UInt8> {
    /// An empty payload with room for `capacity` bytes.
    @inlinable
    public static func allocate(capacity: Int) -> Payload {
        let limit = max(capacity, 0)
        let made = Payload.create(minimumCapacity: limit) { _ in PayloadHeader(count: 0, limit: limit) }
        return unsafe unsafeDowncast(made, to: Payload.self)
    }

    @inlinable
    public static func copying(_ bytes: RawSpan) -> Payload {
        let payload = allocate(capacity: bytes.byteCount)
        payload.append(bytes)
        return payload
    }

    @inlinable public var count: Int { header.count }
    @inlinable public var room: Int { header.limit &- header.count }

    /// Appends a copy. False, and nothing written, if there is no room.
    @inlinable
    @discardableResult
    public func append(_ bytes: RawSpan) -> Bool {
        guard bytes.byteCount <= room else { return false }
        unsafe withUnsafeMutablePointers { header, elements in
            unsafe bytes.withUnsafeBytes { source in
                guard let base = source.baseAddress, source.count > 0 else { return }
                unsafe UnsafeMutableRawPointer(elements + header.pointee.count)
                    .copyMemory(from: base, byteCount: source.count)
            }
            unsafe header.pointee.count &+= bytes.byteCount
        }
        return true
    }

    /// Keeps the room.
    @inlinable
    public func removeAll() { header.count = 0 }

    /// The bytes, for the duration of `body`.
    @inlinable
    public func withBytes<Result>(_ body: (RawSpan) -> Result) -> Result {
        unsafe withUnsafeMutablePointers { header, elements in
            let buffer = unsafe UnsafeRawBufferPointer(start: elements, count: header.pointee.count)
            return unsafe body(buffer.bytes)
        }
    }

    /// Appends `count` bytes from `offset` on to `output`. False, and nothing written, if they are not
    /// all there or do not fit.
    @inlinable
    @discardableResult
    public func write(from offset: Int, count: Int, to output: inout OutputRawSpan) -> Bool {
        unsafe withUnsafeMutablePointers { header, elements in
            let all = unsafe UnsafeRawBufferPointer(start: elements, count: header.pointee.count)
            guard let part = all.bytes.slice(at: offset, count: count) else { return false }
            return output.write(part)
        }
    }

    /// Where the bytes lie. Valid as long as this object lives; for the C ABI's event payloads.
    @inlinable
    public var address: UnsafeRawPointer {
        withUnsafeMutablePointerToElements { UnsafeRawPointer($0) }
    }

    public func copied() -> [UInt8] { withBytes { $0.copied() } }
}
