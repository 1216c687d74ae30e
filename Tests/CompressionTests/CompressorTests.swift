import Foundation
import Testing
import Wire

@testable import Compression

private func description(_ name: String) throws -> [UInt8] {
    let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    return Array(try Data(contentsOf: tests.appendingPathComponent("SDPTests/Vectors/\(name).sdp")))
}

/// As signaling servers send it.
private func message(_ name: String, type: String = "offer") throws -> [UInt8] {
    let text = String(decoding: try description(name), as: UTF8.self)
    let object = ["type": type, "from": "user-17", "to": "user-4", "sdp": text]
    return Array(try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes]))
}

private func compressed(_ content: [UInt8], _ compressor: Compressor) -> [UInt8]? {
    compressor.compress(content.span.bytes)
}

private func read(_ stored: [UInt8], _ compressor: Compressor, maximumSize: Int) throws -> [UInt8] {
    try compressor.decompress(stored.span.bytes, maximumSize: maximumSize)
}

private func makeCompressor() throws -> Compressor { try #require(Compressor()) }

private func failure(_ compressor: Compressor, _ bytes: [UInt8], maximumSize: Int = 1 << 20) -> CompressionError? {
    do throws(CompressionError) {
        _ = try compressor.decompress(bytes.span.bytes, maximumSize: maximumSize)
        return nil
    } catch {
        return error
    }
}

@Test(arguments: [
    // A quarter more than measured.
    ("chromium-offer", 0.42), ("chromium-answer", 0.42), ("firefox-offer", 0.42), ("firefox-answer", 0.42),
    ("chromium-media-offer", 0.2), ("firefox-media-offer", 0.25), ("safari-offer", 0.4), ("pion-offer", 0.45),
    ("libdatachannel-offer", 0.5), ("aiortc-media-offer", 0.35),
])
func descriptionsBecomeSmall(name: String, share: Double) throws {
    let compressor = try makeCompressor()
    for content in [try description(name), try message(name)] {
        let stored = try #require(compressed(content, compressor))
        #expect(Double(stored.count) <= share * Double(content.count), "\(stored.count) of \(content.count)")
        let result = try read(stored, compressor, maximumSize: content.count)
        #expect(result == content)
    }
}

@Test func candidatesBecomeSmall() throws {
    let compressor = try makeCompressor()
    let text = """
        {"type":"ice-candidate","from":"user-1","to":"user-2","candidate":{"candidate":"candidate:1093521047 1 udp \
        2113937151 5cfb1a2e-42d4-4b0e-9d0e-8a3b6f1c77aa.local 51234 typ host generation 0 ufrag 8870 network-cost 999",\
        "sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"8870"}}
        """
    let content = Array(text.utf8)
    let stored = try #require(compressed(content, compressor))
    #expect(stored.count * 2 < content.count)
    #expect(try read(stored, compressor, maximumSize: content.count) == content)
}

@Test func shortDataStaysAsItIs() throws {
    let compressor = try makeCompressor()
    for count in 0...Compressor.minimumSize {
        let content = [UInt8](repeating: 0x61, count: count)
        #expect(compressed(content, compressor) == nil)
    }
    let content = [UInt8](repeating: 0x61, count: Compressor.minimumSize + 1)
    #expect(compressed(content, compressor) != nil)
}

@Test func dataThatSavesLessThanATenthStaysAsItIs() throws {
    let compressor = try makeCompressor()
    var random = SeededGenerator(seed: 11)
    // Ever more of it repeats: from nothing to be saved to much.
    var wasKept = false
    var wasCompressed = false
    for repeated in stride(from: 0, through: 600, by: 10) {
        let content =
            (0..<(1_000 - repeated)).map { _ in UInt8.random(in: 0...255, using: &random) }
            + [UInt8](repeating: 0x20, count: repeated)
        if let stored = compressed(content, compressor) {
            #expect(stored.count * 10 <= content.count * 9)
            #expect(try read(stored, compressor, maximumSize: 1_000) == content)
            wasCompressed = true
        } else {
            #expect(repeated < 150, "\(repeated)")
            wasKept = true
        }
    }
    #expect(wasKept && wasCompressed)
}

@Test func anythingComesBackAsItWas() throws {
    let compressor = try makeCompressor()
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed: seed)
    var pieces = [try message("firefox-media-offer"), try description("chromium-offer"), Array("🙂\0\r\n".utf8)]
    pieces.append((0..<64).map { _ in UInt8.random(in: 0...255, using: &random) })
    var compressions = 0
    for _ in 0..<2_000 {
        var content: [UInt8] = []
        for _ in 0..<Int.random(in: 0...12, using: &random) {
            let piece = pieces[Int.random(in: 0..<pieces.count, using: &random)]
            let start = Int.random(in: 0..<piece.count, using: &random)
            content += piece[start..<Int.random(in: start..<piece.count, using: &random)]
        }
        guard let stored = compressed(content, compressor) else { continue }
        compressions += 1
        #expect(stored.count * 10 <= content.count * 9, "seed \(seed)")
        let result = try read(stored, compressor, maximumSize: content.count)
        #expect(result == content, "seed \(seed)")
    }
    #expect(compressions > 1_000, "seed \(seed)")
}

@Test func largeMessagesComeBackAsTheyWere() throws {
    let compressor = try makeCompressor()
    let piece = try message("chromium-media-offer")
    for count in [16_384, 16_385, 200_000, 3 << 20, 16 << 20] {
        var content: [UInt8] = []
        content.reserveCapacity(count)
        while content.count < count { content += piece.prefix(count - content.count) }
        let stored = try #require(compressed(content, compressor))
        #expect(stored.count < count / 20)
        #expect(try read(stored, compressor, maximumSize: count) == content)
        #expect(failure(compressor, stored, maximumSize: count - 1) == .tooLarge)
    }
}

@Test func truncatedDataIsRefusedAtEveryByte() throws {
    let compressor = try makeCompressor()
    let content = try message("chromium-media-offer")
    let stored = try #require(compressed(content, compressor))
    for count in 0..<stored.count { #expect(failure(compressor, Array(stored[..<count])) == .corrupt) }
    #expect(failure(compressor, stored + [0]) == .corrupt)
    #expect(failure(compressor, stored + stored.dropFirst()) == .corrupt)
    #expect(try read(stored, compressor, maximumSize: content.count) == content)
}

@Test func alteredDataIsRefusedAtEveryBit() throws {
    let compressor = try makeCompressor()
    let content = try message("chromium-offer")
    let stored = try #require(compressed(content, compressor))
    var refused = 0
    for bit in 0..<(stored.count * 8) {
        var altered = stored
        altered[bit / 8] ^= 1 << (bit % 8)
        // RFC 8878, section 3.1.1.1.1: one bit of the frame header has no meaning.
        guard let result = try? read(altered, compressor, maximumSize: 4_096) else {
            refused += 1
            continue
        }
        #expect(result == content, "bit \(bit)")
    }
    #expect(refused >= stored.count * 8 - 8)
}

@Test func otherVersionsAreNamed() throws {
    let compressor = try makeCompressor()
    var stored = try #require(compressed(try message("chromium-offer"), compressor))
    #expect(stored[0] == Compressor.version)
    for version in UInt8.min...UInt8.max where version != Compressor.version {
        stored[0] = version
        #expect(failure(compressor, stored) == .unknownVersion(version))
    }
    #expect(failure(compressor, []) == .corrupt)
}

/// Frames with one block that repeats a byte, RFC 8878, section 3.1.1.2.2.
private func repeated(_ count: Int, claimed: UInt64?, blocks: Int = 1) -> [UInt8] {
    var frame: [UInt8] = [Compressor.version, 0x28, 0xB5, 0x2F, 0xFD]
    if let claimed {
        frame += [0xE0] + (0..<8).map { UInt8(truncatingIfNeeded: claimed >> (8 * $0)) }
    } else {
        frame += [0x00, 0x88]  // a window of 128 MiB
    }
    for block in 1...blocks {
        let header = count << 3 | 1 << 1 | (block == blocks ? 1 : 0)
        frame += [UInt8(header & 255), UInt8(header >> 8 & 255), UInt8(header >> 16 & 255), 0x61]
    }
    return frame
}

@Test func bombsAreRefused() throws {
    let compressor = try makeCompressor()
    let honest = repeated(1_000, claimed: 1_000)
    #expect(try read(honest, compressor, maximumSize: 1_000) == [UInt8](repeating: 0x61, count: 1_000))
    #expect(failure(compressor, honest, maximumSize: 999) == .tooLarge)
    // 128 GiB in 4 MB.
    #expect(failure(compressor, repeated(1 << 17, claimed: 1 << 37, blocks: 1 << 20), maximumSize: 65_536) == .tooLarge)
    // Larger than it says, smaller than it says, no word about the size, beyond all integers.
    #expect(failure(compressor, repeated(1 << 17, claimed: 1_000, blocks: 100)) == .corrupt)
    #expect(failure(compressor, repeated(1_000, claimed: 1_001)) == .corrupt)
    #expect(failure(compressor, repeated(1_000, claimed: nil, blocks: 100)) == .corrupt)
    #expect(failure(compressor, repeated(1_000, claimed: .max - 2)) == .tooLarge)
    #expect(failure(compressor, repeated(1_000, claimed: UInt64(Int.max))) == .tooLarge)
    #expect(failure(compressor, repeated(1_000, claimed: 0)) == .corrupt)
    // A frame to be skipped, alone and in front of a good one.
    let skipped: [UInt8] = [0x50, 0x2A, 0x4D, 0x18, 0x02, 0, 0, 0, 1, 2]
    #expect(failure(compressor, [Compressor.version] + skipped) == .corrupt)
    #expect(failure(compressor, [Compressor.version] + skipped + honest.dropFirst()) == .corrupt)
    #expect(failure(compressor, honest + skipped) == .corrupt)
}

@Test func aFailureLeavesNothingBehind() throws {
    let compressor = try makeCompressor()
    let content = try message("firefox-media-offer")
    let stored = try #require(compressed(content, compressor))
    for cut in stride(from: 0, to: stored.count, by: 7) {
        _ = failure(compressor, Array(stored[..<cut]))
        var random = SeededGenerator(seed: UInt64(cut))
        let noise = (0..<1_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        #expect(compressed(noise, compressor) == nil)
        #expect(try read(stored, compressor, maximumSize: content.count) == content)
        #expect(compressed(content, compressor) == stored)
    }
}

/// What stands in a database was written by an older version: the dictionary never changes.
@Test func readsWhatTheFirstVersionWrote() throws {
    let compressor = try makeCompressor()
    let stored = try #require(Data(base64Encoded: firstVersion))
    let result = try read(Array(stored), compressor, maximumSize: 1_000)
    #expect(result == Array(try description("chromium-offer")))
    #expect(SignalingDictionary.bytes.count == 11_020)
}

private let firstVersion =
    "ASi1L/1kSwHlBACTCx0MvkXn+IX+EoKi6KwP7V3+tUPSHekMPbpH8JDzB32dt/N9V330vOGhdNbuvEftCb09HRGPh0iQx5FF3RAS"
    + "ewhhWYlgFscTJQwy62PdMtwWpRXbzWTz1JoadtM2yahuWKZlBR3lGHc6bdx4X2Pdq085H3OdGQv8xpDSFJDcYY1paMV3VyLLUiTi"
    + "WCrPfJgWaLMhBW14cMgLVFBFaR+k"
