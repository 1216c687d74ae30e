import CChecksum
import Wire

/// The CRC32C of a packet whose checksum field counts as zero (RFC 9260 section 6.8, appendix A), in
/// the byte order of the field.
func packetChecksum(_ packet: RawSpan) -> UInt32 {
    unsafe packet.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else { return 0 }
        return unsafe reconnect_crc32c_sctp(base, bytes.count).byteSwapped
    }
}
