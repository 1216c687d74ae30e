import SDP
import Testing
import Wire

/// What may stand in an answer, whatever the offer was.
func onlyKnownLines(_ answer: String, _ local: LocalTransport, _ offer: SessionDescription) -> Bool {
    guard answer.hasSuffix("\r\n") else { return false }
    let text = lines(answer)
    guard text.joined(separator: "\r\n") + "\r\n" == answer else { return false }
    let known: Set<String> = [
        "v=0", "s=-", "t=0 0", "a=ice-lite", "c=IN IP4 0.0.0.0", "a=inactive", "a=setup:active", "a=setup:passive",
        "a=ice-ufrag:" + local.iceUfrag, "a=ice-pwd:" + local.icePwd, "a=end-of-candidates", "a=sctp-port:5000",
        "a=sctpmap:5000 webrtc-datachannel 1024", "a=max-message-size:262144", "a=ice-options:ice2 trickle",
        "a=fingerprint:" + Sample.fingerprintText, "o=- 42 1 IN IP4 127.0.0.1",
    ]
    var sections = 0
    for line in text where !known.contains(line) && !local.candidates.contains(String(line.dropFirst(2))) {
        let bytes = Array(line.utf8)
        guard bytes.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else { return false }
        if line.hasPrefix("m=") {
            sections += 1
        } else if !(line.hasPrefix("a=mid:") || line.hasPrefix("a=group:BUNDLE ")) {
            return false
        }
    }
    return sections == offer.media.count
}

@Suite struct Mutations {
    private static func mutate(_ bytes: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        let interesting: [UInt8] = [0, 9, 10, 13, 32, 34, 47, 58, 61, 97, 109, 0x7F, 0x80, 0xC3, 0xFF]
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            guard !bytes.isEmpty else { break }
            let at = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes[at] = interesting.randomElement(using: &random) ?? 0
            case 1: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 2: bytes.remove(at: at)
            case 3: bytes.insert(interesting.randomElement(using: &random) ?? 0, at: at)
            case 4: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...80, using: &random)))
            default:
                let other = Int.random(in: 0..<bytes.count, using: &random)
                let piece = bytes[other..<min(bytes.count, other + Int.random(in: 1...120, using: &random))]
                bytes.insert(contentsOf: Array(piece), at: at)
            }
        }
        return bytes
    }

    @Test(arguments: Vectors.offers)
    func neverInjectALineNorBreakTheAnswer(name: String) throws {
        let seed = UInt64(name.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) })
        var random = SeededGenerator(seed: seed)
        let original = Array(Vectors.text(name).utf8)
        var answered = 0
        for round in 0..<600 {
            let bytes = Self.mutate(original, &random)
            guard let offer = try? SessionDescription(parsing: bytes.span.bytes) else { continue }
            guard let answer = try? offer.answer(Sample.local, origin: Sample.origin) else { continue }
            answered += 1
            let isClean = onlyKnownLines(answer.text, Sample.local, offer)
            #expect(isClean, "seed \(seed) round \(round)")
            let again = try SessionDescription(parsing: answer.text)
            let matches =
                again.media.map(\.mid) == offer.media.map(\.mid) && again.media.map(\.kind) == offer.media.map(\.kind)
            #expect(matches, "seed \(seed) round \(round)")
            let transport = try again.dataTransport()
            #expect(transport.mid == answer.remote.mid, "seed \(seed) round \(round)")
        }
        #expect(answered > 20, "seed \(seed)")
    }

    @Test func randomBytesAreNoDescription() {
        for seed in 0..<2000 {
            var random = SeededGenerator(seed: UInt64(seed))
            let bytes = random.bytes(Int.random(in: 0...300, using: &random))
            let parsed = try? SessionDescription(parsing: bytes.span.bytes)
            #expect(parsed == nil, "seed \(seed)")
        }
    }

    /// Attributes that nobody knows come in by the dozen and do not come out.
    @Test func nothingUnknownIsEchoed() throws {
        for seed in 0..<200 {
            var random = SeededGenerator(seed: UInt64(seed))
            var extra: [String] = []
            for _ in 0..<20 {
                let word = String(random.next(), radix: 36)
                extra.append("a=marker\(word):marker \(word)")
            }
            let offer = try SessionDescription(
                parsing: Sample.offer(session: extra + ["a=group:BUNDLE 0"], lines: Sample.complete + extra))
            let answer = try offer.answer(Sample.local, origin: Sample.origin)
            let hasMarker = answer.text.contains("marker")
            #expect(!hasMarker, "seed \(seed)")
        }
    }
}
