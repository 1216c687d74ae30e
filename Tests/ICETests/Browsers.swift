import Testing
import Wire

@testable import ICE

private func hex(_ text: String) -> [UInt8] {
    let digits = text.utf8.compactMap(\.hexadecimalValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// Checks as browsers send them, attribute by attribute, put together and signed by another
/// implementation of HMAC and CRC.
@Suite struct Browsers {
    static let credentials = Credentials(ufrag: "lrc1", password: "0123456789abcdefghijklmn")!

    /// Chromium: USERNAME lrc1:Fz8k, GOOG-NETWORK-INFO, ICE-CONTROLLING, PRIORITY; no USE-CANDIDATE yet.
    static let first = hex(chromiumFirst)
    /// The same with USE-CANDIDATE and the nomination attribute, after GOOG-LAST-ICE-CHECK-RECEIVED.
    static let nominating = hex(chromiumNominating)
    /// Firefox: USERNAME behind the ICE attributes, USE-CANDIDATE from the start.
    static let firefox = hex(firefoxFirst)

    private func answerer() -> Agent {
        let agent = Agent(
            .init(role: .controlled, isLite: true, credentials: Browsers.credentials),
            localCandidates: Candidate.host([b4]), random: SeededGenerator(seed: 1))
        agent.start(now: Instant(nanoseconds: 0))
        return agent
    }

    @Test func chromiumsFirstCheckIsAnsweredByteForByte() {
        let agent = answerer()
        let now = Instant(nanoseconds: 5)
        #expect(agent.handle(Datagram(from: a4, to: b4, bytes: Browsers.first), now) == .consumed)
        let sent = agent.drain(now)
        #expect(sent.count == 1 && sent[0].bytes == hex(answerToChromium))
        #expect(agent.drainEvents() == [.verified(Path(local: b4, remote: a4))])
        #expect(agent.handle(Datagram(from: a4, to: b4, bytes: Browsers.nominating), now) == .consumed)
        #expect(agent.drainEvents() == [.selected(Path(local: b4, remote: a4))])
    }

    @Test func firefoxIsSelectedByItsFirstCheck() {
        let agent = answerer()
        let now = Instant(nanoseconds: 5)
        #expect(agent.handle(Datagram(from: a4, to: b4, bytes: Browsers.firefox), now) == .consumed)
        #expect(
            agent.drainEvents() == [.verified(Path(local: b4, remote: a4)), .selected(Path(local: b4, remote: a4))])
    }
}

/// 0xC057: network id 1, cost 10.
private let chromiumFirst = """
    0001004c2112a4424b6d5a2f77416b4e39317a58000600096c7263313a467a386b000000c0570004
    0001000a802a00085d3c8e21a0b19f44002400046e7f1eff000800144e204d57d1c0ad250f6c38df
    bab9a0ae8acf9e76802800048e86f4ac
    """

/// 0xC05C: the last check received; 0xC001: the nomination's number.
private let chromiumNominating = """
    000100682112a4424b6d5a2f77416b4e39317a59000600096c7263313a467a386b000000c0570004
    0001000ac05c000c4b6d5a2f77416b4e39317a58802a00085d3c8e21a0b19f4400250000c0010004
    00000001002400046e7f1eff000800147bf77f4cd194b745be4abb5baa6a18704ddce98a80280004
    aded9e33
    """

/// All in one.
private let firefoxFirst = """
    000100482112a442a1b2c3d4e5f60718293a4b5c002400046e7f1eff802a00085d3c8e21a0b19f44
    00250000000600096c7263313a467a386b00000000080014389b6a860b9c573bbff0c0e131932557
    6fe74025802800046b548bb9
    """

/// XOR-MAPPED-ADDRESS 192.0.2.1:1000, MESSAGE-INTEGRITY, FINGERPRINT.
private let answerToChromium = """
    0101002c2112a4424b6d5a2f77416b4e39317a5800200008000122fae112a643000800142fe2c55a
    e3dcd39c795a12cd44e9e8d6b4e412a680280004fdb738dc
    """
