// Any bytes as a STUN message: nothing may trap, and what is read must be inside the message.
import STUN
import Wire

private final class Keys {
    let short = IntegrityKey(password: "VOkJxbRl1RmTxUk/WvJxBt")
    let empty = IntegrityKey(password: "")
}

nonisolated(unsafe) private let keys = Keys()
nonisolated(unsafe) private var storage = [UInt8](repeating: 0, count: 256)

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSTUNMessage(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = unsafe UnsafeRawBufferPointer(start: data, count: size).bytes
    let peeked = peekUsername(bytes)?.byteCount
    if !isMessage(bytes) {
        check(peeked == nil)
        return 0
    }
    inspect(bytes)
    return 0
}

private func inspect(_ bytes: RawSpan) {
    guard let message = try? Message(bytes) else { return }
    for type in 0..<UInt16(0x30) {
        check((message.value(of: AttributeType(rawValue: type))?.byteCount ?? 0) <= bytes.byteCount)
    }
    for type in [0x8022, 0x8023, 0x8028, 0x8029, 0x802A, 0xC070, 0xC071] as [UInt16] {
        check((message.value(of: AttributeType(rawValue: type))?.byteCount ?? 0) <= bytes.byteCount)
    }
    if let code = message.errorCode { check(code >= 300 && code <= 699) }
    check((message.receiverUfrag?.byteCount ?? 0) + (message.senderUfrag?.byteCount ?? 0) <= bytes.byteCount)
    check(message.unknownAttributes.count <= 8 && message.refusedAttributes.count <= 8)
    _ = (message.priority, message.usesCandidate, message.iceControlled, message.iceControlling)
    _ = (message.mappedAddress, message.xorMappedAddress, message.alternateServer)
    _ = (
        message.software?.byteCount, message.realm?.byteCount, message.nonce?.byteCount, message.errorReason?.byteCount
    )
    _ = message.isAuthentic(keys.short)
    _ = message.isAuthentic(keys.empty)
    answer(message)
}

/// The answer to whatever it was must itself be a message.
private func answer(_ message: borrowing Message) {
    storage.withUnsafeMutableBytes { buffer in
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        check(writeErrorResponse(code: 420, to: message, key: keys.short, into: &output))
        let written = output.bytes
        guard let parsed = try? Message(written) else { return check(false) }
        check(parsed.isAuthentic(keys.short) && parsed.errorCode == 420)
        check(parsed.refusedAttributes.count == message.unknownAttributes.count)
    }
}

private func check(_ condition: Bool) { precondition(condition) }
