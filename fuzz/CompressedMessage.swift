import Compression

// Whatever is in a store: it is read within the limit, and what is read can be written and read again.

nonisolated(unsafe) private let compressor = Compressor()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCompressedMessage(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    guard let compressor, let data else { return 0 }
    let bytes = unsafe UnsafeRawBufferPointer(start: data, count: size).bytes
    for limit in [64, 65_536] {
        guard let content = try? compressor.decompress(bytes, maximumSize: limit) else { continue }
        precondition(!content.isEmpty && content.count <= limit)
        check(content, compressor)
    }
    if size < 65_536 { check(unsafe Array(UnsafeBufferPointer(start: data, count: size)), compressor) }
    return 0
}

private func check(_ content: [UInt8], _ compressor: Compressor) {
    guard let compressed = compressor.compress(content.span.bytes) else { return }
    precondition(content.count > 200 && compressed.count * 10 <= content.count * 9)
    precondition((try? compressor.decompress(compressed.span.bytes, maximumSize: content.count)) == content)
    precondition((try? compressor.decompress(compressed.span.bytes, maximumSize: content.count - 1)) == nil)
}
