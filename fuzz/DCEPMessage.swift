import DataChannel
import Wire

/// Whatever parses must be written as a message that parses to the same.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzDCEPMessage(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: data, count: size).bytes
    guard let message = try? ControlMessage(parsing: bytes) else { return 0 }
    guard let encoded = message.encoded() else { fatalError("parsed, but cannot be written: \(message)") }
    let again = encoded.withBytes { try? ControlMessage(parsing: $0) }
    guard again == message else { fatalError("\(message) became \(String(describing: again))") }
    return 0
}
