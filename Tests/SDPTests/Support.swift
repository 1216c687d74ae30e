import Foundation
import SDP
import Wire

/// The descriptions in Vectors: of browsers and libraries as seen, or modelled on what they send.
enum Vectors {
    static let offers = [
        "chromium-offer", "chromium-munged-offer", "chromium-snap-icedtls-offer", "chromium-media-offer",
        "chromium-restart-offer", "firefox-offer", "firefox-munged-offer", "firefox-media-offer",
        "firefox-max-bundle-offer", "firefox-restart-offer", "safari-offer", "pion-offer", "aiortc-offer",
        "aiortc-media-offer", "aiortc-legacy-offer", "libdatachannel-offer", "gstreamer-offer", "bundle-only-offer",
    ]
    /// Offers made before any candidate was there.
    static let withoutCandidates: Set = [
        "chromium-media-offer", "chromium-restart-offer", "firefox-media-offer", "firefox-max-bundle-offer",
        "firefox-restart-offer", "gstreamer-offer",
    ]
    static let answers = ["chromium-answer", "chromium-snap-icedtls-answer", "firefox-answer"]

    static func text(_ name: String) -> String {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Vectors/\(name).sdp")
        guard let data = try? Data(contentsOf: file) else { return "" }
        return String(decoding: data, as: UTF8.self)
    }

    static func parse(_ name: String) throws -> SessionDescription { try SessionDescription(parsing: text(name)) }
}

enum Sample {
    static let fingerprint = Fingerprint(hash: .sha256, digest: Array(0..<32))!
    static let fingerprintText =
        "sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F"
    static let candidates = [
        "candidate:1 1 udp 2130706431 2001:db8::1 50000 typ host",
        "candidate:2 1 udp 2113929471 192.0.2.1 50000 typ host",
    ]

    static var local: LocalTransport {
        var local = LocalTransport(
            iceUfrag: "lrc1/AbC+", icePwd: "localpasswordlocalpassword", fingerprints: [fingerprint])
        local.isLite = true
        local.candidates = candidates
        local.hasEndOfCandidates = true
        return local
    }

    static let origin = Origin(id: 42)

    /// A minimal offer, its data section ending in `lines`.
    static func offer(
        session: [String] = ["a=group:BUNDLE 0"], media: String = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        lines: [String] = complete
    ) -> String {
        (["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"] + session + [media] + lines).map { $0 + "\r\n" }.joined()
    }

    static let ufrag = "a=ice-ufrag:abcd"
    static let password = "a=ice-pwd:abcdefghijklmnopqrstuv"
    static let print = "a=fingerprint:" + fingerprintText
    static let complete = [ufrag, password, print, "a=setup:actpass", "a=mid:0", "a=sctp-port:5000"]
}

func lines(_ text: String) -> [String] {
    text.split(separator: "\r\n", omittingEmptySubsequences: true).map(String.init)
}

func parseError(_ text: String, limits: Limits = Limits()) -> ParseError? {
    do throws(ParseError) {
        _ = try SessionDescription(parsing: text, limits: limits)
        return nil
    } catch {
        return error
    }
}

func answerError(_ text: String, local: LocalTransport = Sample.local) throws -> NegotiationError? {
    let offer = try SessionDescription(parsing: text)
    do throws(NegotiationError) {
        _ = try offer.answer(local, origin: Sample.origin)
        return nil
    } catch {
        return error
    }
}
