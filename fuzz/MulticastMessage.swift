import Wire

// Any bytes as a DNS message on the local link: nothing may trap, names have the length and the letters of those that may
// be asked for, and only the name that is asked for is believed.
@testable import Engine

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzMulticastMessage(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = unsafe UnsafeRawBufferPointer(start: data, count: size).bytes
    if case .response(_, let records) = MulticastMessage.read(bytes) {
        // Each takes eleven bytes and its address.
        check(records.count <= size / 15)
        for record in records {
            check(record.name.utf8.count <= 253 && !record.name.isEmpty)
            check(record.name == record.name.lowercased())
        }
    }
    let questions = MulticastQuestions(random: SeededGenerator(seed: 1))
    let now = Instant(nanoseconds: 0)
    guard questions.ask("host.local", now: now) == .asked else { fatalError("not asked") }
    questions.handle(bytes, from: SocketAddress(ip: .anyIPv4, port: 5353), isToGroup: true, now: now)
    while let event = questions.pollEvent() {
        check(event.name == "host.local" && !event.addresses.isEmpty && event.addresses.count <= 8)
    }
    let text = unsafe String(decoding: UnsafeRawBufferPointer(start: data, count: size), as: UTF8.self)
    if let name = MulticastMessage.name(text) { check(name.hasSuffix(".local") && MulticastMessage.name(name) == name) }
    return 0
}

private func check(_ condition: Bool) { precondition(condition) }
