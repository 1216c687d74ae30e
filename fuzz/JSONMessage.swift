import Signaling
import Wire

// A message that decodes must encode, and decode to the same again.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzJSONMessage(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: data, count: size)
    if let candidate = try? decodeCandidate(bytes.bytes) {
        guard let written = try? encode(candidate) else { preconditionFailure("does not encode") }
        precondition((try? decodeCandidate(written.span.bytes)) == candidate)
    }
    do throws(SignalingError) {
        let message = try decode(bytes.bytes)
        let written = try encode(message)
        let again = try decode(written.span.bytes)
        precondition(again == message, "a message changed on its way")
    } catch {
        precondition(!error.description.isEmpty)
        // Only escapes can make a text longer than the limits of what was read.
        if case .encodingFailed = error { preconditionFailure("does not encode") }
    }
    return 0
}
