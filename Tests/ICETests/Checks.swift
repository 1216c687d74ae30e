import STUN
import Wire

@testable import ICE

/// Checks made by hand, and a look into those made by agents.
enum Checks {
    static func nominates(_ bytes: [UInt8]) -> Bool {
        guard let message = try? Message(bytes.span.bytes) else { return false }
        return message.messageClass == .request && message.usesCandidate
    }

    static func isRequest(_ bytes: [UInt8]) -> Bool {
        guard let message = try? Message(bytes.span.bytes) else { return false }
        return message.messageClass == .request
    }

    static func xorMapped(_ bytes: [UInt8]) -> SocketAddress? { (try? Message(bytes.span.bytes))?.xorMappedAddress }

    static func nomination(_ bytes: [UInt8]) -> UInt32? { (try? Message(bytes.span.bytes))?.nomination }

    /// The success response to a check.
    static func answer(_ check: [UInt8], mapped: SocketAddress, password: String) -> [UInt8] {
        guard let id = (try? Message(check.span.bytes))?.transactionID else { return [] }
        return [UInt8](unsafeUninitializedCapacity: 1200) { buffer, count in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            var writer = MessageWriter(.success, id: id, to: &output)
            writer.append(.xorMappedAddress, mapped, to: &output)
            writer.finish(IntegrityKey(password: password), to: &output)
            count = output.finalize(for: bytes)
        }
    }

    static func errorCode(_ bytes: [UInt8]) -> Int? { (try? Message(bytes.span.bytes))?.errorCode }

    static func isAuthentic(_ bytes: [UInt8], _ password: String) -> Bool {
        (try? Message(bytes.span.bytes))?.isAuthentic(IntegrityKey(password: password)) ?? false
    }

    /// A check for the agent with `credentials`.
    static func make(
        for credentials: Credentials, from sender: String = "peer", id: UInt64, priority: UInt32 = 0x6E7F_FEFF,
        nominates: Bool = false, password: String? = nil, algorithm: IntegrityAlgorithm = .sha1,
        extra: [(UInt16, [UInt8])] = []
    ) -> [UInt8] {
        build(.request, id) { writer, output in
            writer.append(.username, Array("\(credentials.ufrag):\(sender)".utf8).span.bytes, to: &output)
            for (type, value) in extra {
                writer.append(AttributeType(rawValue: type), value.span.bytes, to: &output)
            }
            writer.append(.iceControlling, 0xFFFF_FFFF_FFFF_FFFF as UInt64, to: &output)
            if nominates { writer.append(.useCandidate, to: &output) }
            writer.append(.priority, priority, to: &output)
            writer.finish(IntegrityKey(password: password ?? credentials.password), algorithm, to: &output)
        }
    }

    static func build(
        _ messageClass: MessageClass, _ id: UInt64, _ body: (inout MessageWriter, inout OutputRawSpan) -> Void
    ) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 1200) { buffer, count in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            var writer = MessageWriter(messageClass, id: TransactionID(high: 0xC0FF_EE00, low: id), to: &output)
            body(&writer, &output)
            count = output.finalize(for: bytes)
        }
    }
}
