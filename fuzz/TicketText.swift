import Reload
import Wire

// Any bytes as a ticket: nothing may trap, and nothing may open but what was sealed. The bytes are also laid over
// a real ticket, as a mutation of it.

private let now: Int64 = 1_800_000_000

private final class Server {
    let keys: TicketKeys
    let ufrag: [UInt8]
    let password: [UInt8]
    let contents: TicketContents

    init() {
        keys = TicketKeys(secrets: [Array(repeating: 1, count: 32), Array(repeating: 2, count: 32)])
        guard let fingerprint = ClientFingerprint(digest: Array(repeating: 3, count: 32)) else {
            preconditionFailure("not a digest")
        }
        contents = TicketContents(
            clientID: ClientID(4), fingerprint: fingerprint, expires: now + 3600, certificate: 5,
            maximumMessageSize: 6, derivesInit: true)
        var random = SeededGenerator(seed: 7)
        guard let ticket = keys.seal(contents, wallClock: now, using: &random) else {
            preconditionFailure("not sealed")
        }
        ufrag = Array(ticket.ufrag.utf8)
        password = Array(ticket.password.utf8)
    }

    /// Nothing opens but the ticket itself.
    func check(_ text: [UInt8]) {
        let bytes = text.span.bytes
        let isOwn = text == ufrag
        let opened = keys.open(bytes, wallClock: now)
        let password = keys.password(for: bytes, wallClock: now)
        let isTicket = TicketKeys.isTicket(bytes)
        precondition((opened == .contents(contents)) == isOwn, "a mutation opened")
        precondition((password == self.password) == isOwn, "a mutation has the password")
        precondition(password?.count ?? 43 == 43)
        precondition(password == nil || isTicket)
        switch opened {
        case .contents, .forged: break
        case .expired: preconditionFailure("nothing was sealed that is expired")
        case .unknownVersion: precondition(isTicket && text[3] != UInt8(ascii: "1"))
        }
    }
}

nonisolated(unsafe) private let server = Server()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTicketText(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: data, count: size))
    server.check(input)
    // The first byte says where, the rest what is written over it.
    var mutated = server.ufrag
    for (index, byte) in input.dropFirst().enumerated() {
        let at = Int(input[0]) % mutated.count + index
        if at < mutated.count { mutated[at] = byte } else if mutated.count < 300 { mutated.append(byte) }
    }
    server.check(mutated)
    // As bits of it.
    var flipped = server.ufrag
    for index in stride(from: 0, to: input.count - 1, by: 2) {
        flipped[Int(input[index]) % flipped.count] ^= input[index + 1]
    }
    server.check(flipped)
    // At any time.
    let own = server.ufrag
    if let clock = input.first { _ = server.keys.open(own.span.bytes, wallClock: now &<< Int64(clock & 63)) }
    return 0
}
