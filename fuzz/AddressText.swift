import Wire

/// Text of an IP address: what parses prints canonically, and the canonical text parses to the same address.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let text = unsafe UnsafeRawBufferPointer(start: data, count: size)
    guard let address = IPAddress(utf8: text.bytes) else { return 0 }
    guard IPAddress(address.description) == address else { fatalError("\(address) does not parse back") }
    return 0
}
