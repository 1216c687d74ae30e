import CChecksum
import Testing
import Wire

@testable import SCTP

@Suite struct Checksums {
    /// RFC 3720 appendix B.4, and the check value of the CRC catalogues.
    static let vectors: [([UInt8], UInt32)] = [
        (Array("123456789".utf8), 0xE306_9283),
        ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
        ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
        (Array(0..<32), 0x46DD_794E),
        (Array((0..<32).reversed()), 0x113F_DB5C),
        ([], 0),
    ]

    @Test func knownValues() {
        for (bytes, expected) in Self.vectors {
            let hardware = bytes.withUnsafeBytes { reconnect_crc32c(0, $0.baseAddress, $0.count) }
            let portable = bytes.withUnsafeBytes { reconnect_crc32c_portable(0, $0.baseAddress, $0.count) }
            #expect(hardware == expected)
            #expect(portable == expected)
        }
    }

    @Test func hardwareAgreesWithTables() {
        var generator = SeededGenerator(seed: 7)
        let bytes = generator.bytes(5000)
        for count in Array(0..<700) + [1023, 1024, 1151, 1200, 1535, 1536, 1537, 3000, 4096, 4999] {
            for offset in [0, 1, 7] where offset + count <= bytes.count {
                let (hardware, portable) = bytes.withUnsafeBytes { all in
                    (
                        reconnect_crc32c(0xDEAD_BEEF, all.baseAddress! + offset, count),
                        reconnect_crc32c_portable(0xDEAD_BEEF, all.baseAddress! + offset, count)
                    )
                }
                #expect(hardware == portable, "\(count) bytes at \(offset)")
            }
        }
    }

    @Test func fieldCountsAsZero() {
        var generator = SeededGenerator(seed: 8)
        var packet = generator.bytes(64)
        let before = packetChecksum(packet.span.bytes)
        packet.replaceSubrange(8..<12, with: [0, 0, 0, 0])
        let zeroed = packetChecksum(packet.span.bytes)
        let whole = packet.withUnsafeBytes { reconnect_crc32c(0, $0.baseAddress, $0.count) }
        #expect(before == zeroed && zeroed == whole.byteSwapped)
        let short: [UInt8] = [1, 2, 3]
        #expect(packetChecksum(short.span.bytes) == 0)
    }
}
