import SDP
import Wire

// What a description does to the answer made for it: if it parses, answer it, read the answer again,
// and see that nothing came in that this library did not put there. The first byte chooses our end.

private let fingerprint = Fingerprint(hash: .sha256, digest: Array(repeating: 0xAB, count: 32))!

private let candidate = "candidate:1 1 udp 2130706431 2001:db8::1 50000 typ host"

private func local(_ choice: UInt8) -> LocalTransport {
    var local = LocalTransport(
        iceUfrag: "fuzzufrag", icePwd: "fuzzpasswordfuzzpassword", fingerprints: [fingerprint])
    local.isLite = choice & 1 != 0
    local.hasEndOfCandidates = choice & 2 != 0
    if choice & 4 != 0 { local.candidates = [candidate] }
    if choice & 8 != 0 { local.sctpInit = "AQAAHg==" }
    return local
}

private let ours: Set<String> = [
    "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite", "c=IN IP4 0.0.0.0", "a=inactive",
    "a=ice-ufrag:fuzzufrag", "a=ice-pwd:fuzzpasswordfuzzpassword", "a=ice-options:ice2 trickle",
    "a=fingerprint:" + fingerprint.description, "a=setup:active", "a=setup:passive", "a=sctp-port:5000",
    "a=sctpmap:5000 webrtc-datachannel 1024", "a=max-message-size:262144", "a=sctp-init:AQAAHg==",
    "a=" + candidate, "a=end-of-candidates",
]

private func check(_ offer: SessionDescription, _ answer: Answer) {
    precondition(answer.text.hasSuffix("\r\n"))
    var mediaLines = 0
    for line in answer.text.split(separator: "\r\n", omittingEmptySubsequences: false).dropLast() {
        let line = String(line)
        precondition(line.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F }, "control byte in the answer")
        if ours.contains(line) { continue }
        if line.hasPrefix("m=") {
            mediaLines += 1
        } else {
            precondition(line.hasPrefix("a=mid:") || line.hasPrefix("a=group:BUNDLE "), "a line that is not ours")
        }
    }
    precondition(mediaLines == offer.media.count)

    guard let again = try? SessionDescription(parsing: answer.text) else {
        preconditionFailure("answer does not parse")
    }
    precondition(again.media.map(\.kind) == offer.media.map(\.kind))
    precondition(again.media.map(\.mid) == offer.media.map(\.mid))
    precondition(again.media.map(\.protocol) == offer.media.map(\.protocol))
    precondition(again.media.filter { !$0.isRejected }.count == 1)
    guard let transport = try? again.dataTransport() else { preconditionFailure("answer without a transport") }
    precondition(transport.mediaIndex == answer.remote.mediaIndex)
    precondition(transport.iceUfrag == "fuzzufrag")
    precondition(transport.setup == (answer.isDTLSClient ? .active : .passive))
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSDPDescription(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    guard size > 0 else { return 0 }
    let choice = data[0]
    let bytes = UnsafeRawBufferPointer(start: data + 1, count: size - 1)
    guard let offer = try? SessionDescription(parsing: bytes.bytes) else { return 0 }
    let role: SetupRole = choice & 16 != 0 ? .active : .passive
    if let answer = try? offer.answer(local(choice), origin: Origin(id: 1), preferring: role) { check(offer, answer) }
    if let ourOffer = try? Offer(local(choice), origin: Origin(id: 1)) { _ = try? ourOffer.accept(offer) }
    return 0
}
