import CReconnect
import Engine
import Wire

/// Reading what a host passed in, and writing what it asked for. NULL, zero and nonsense give a status.

/// Runs `body` in a process that may use the library, and turns what it throws into a status and a detail.
func answering(
    _ detail: UnsafeMutablePointer<CChar>?, _ capacity: Int, _ body: () throws(Failure) -> Void
) -> reconnect_status_t {
    guard !Engine.isForked else { return Status.forked.rawValue }
    do throws(Failure) {
        try body()
        return Status.ok.rawValue
    } catch {
        unsafe write(error.detail, to: detail, capacity)
        return error.status.rawValue
    }
}

func answering(_ body: () throws(Failure) -> Void) -> reconnect_status_t { answering(nil, 0, body) }

/// Writes as much of `text` as fits, whole characters only, and a NUL.
private func write(_ text: String, to buffer: UnsafeMutablePointer<CChar>?, _ capacity: Int) {
    guard let buffer = unsafe buffer, capacity > 0 else { return }
    var count = 0
    for scalar in text.unicodeScalars {
        let bytes = UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter
        guard bytes.count < capacity - count else { break }
        for byte in bytes {
            unsafe buffer[count] = CChar(bitPattern: byte)
            count += 1
        }
    }
    unsafe buffer[count] = 0
}

func engine(_ handle: reconnect_engine_t) throws(Failure) -> Engine {
    guard let engine = Engine.find(handle.id) else { throw Failure(.invalidHandle, "no engine has this handle") }
    return engine
}

func peer(_ handle: reconnect_peer_t) throws(Failure) -> PeerReference {
    guard let peer = PeerReference(handle.id) else { throw Failure(.invalidHandle, "no peer has this handle") }
    return peer
}

func channel(_ handle: reconnect_channel_t) throws(Failure) -> ChannelReference {
    guard let channel = ChannelReference(handle.id) else { throw Failure(.invalidHandle, "no channel has this handle") }
    return channel
}

func required<Pointee>(_ pointer: UnsafeMutablePointer<Pointee>?, _ name: StaticString) throws(Failure)
    -> UnsafeMutablePointer<Pointee>
{
    guard let pointer = unsafe pointer else { throw Failure(.invalidArgument, "\(name) is NULL") }
    return unsafe pointer
}

/// The bytes of a message. NULL is an empty one only if the size says so too.
func bytes(_ pointer: UnsafeRawPointer?, _ size: Int, _ name: StaticString) throws(Failure) -> UnsafeRawBufferPointer {
    guard size >= 0 else { throw Failure(.invalidArgument, "the size of \(name) is out of range") }
    guard unsafe pointer != nil || size == 0 else { throw Failure(.invalidArgument, "\(name) is NULL") }
    return unsafe UnsafeRawBufferPointer(start: pointer, count: size)
}

/// A struct that a host filled: `struct_size` bytes of it are there; members beyond are zero.
func readStruct<Value: BitwiseCopyable>(
    _ pointer: UnsafePointer<Value>, zero: Value, minimum: Int, _ name: StaticString
) throws(Failure) -> Value {
    // Every input struct begins with its size.
    let size = unsafe Int(UnsafeRawPointer(pointer).loadUnaligned(as: UInt32.self))
    guard size >= minimum, size <= 4096 else { throw Failure(.invalidArgument, "\(name).struct_size is \(size)") }
    var value = zero
    unsafe withUnsafeMutableBytes(of: &value) { target in
        unsafe target.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: min(size, target.count)))
    }
    // A newer host may know members that this library does not: they must be zero.
    for offset in MemoryLayout<Value>.size..<max(size, MemoryLayout<Value>.size)
    where unsafe UnsafeRawPointer(pointer).load(fromByteOffset: offset, as: UInt8.self) != 0 {
        throw Failure(.invalidArgument, "\(name) uses a member that this version of the library does not know")
    }
    return value
}

/// Writes as much of a struct as the host has room for, by its `struct_size`.
func writeStruct<Value: BitwiseCopyable>(_ value: Value, to pointer: UnsafeMutablePointer<Value>, _ name: StaticString)
    throws(Failure)
{
    let size = unsafe Int(UnsafeRawPointer(pointer).loadUnaligned(as: UInt32.self))
    guard size >= 8, size <= 4096 else { throw Failure(.invalidArgument, "\(name).struct_size is \(size)") }
    unsafe withUnsafeBytes(of: value) { source in
        let count = min(size, source.count)
        unsafe UnsafeMutableRawPointer(pointer).copyMemory(from: source.baseAddress!, byteCount: count)
    }
    unsafe UnsafeMutableRawPointer(pointer).storeBytes(of: UInt32(size), as: UInt32.self)
}

/// A text that ends with NUL; nil for NULL.
func text(_ pointer: UnsafePointer<CChar>?, limit: Int, _ name: StaticString) throws(Failure) -> String? {
    guard let pointer = unsafe pointer else { return nil }
    var count = 0
    while unsafe pointer[count] != 0 {
        count += 1
        guard count <= limit else { throw Failure(.invalidArgument, "\(name) is longer than \(limit) bytes") }
    }
    let bytes = unsafe UnsafeBufferPointer(
        start: UnsafeRawPointer(pointer).assumingMemoryBound(to: UInt8.self), count: count)
    guard let text = unsafe String(validating: bytes, as: UTF8.self) else {
        throw Failure(.invalidArgument, "\(name) is not UTF-8")
    }
    return text
}

func addresses(_ pointer: UnsafePointer<UnsafePointer<CChar>?>?, _ count: Int, _ name: StaticString) throws(Failure)
    -> [IPAddress]?
{
    guard count != 0 else { return nil }
    guard count > 0, count <= 256 else { throw Failure(.invalidArgument, "\(name): 1 to 256 addresses can be given") }
    guard let pointer = unsafe pointer else { throw Failure(.invalidArgument, "\(name) is NULL") }
    var result: [IPAddress] = []
    for index in 0..<count {
        guard let text = try unsafe text(pointer[index], limit: 64, name) else {
            throw Failure(.invalidArgument, "\(name)[\(index)] is NULL")
        }
        guard let ip = IPAddress(text), !ip.isUnspecified, !ip.isMulticast else {
            throw Failure(.noAddress, "\(name)[\(index)] is not an IP address that can be offered")
        }
        result.append(ip)
    }
    return result
}

/// Texts of an array; none for a count of zero.
func texts(_ pointer: UnsafePointer<UnsafePointer<CChar>?>?, _ count: Int, limit: Int, _ name: StaticString)
    throws(Failure) -> [String]
{
    guard count != 0 else { return [] }
    guard count > 0, count <= limit else { throw Failure(.invalidArgument, "\(name): at most \(limit) can be given") }
    guard let pointer = unsafe pointer else { throw Failure(.invalidArgument, "\(name) is NULL") }
    var result: [String] = []
    for index in 0..<count {
        guard let text = try unsafe text(pointer[index], limit: 512, name) else {
            throw Failure(.invalidArgument, "\(name)[\(index)] is NULL")
        }
        result.append(text)
    }
    return result
}

/// Writes a text with a NUL, and its length without. Without room for it: the capacity to come back with, `spare` more
/// than needed now.
func writeText(
    _ text: String, to buffer: UnsafeMutablePointer<CChar>?, _ capacity: Int, _ length: UnsafeMutablePointer<Int>?,
    spare: Int = 0
) throws(Failure) {
    let output = try unsafe required(length, "length")
    let count = text.utf8.count
    guard let buffer = unsafe buffer, capacity > count else {
        unsafe output.pointee = count + 1 + spare
        throw Failure(.tooSmall)
    }
    for (index, byte) in text.utf8.enumerated() { unsafe buffer[index] = CChar(bitPattern: byte) }
    unsafe buffer[count] = 0
    unsafe output.pointee = count
}

func connector(_ handle: reconnect_connector_t) throws(Failure) -> ConnectorReference {
    guard let connector = ConnectorReference(handle.id) else {
        throw Failure(.invalidHandle, "no connector has this handle")
    }
    return connector
}
