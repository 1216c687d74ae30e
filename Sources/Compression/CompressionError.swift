/// Why compressed data was not taken.
public enum CompressionError: Error, Equatable {
    /// A dictionary that this version does not have, or no compressed data at all.
    case unknownVersion(UInt8)
    /// Truncated, altered, or with something behind it.
    case corrupt
    /// It says that it is larger than allowed.
    case tooLarge
}
