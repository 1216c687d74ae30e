import Signaling
import Wire

// A message of the control channel, or a ticket alone, that decodes must encode, and decode to the same again.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzControlMessage(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: data, count: size)
    if let ticket = try? decodeTicket(bytes.bytes) {
        guard let written = try? encode(ticket) else { preconditionFailure("does not encode") }
        precondition((try? decodeTicket(written.span.bytes)) == ticket)
    }
    do throws(SignalingError) {
        let message = try decodeControl(bytes.bytes)
        if case .ticket(let ticket, _) = message { check(ticket) }
        let written = try encode(message)
        let again = try decodeControl(written.span.bytes)
        precondition(again == message, "a message changed on its way")
    } catch {
        precondition(!error.description.isEmpty)
        if case .encodingFailed = error { preconditionFailure("does not encode") }
    }
    return 0
}

/// Everything that goes into a session description as it is stays in its line.
private func check(_ ticket: Ticket) {
    for text in ticket.candidates + [ticket.ufrag, ticket.password, ticket.fingerprint] {
        precondition(text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F }, "a line end in a ticket")
    }
    precondition(!ticket.candidates.isEmpty && ticket.candidates.count <= 32)
    precondition(ticket.sctpPort != 0 && ticket.expires > 0)
}
