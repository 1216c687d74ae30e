import CZstandard

/// Compresses messages with a dictionary for session descriptions, so that one of 600 bytes becomes one of 200.
///
/// What comes out is a byte that names the dictionary and one Zstandard frame (RFC 8878) with its size and checksum.
/// Used from one thread; makes its tables once, of about 1 MB.
public final class Compressor {
    /// Shorter data stays as it is.
    public static let minimumSize = 200
    /// The first byte of what `compress` makes.
    public static let version: UInt8 = 1

    /// Larger data is compressed faster and less: one message must not hold up the others for long.
    private static let longData = 16_384
    private static let thoroughLevel: CInt = 6
    private static let fastLevel: CInt = 1

    private let compression: OpaquePointer
    private let decompression: OpaquePointer
    private let thorough: OpaquePointer
    private let fast: OpaquePointer
    private let dictionary: OpaquePointer

    /// Nil if there is no memory.
    public init?() {
        let content = SignalingDictionary.bytes
        guard let compression = unsafe ZSTD_createCCtx() else { return nil }
        guard let decompression = unsafe ZSTD_createDCtx() else {
            unsafe ZSTD_freeCCtx(compression)
            return nil
        }
        let (thorough, fast, dictionary) = unsafe content.withUnsafeBytes { bytes in
            unsafe (
                ZSTD_createCDict(bytes.baseAddress, bytes.count, Self.thoroughLevel),
                ZSTD_createCDict(bytes.baseAddress, bytes.count, Self.fastLevel),
                ZSTD_createDDict(bytes.baseAddress, bytes.count)
            )
        }
        guard let thorough = unsafe thorough, let fast = unsafe fast, let dictionary = unsafe dictionary else {
            unsafe ZSTD_freeCDict(thorough)
            unsafe ZSTD_freeCDict(fast)
            unsafe ZSTD_freeDDict(dictionary)
            unsafe ZSTD_freeCCtx(compression)
            unsafe ZSTD_freeDCtx(decompression)
            return nil
        }
        // The first byte says which dictionary it is; altered data must not pass for a message.
        unsafe ZSTD_CCtx_setParameter(compression, ZSTD_c_dictIDFlag, 0)
        unsafe ZSTD_CCtx_setParameter(compression, ZSTD_c_checksumFlag, 1)
        unsafe self.compression = compression
        unsafe self.decompression = decompression
        unsafe self.thorough = thorough
        unsafe self.fast = fast
        unsafe self.dictionary = dictionary
    }

    deinit {
        unsafe ZSTD_freeCCtx(compression)
        unsafe ZSTD_freeDCtx(decompression)
        unsafe ZSTD_freeCDict(thorough)
        unsafe ZSTD_freeCDict(fast)
        unsafe ZSTD_freeDDict(dictionary)
    }

    /// The compressed form, its version byte included, if it saves a tenth; nil: keep `bytes` as they are.
    public func compress(_ bytes: RawSpan) -> [UInt8]? {
        guard bytes.byteCount > Self.minimumSize else { return nil }
        // What does not fit is not worth it, and ends the work early.
        let capacity = bytes.byteCount - (bytes.byteCount + 9) / 10
        unsafe ZSTD_CCtx_refCDict(compression, bytes.byteCount > Self.longData ? fast : thorough)
        let result = unsafe [UInt8](unsafeUninitializedCapacity: capacity) { output, count in
            count = 0
            guard let start = output.baseAddress, capacity > 1 else { return }
            unsafe start.initialize(to: Self.version)
            let written = unsafe bytes.withUnsafeBytes { input in
                unsafe ZSTD_compress2(
                    compression, start.advanced(by: 1), capacity - 1, input.baseAddress, input.count)
            }
            if ZSTD_isError(written) == 0 { count = written + 1 }
        }
        return result.isEmpty ? nil : result
    }

    /// What was compressed, of at most `maximumSize` bytes; needs no more memory than that, whatever `bytes` are.
    public func decompress(_ bytes: RawSpan, maximumSize: Int) throws(CompressionError) -> [UInt8] {
        guard bytes.byteCount > 0 else { throw .corrupt }
        let version = unsafe bytes.unsafeLoad(as: UInt8.self)
        guard version == Self.version else { throw .unknownVersion(version) }
        let result: Result<[UInt8], CompressionError> = unsafe bytes.withUnsafeBytes { input in
            unsafe decompress(frame: UnsafeRawBufferPointer(rebasing: input.dropFirst()), maximumSize: maximumSize)
        }
        return try result.get()
    }

    private func decompress(
        frame: UnsafeRawBufferPointer, maximumSize: Int
    ) -> Result<[UInt8], CompressionError> {
        // RFC 8878, section 3.1.1.1: the frame header can do without the size of the content, but none of ours does.
        let claimed = unsafe ZSTD_getFrameContentSize(frame.baseAddress, frame.count)
        // A skippable frame counts as one of size 0.
        guard claimed != reconnect_zstd_size_error, claimed != reconnect_zstd_size_unknown, claimed > 0 else {
            return .failure(.corrupt)
        }
        guard let size = Int(exactly: claimed), size <= maximumSize else { return .failure(.tooLarge) }
        // Section 3.1: frames can follow each other, and be skipped; here is one.
        guard unsafe ZSTD_findFrameCompressedSize(frame.baseAddress, frame.count) == frame.count else {
            return .failure(.corrupt)
        }
        var isWhole = false
        let content = unsafe [UInt8](unsafeUninitializedCapacity: size) { output, count in
            let written = unsafe ZSTD_decompress_usingDDict(
                decompression, output.baseAddress, size, frame.baseAddress, frame.count, dictionary)
            isWhole = ZSTD_isError(written) == 0 && written == size
            count = isWhole ? size : 0
        }
        return isWhole ? .success(content) : .failure(.corrupt)
    }
}
